"""Where contestants take turns at the same deliveries."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from itertools import count
from typing import Any

from tests.bench.ingest.deliveries import Mix
from tests.bench.ingest.house import Contestant
from tests.bench.log_rewriting import rewritten

_round_numbers = count(1)
MEASURES = ("requests_per_s", "p50_ms", "p99_ms", "p999_ms")
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

    async def send(self, ports: Sequence[int], connections: int, round_number: int) -> Round:
        """Have every delivery of a round sent, the connections dealt out to the ports in turn."""
        assert self._process.stdin is not None
        order = {"ports": list(ports), "connections": connections, "round": round_number}
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return await self.answer()


@asynccontextmanager
async def generating(mix: Mix) -> AsyncIterator[Generator]:
    """A generator that has signed its deliveries."""
    command = ["-m", "tests.bench.ingest.sender", json.dumps(asdict(mix))]
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


async def turns(
    generator: Generator, contestants: Sequence[Contestant], mix: Mix, *, connections: int, rounds: int
) -> list[Round]:
    """Let every contestant play so many rounds; who goes first changes, so that what else the machine does
    falls on all."""
    return [
        await _play(generator, contestant, mix, connections, next(_round_numbers))
        for number in range(rounds)
        for contestant in (contestants if number % 2 == 0 else contestants[::-1])
    ]


async def _play(
    generator: Generator, contestant: Contestant, mix: Mix, connections: int, round_number: int
) -> Round:
    await _begin_empty(contestant)
    before = contestant.cpu_s()
    figures = await generator.send(contestant.ports, connections, round_number)
    after = contestant.cpu_s()
    figures |= {
        "name": contestant.name,
        "connections": connections,
        "kept": await contestant.kept(),
        "cpu_us_per_request": {
            name: round((after[name] - before[name]) / mix.count * 1e6, 1) for name in before
        },
        "memory_mb": contestant.memory_mb(),
    }
    figures["cpu_us_per_request"]["sender"] = round(figures.pop("generator_cpu_us"), 1)
    costs = ", ".join(f"{name} {cost:.0f}" for name, cost in figures["cpu_us_per_request"].items())
    print(
        f"  {contestant.name:8} {figures['requests_per_s']:9,.0f} /s   p99 {figures['p99_ms']:7.1f} ms   "
        f"CPU µs each: {costs}",
        flush=True,
    )
    # The next one plays on the same server.
    await _empty(contestant)
    return figures


def medians(played: Sequence[Round], name: str) -> dict[str, float]:
    """The middle of a contestant's rounds, measure by measure."""
    own = [each for each in played if each["name"] == name]
    return {measure: statistics.median(each[measure] for each in own) for measure in MEASURES}


async def _begin_empty(contestant: Contestant) -> None:
    await _empty(contestant)
    await rewritten(contestant.client)


async def _empty(contestant: Contestant) -> None:
    # Not FLUSHALL: the tenants' keys belong to a running system.
    client = contestant.client
    for pattern in contestant.leaves:
        names = [name async for name in client.scan_iter(match=pattern, count=5000)]
        for start in range(0, len(names), 5000):
            await client.unlink(*names[start : start + 5000])
