"""How contexts are read, written, kept and found: `python -m tests.bench.context`.

One context service with its Redis on this machine, contexts of about 10 KB; beside it a bare grpc.aio method
that answers with the same bytes, and PostgreSQL with the same contexts as JSONB.
"""

from __future__ import annotations

import argparse
from typing import Any

import uvloop

from tests.bench.context import crashes, finding, reading, rivals, tiers
from tests.bench.context.corpus import DIMENSION, TOPICS, bodies
from tests.bench.context.filling import DISTINCT, enrich, fill, used_memory_bytes
from tests.bench.context.house import context_house, quiet
from tests.bench.report import report

CONTEXTS = 100_000
CRASHES = 10_000


async def measure(contexts: int, crash_count: int) -> None:
    """Everything, one after another, and report."""
    made = bodies(min(contexts, DISTINCT))
    figures: dict[str, Any] = {}
    async with context_house() as house:
        print(f"  {contexts:,} contexts", flush=True)
        empty_bytes = await used_memory_bytes(house)
        figures |= await fill(house, made, contexts)
        await quiet(house)
        print("  reading and writing", flush=True)
        figures |= await reading.measure(house, contexts)
        print("  beside others", flush=True)
        figures |= await rivals.measure(house, made, figures)
        print("  vectors for all", flush=True)
        held = await enrich(house, contexts)
        figures["bytes_per_hot_context"] = round((await used_memory_bytes(house) - empty_bytes) / contexts)
        # Else what is found is measured beside the reading of what was just written.
        await quiet(house)
        print("  finding", flush=True)
        figures |= await finding.measure(house, held)
        await quiet(house)
        print("  tiers", flush=True)
        figures |= await tiers.measure(house, contexts, figures["bytes_per_hot_context"])
    print(f"  {crash_count:,} crashes", flush=True)
    figures |= await crashes.measure(crash_count)
    report(
        "context",
        figures,
        settings={"contexts": contexts, "crashes": crash_count, "dimension": DIMENSION, "topics": TOPICS},
        payloads={
            "source": "@octokit/webhooks-examples of 8 to 12.5 KB, varied",
            "distinct": len(made),
            "mean_bytes": sum(len(each.body) for each in made) // len(made),
        },
    )


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=CONTEXTS)
    parser.add_argument("--crashes", type=int, default=CRASHES)
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.contexts, chosen.crashes))


if __name__ == "__main__":
    main()
