"""Webhooks per second at the door, beside a plain receiver: `python -m tests.bench.ingest`.

Every round sends the same signed, distinct deliveries to an empty Redis; ours and the plain receiver take
turns, so that what else the machine does falls on both. What is reported is the median of the rounds, and
beside it the same for fewer and for more connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import uvloop
from webhook_shared import redis as store

from conftest import RedisServer
from tests.bench.consume.corpus import payloads
from tests.bench.ingest.house import Contestant, ours, plain
from tests.bench.report import report

DELIVERIES = 20_000
ROUNDS = 5
# Twice the plain receiver's pool: with as many as that or fewer, the pool that it needs is never put to use.
CONNECTIONS = 128
OTHER_CONNECTIONS = (64, 256)
OTHER_ROUNDS = 3
BESIDE = ("requests_per_s", "p99_ms", "plain_requests_per_s", "plain_p99_ms", "ratio_to_plain")
LATENCIES = ("p50_ms", "p99_ms", "p999_ms")
Round = dict[str, Any]


class Generator:
    """The sending process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def answer(self) -> Round:
        """Its next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended; its reason stands above")
        return dict(json.loads(line))

    async def send(self, port: int, connections: int) -> Round:
        """Have every delivery sent to a port."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {connections}\n".encode())
        return await self.answer()


@asynccontextmanager
async def generating(count: int) -> AsyncIterator[Generator]:
    """A generator that has signed its deliveries."""
    command = ["-m", "tests.bench.ingest.sender", str(count)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        generator = Generator(process)
        await generator.answer()
        yield generator
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@dataclass(frozen=True)
class Match:
    """Everything that a round needs.

    Attributes:
        generator: Sends.
        contestants: Ours and the plain receiver.
        client: Of the Redis that all of them use.
        count: Deliveries of a round.
    """

    generator: Generator
    contestants: Sequence[Contestant]
    client: store.Client
    count: int

    async def rounds(self, connections: int, rounds: int) -> list[Round]:
        """Both take turns, and who goes first changes."""
        print(f"  {connections} connections")
        return [
            await self._play(contestant, connections)
            for number in range(rounds)
            for contestant in (self.contestants if number % 2 == 0 else self.contestants[::-1])
        ]

    async def _play(self, contestant: Contestant, connections: int) -> Round:
        for pattern in (contestant.stream, "dedup:*", "plain:*"):
            await _empty(self.client, pattern)
        before = contestant.cpu_s()
        figures = await self.generator.send(contestant.port, connections)
        after = contestant.cpu_s()
        figures["name"] = contestant.name
        figures["connections"] = connections
        figures["in_stream"] = await self.client.xlen(contestant.stream)
        figures["cpu_us_per_request"] = {
            name: round((after[name] - before[name]) / self.count * 1e6, 1) for name in before
        }
        costs = ", ".join(f"{name} {cost:.0f}" for name, cost in figures["cpu_us_per_request"].items())
        print(
            f"  {contestant.name:6} {figures['requests_per_s']:9,.0f} /s   p99 {figures['p99_ms']:6.1f} ms   "
            f"CPU µs each: {costs}"
        )
        return figures


async def _empty(client: store.Client, pattern: str) -> None:
    # Not FLUSHALL: the tenants' keys belong to a running system.
    names = [name async for name in client.scan_iter(match=pattern, count=5000)]
    for start in range(0, len(names), 5000):
        await client.unlink(*names[start : start + 5000])


async def measure(count: int, rounds: int, connections: int, appendfsync: str) -> None:
    """Play the rounds and report."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook-bench-"))
        server = RedisServer(Path(directory), appendfsync=appendfsync)
        server.start()
        stack.callback(server.kill)
        await server.answering()
        client = store.connect(server.settings)
        stack.push_async_callback(client.aclose)
        info = await client.info("server")
        redis = psutil.Process(info["process_id"])
        contestants = [await stack.enter_async_context(each(server, redis)) for each in (ours, plain)]
        match = Match(await stack.enter_async_context(generating(count)), contestants, client, count)
        print("  to get warm")
        await match.rounds(connections, 1)
        print("  now it counts")
        played = await match.rounds(connections, rounds)
        others = {each: await match.rounds(each, min(rounds, OTHER_ROUNDS)) for each in OTHER_CONNECTIONS}
        settings = {
            "deliveries_per_round": count,
            "rounds": rounds,
            "connections": connections,
            "appendfsync": appendfsync,
            "server_version": info.get("valkey_version") or info["redis_version"],
            "plain": "Starlette, redis-py with a blocking pool of 64, uvicorn (httptools, uvloop)",
        }
        figures = figures_of(played)
        for each, found in others.items():
            figures |= {
                f"{name}_at_{each}": value for name, value in figures_of(found).items() if name in BESIDE
            }
        report("ingest", figures, settings=settings, payloads=mix(count), rounds=played)


def figures_of(played: list[Round]) -> dict[str, Any]:
    """Medians of ours beside those of the plain receiver."""
    by_name = {name: [each for each in played if each["name"] == name] for name in ("ours", "plain")}
    middle = {
        name: {
            figure: statistics.median(each[figure] for each in rounds)
            for figure in ("requests_per_s", *LATENCIES)
        }
        for name, rounds in by_name.items()
    }
    return {
        "requests_per_s": round(middle["ours"]["requests_per_s"]),
        **{figure: round(middle["ours"][figure], 2) for figure in LATENCIES},
        "plain_requests_per_s": round(middle["plain"]["requests_per_s"]),
        **{f"plain_{figure}": round(middle["plain"][figure], 2) for figure in LATENCIES},
        "ratio_to_plain": round(middle["ours"]["requests_per_s"] / middle["plain"]["requests_per_s"], 2),
        "acknowledged": sum(each["acknowledged"] for each in by_name["ours"]),
        "in_stream": sum(each["in_stream"] for each in by_name["ours"]),
        "refused": sum(each["refused"] for each in played),
    }


def mix(count: int) -> dict[str, Any]:
    """What was sent."""
    sent = payloads(count)
    sizes = sorted(len(payload.body) for payload in sent)
    return {
        "source": "@octokit/webhooks-examples, varied",
        "distinct": count,
        "event_types": len({payload.type for payload in sent}),
        "median_bytes": sizes[count // 2],
        "p95_bytes": sizes[int(count * 0.95)],
        "largest_bytes": sizes[-1],
    }


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deliveries", type=int, default=DELIVERIES, help="sent in every round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each contestant")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--appendfsync", choices=("everysec", "always"), default="everysec")
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.deliveries, chosen.rounds, chosen.connections, chosen.appendfsync))


if __name__ == "__main__":
    main()
