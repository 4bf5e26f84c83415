"""Webhooks per second at the door, beside other receivers: `python -m tests.bench.ingest`.

Every round sends the same signed, distinct deliveries to an empty Redis; ours, the plain receiver and the one
on Node take turns, so that what else the machine does falls on all. What is reported is the median of the
rounds; beside it the same for fewer and for more connections, and for other loads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import uvloop

from tests.bench.ingest.arena import MEASURES, Round, generating, medians, turns
from tests.bench.ingest.deliveries import Mix, bodies
from tests.bench.ingest.house import node, ours, plain, storing
from tests.bench.ingest.legs import legs, show
from tests.bench.report import report

DELIVERIES = 20_000
ROUNDS = 5
# Twice the plain receiver's pool: with as many as that or fewer, the pool that it needs is never put to use.
CONNECTIONS = 128
OTHER_CONNECTIONS = (64, 256)
OTHER_ROUNDS = 3
RIVALS = ("plain", "node")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        count: Deliveries of a round.
        rounds: Of each contestant.
        connections: At once.
        appendfsync: Of the Redis.
        only_main: Neither other numbers of connections nor other loads.
    """

    count: int
    rounds: int
    connections: int
    appendfsync: str
    only_main: bool


async def measure(plan: Plan) -> None:
    """Play the rounds and report."""
    mix = Mix(plan.count)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(storing(plan.appendfsync))
        contestants = [await enter(each(store)) for each in (ours, plain, node)]
        generator = await enter(generating(mix))
        print("  to get warm")
        await turns(generator, contestants, mix, connections=plan.connections, rounds=1)
        print(f"  now it counts: {plan.connections} connections")
        played = await turns(generator, contestants, mix, connections=plan.connections, rounds=plan.rounds)
        figures = figures_of(played)
        for connections in () if plan.only_main else OTHER_CONNECTIONS:
            print(f"  {connections} connections")
            found = await turns(generator, contestants[:2], mix, connections=connections, rounds=OTHER_ROUNDS)
            figures |= beside(found, connections)
        version = await store.version()
    others = [] if plan.only_main else [await leg.run() for leg in legs(plan.count, plan.connections)]
    settings = {
        "deliveries_per_round": plan.count,
        "rounds": plan.rounds,
        "connections": plan.connections,
        "appendfsync": plan.appendfsync,
        "server_version": version,
        "plain": "Starlette, redis-py with a blocking pool of 64, uvicorn (httptools, uvloop)",
        "node": "Fastify, @octokit/webhooks, BullMQ (tests/bench/peers/package.json has the versions)",
    }
    report("ingest", figures, settings=settings, payloads=described(mix), rounds=played, loads=others)
    if others:
        show(others)


def figures_of(played: Sequence[Round]) -> dict[str, Any]:
    """Medians of ours, beside those of the rivals."""
    own = medians(played, "ours")
    figures: dict[str, Any] = {
        "requests_per_s": round(own["requests_per_s"]),
        **{measure: round(own[measure], 2) for measure in MEASURES[1:]},
    }
    for rival in RIVALS:
        theirs = medians(played, rival)
        figures |= {f"{rival}_requests_per_s": round(theirs["requests_per_s"])}
        figures |= {f"{rival}_{measure}": round(theirs[measure], 2) for measure in MEASURES[1:]}
        figures[f"ratio_to_{rival}"] = round(own["requests_per_s"] / theirs["requests_per_s"], 2)
    mine = [each for each in played if each["name"] == "ours"]
    return {
        **figures,
        "acknowledged": sum(each["acknowledged"] for each in mine),
        "in_stream": sum(each["kept"] for each in mine),
        "refused": sum(each["refused"] for each in played),
        "memory_mb": sum(size for name, size in mine[-1]["memory_mb"].items() if name != "redis"),
    }


def beside(played: Sequence[Round], connections: int) -> dict[str, Any]:
    """The two figures that matter, for another number of connections."""
    own, theirs = medians(played, "ours"), medians(played, "plain")
    return {
        f"requests_per_s_at_{connections}": round(own["requests_per_s"]),
        f"p99_ms_at_{connections}": round(own["p99_ms"], 2),
        f"plain_requests_per_s_at_{connections}": round(theirs["requests_per_s"]),
        f"ratio_to_plain_at_{connections}": round(own["requests_per_s"] / theirs["requests_per_s"], 2),
    }


def described(mix: Mix) -> dict[str, Any]:
    """What was sent."""
    sent = bodies(mix.body_bytes, mix.count)
    sizes = sorted(len(payload.body) for payload in sent)
    return {
        "source": "@octokit/webhooks-examples, varied",
        "distinct": mix.count,
        "event_types": len({payload.type for payload in sent}),
        "median_bytes": sizes[mix.count // 2],
        "p95_bytes": sizes[int(mix.count * 0.95)],
        "largest_bytes": sizes[-1],
    }


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=DELIVERIES, help="sent in every round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each contestant")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--appendfsync", choices=("everysec", "always"), default="everysec")
    parser.add_argument("--only-main", action="store_true", help="no other connections, no other loads")
    chosen = parser.parse_args()
    plan = Plan(chosen.deliveries, chosen.rounds, chosen.connections, chosen.appendfsync, chosen.only_main)
    uvloop.run(measure(plan))


if __name__ == "__main__":
    main()
