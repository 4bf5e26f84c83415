"""What understanding costs, and what it is worth: `python -m tests.bench.intelligence`.

The real service on a socket with a real Redis, an OpenAI-compatible server of ours that counts its calls,
the real local models, labelled questions and stories, and the histories of free programs as traces.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop
from webhook_intelligence.prediction.evaluation import evaluate
from webhook_intelligence.prediction.predictor import Policy
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

from conftest import RedisServer
from services.intelligence.tests import traces
from services.intelligence.tests.histories import PACKAGES, Recorded, history
from services.intelligence.tests.labelled import EVENTS
from services.intelligence.tests.stories import STORIES
from tests.bench.intelligence import calls, quality
from tests.bench.intelligence.outage import outage
from tests.bench.report import ROOT, report

MODELS = ROOT / "var" / "models"
OUTAGE_S = 60.0
# What two processors sustain with every service on them is far below; ask for what yours do.
EVENTS_PER_S = 1000.0


def prewarming() -> list[dict[str, Any]]:
    """What predictions are worth on the recorded traces that are here, and on made ones."""
    recorded: dict[str, list[Recorded]] = {f"history of {name}": history(name) for name in PACKAGES}
    recorded = {name: trace for name, trace in recorded.items() if trace}
    recorded |= {"linked pull requests": traces.structured(), "chance": traces.noise()}
    found = []
    for name, trace in recorded.items():
        judged = evaluate(trace, Policy())
        score = judged.together
        found.append(
            {
                "trace": name,
                "on": judged.on,
                "lift": round(score.lift, 5),
                "lift_low": round(score.lift_low, 5),
                "lift_high": round(score.lift_high, 5),
                "pollution": round(score.pollution, 5),
                "hit_rate_lru": round(score.hit_rate_lru, 4),
                "precision": round(score.precision, 4),
                "uses": score.uses,
                "contexts": judged.contexts,
                "us_per_event": round(judged.us_per_observation, 1),
                "bytes_per_context": round(judged.bytes_per_context),
            }
        )
        print(name, {key: found[-1][key] for key in ("on", "lift", "lift_low", "pollution")}, flush=True)
    return found


async def measure(redis: RedisSection) -> dict[str, Any]:
    """Everything that needs Redis, one after the other, each on an empty one."""
    figures: dict[str, Any] = {}
    client = store.connect(redis)
    for step in (calls.equal, calls.distinct, calls.known, calls.looked_up, quality.summaries):
        await client.flushall()
        figures |= await step(redis)
        print(step.__name__, "done", flush=True)
    await client.aclose()
    return figures


async def run(outage_s: float, events_per_s: float) -> None:
    """Measure all of it and report."""
    with tempfile.TemporaryDirectory(prefix="webhook-bench-") as directory:
        server = RedisServer(Path(directory), appendfsync="everysec")
        server.start()
        await server.answering()
        figures = await measure(server.settings)
        server.kill()
    if outage_s:
        figures |= await outage(outage_s, events_per_s)
        print("outage done", flush=True)
    figures |= await quality.local(MODELS)
    figures["prewarm"] = await asyncio.to_thread(prewarming)
    report(
        "intelligence",
        figures,
        settings={
            "texts": calls.TEXTS,
            "callers": calls.CALLERS,
            "provider_delay_s": calls.PROVIDER_DELAY_S,
            "cache_hit_calls": calls.KNOWN_CALLS,
            "cache_hit_calls_per_s": calls.KNOWN_PER_S,
            "outage_events_per_s": events_per_s,
            "prewarming": {**asdict(Policy()), "tier": "5 % of the contexts"},
        },
        payloads={"stories": len(STORIES), "labelled_events": len(EVENTS)},
    )


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outage-s", type=float, default=OUTAGE_S, help="0: without an outage")
    parser.add_argument("--events-per-s", type=float, default=EVENTS_PER_S, help="during the outage")
    asked = parser.parse_args()
    uvloop.run(run(asked.outage_s, asked.events_per_s))


if __name__ == "__main__":
    main()
