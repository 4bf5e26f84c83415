"""Events per second out of the queue, beside other queues: `python -m tests.bench.consume`.

Seals real-shaped events into the stream of a server with an append-only file, then has one process read,
open (decrypt, decompress, decode), acknowledge and delete them, with the consumer's own worker and
nothing to do for each event but that. The peers get text of the size of a sealed event, and open nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

import uvloop
from webhook_shared.process import collect_garbage_seldom

from tests.bench.consume.corpus import Payload, payloads
from tests.bench.consume.house import CONSUMER, LANE, fill, working
from tests.bench.consume.legs import POLL_S, memory, processes, serving, waits
from tests.bench.peers.contest import PEERS, events_per_s
from tests.bench.report import report

EVENTS = 200_000
DISTINCT_PAYLOADS = 2_000
PEER_ROUNDS = 3
# What a sealed event of GitHub's is, on the average.
PEER_BODY_BYTES = 1_100


async def one_process(bodies: Sequence[Payload], count: int) -> dict[str, float]:
    """Fill the queue and have this process empty it."""
    async with serving() as (server, client):
        size = await fill(client, bodies, count)
        began, began_cpu = time.perf_counter(), time.process_time()
        async with working(server.settings, client) as handler:
            while handler.opened < count or await client.xlen(LANE.stream):
                await asyncio.sleep(POLL_S)
            took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
        assert handler.opened == count, f"{handler.opened} opened, {count} queued"
        assert not await client.xlen(LANE.dead_letters)
    return {
        "events_per_s": count / took,
        "cpu_us_per_event": took_cpu / count * 1e6,
        "bytes_per_queued_event": size,
    }


async def measure(count: int, rounds: int, *, only_main: bool) -> None:
    """Fill and empty the queue several times, and report the medians."""
    bodies = payloads(DISTINCT_PAYLOADS)
    collect_garbage_seldom()
    played: list[dict[str, float]] = []
    theirs: dict[str, list[float]] = {}
    for number in range(rounds):
        played.append(await one_process(bodies, count))
        print(f"round {number + 1} of {rounds}: {played[-1]['events_per_s']:,.0f} events/s", flush=True)
        if not only_main:
            await _let_peers_play(theirs)
    figures: dict[str, Any] = {
        name: round(statistics.median(each[name] for each in played), 1) for name in played[0]
    }
    if not only_main:
        figures |= _beside(figures["events_per_s"], theirs)
        figures |= await _others(bodies, count)
    report(
        "consume",
        figures,
        settings={
            "events": count,
            "processes": 1,
            "num_workers": CONSUMER.num_workers,
            "batch_size": CONSUMER.batch_size,
            "prefetch_count": CONSUMER.prefetch_count,
            "appendfsync": "everysec",
            "peers": "tests/bench/peers/requirements.json and package.json have the versions",
        },
        payloads={
            "package": "@octokit/webhooks-examples",
            "events": len({payload.type for payload in bodies}),
            "distinct": len(bodies),
            "median_bytes": int(statistics.median(len(payload.body) for payload in bodies)),
            "largest_bytes": max(len(payload.body) for payload in bodies),
            "varied": "hashes, ids, times and names, the same within a payload",
            "of_peers_bytes": PEER_BODY_BYTES,
        },
        rounds=played,
        peers=[
            {"name": name, "events_per_s": round(statistics.median(rates)), "rounds": len(rates)}
            for name, rates in theirs.items()
        ],
    )


async def _let_peers_play(theirs: dict[str, list[float]]) -> None:
    for peer in PEERS:
        if not peer.is_installed:
            raise FileNotFoundError(f"{peer.name} is not installed: make peers")
        rates = theirs.setdefault(peer.name, [])
        if len(rates) >= PEER_ROUNDS:
            continue
        async with serving() as (server, _):
            address = server.settings.addresses[0]
            rates.append(await events_per_s(peer, address, count=peer.most, body_bytes=PEER_BODY_BYTES))
        print(f"  {peer.name:10} {rates[-1]:8,.0f} events/s", flush=True)


def _beside(own: float, theirs: dict[str, list[float]]) -> dict[str, Any]:
    middle = {peer: statistics.median(theirs[peer.name]) for peer in PEERS}
    best = max((peer for peer in PEERS if peer.python), key=lambda peer: middle[peer])
    return {
        "best_python_peer": best.name,
        "ratio_to_best_python_peer": round(own / middle[best], 1),
        **{f"ratio_to_{peer.name}": round(own / middle[peer], 1) for peer in PEERS if not peer.python},
    }


async def _others(bodies: Sequence[Payload], count: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in (2, 4):
        print(f"  {number} processes", flush=True)
        rate = await processes(bodies, count, number=number, appendfsync="everysec")
        found[f"events_per_s_of_{number}"] = round(rate)
    print("  appendfsync always", flush=True)
    found["events_per_s_always"] = round(await processes(bodies, count, number=1, appendfsync="always"))
    return {**found, **await waits(bodies), **await memory(bodies)}


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=int(os.environ.get("BENCH_EVENTS", EVENTS)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-main", action="store_true", help="one process of ours, and nothing beside")
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.events, chosen.rounds, only_main=chosen.only_main))


if __name__ == "__main__":
    main()
