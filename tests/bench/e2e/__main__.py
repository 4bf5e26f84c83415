"""From the HTTP edge to a readable context: `python -m tests.bench.e2e`.

Starts the whole system with the local model, sends at a steady pace, and measures on samples how long it
takes from the moment a delivery was due until a reader has the event in its context. Then comes a burst, and
how long the queue needs to be empty again. Where it is told to, somebody searches all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import uvloop
from webhook.context.v1.context_service_pb2 import BatchGetContextsRequest, BatchGetResult
from webhook_shared.coalesce import Coalescer
from webhook_shared.tasks import ended

from tests.bench.e2e.deliveries import ACTIVE_ISSUES, COMMENTS_EACH
from tests.bench.ingest.sender import quantile_ms
from tests.bench.report import report
from tests.clients import DEFAULT_TENANT
from tests.system import House, running_house

RATE_PER_S = 1000
DURATION_S = 600
SHORT_S = 120
BURST = 50_000
# A pace at which everything is compiled, connected and cached once.
WARM_UP_S = 5
# Looking costs the system time, too: samples are looked at together, once in so long, and what has taken long
# is looked at less often, and known less exactly.
POLL_S = 0.01
POLL_SHARE = 0.1
MOST_LOOKS = 256
BACKLOG_POLL_S = 0.5
#: Meant, not named: it has to be embedded, and is another one each time.
QUESTION = "who reverted the change that made timeouts, and what was said about pool {}?"
READABLE_WITHIN_S = 120.0
MOST_EVENTS = 1000
DRAINED_WITHIN_S = 1800.0


@dataclass
class Watch:
    """What is seen of the system from outside while it works.

    Attributes:
        readable_s: Of each sample, how long until it could be read.
        missing: Samples that could not be read in READABLE_WITHIN_S.
        backlog_max: Most events waiting, in flight or delayed.
        contexts_waiting_max: Most contexts that waited to be understood.
        searched_s: How long each search took.
    """

    house: House
    readable_s: list[float] = field(default_factory=list)
    missing: int = 0
    backlog_max: int = 0
    contexts_waiting_max: int = 0
    searched_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._looks = Coalescer[str, bool](self._are_readable, max_items=MOST_LOOKS)

    async def search(self, per_s: float) -> None:
        """Ask for contexts again and again, at a pace; a search that is slow puts off the next."""
        while True:
            began_s = time.monotonic()
            await self.house.operator.search(QUESTION.format(len(self.searched_s)))
            self.searched_s.append(time.monotonic() - began_s)
            await asyncio.sleep(max(0.0, began_s + 1 / per_s - time.monotonic()))

    async def sample(self, context_id: str, due_s: float) -> None:
        """Read until the event is there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READABLE_WITHIN_S):
                while not await self._looks.submit(context_id):
                    now_s = time.monotonic()
                    next_s = now_s + (now_s - due_s) * POLL_SHARE
                    # In step with the others, so that they share a call.
                    await asyncio.sleep((next_s // POLL_S + 1) * POLL_S - now_s)
            self.readable_s.append(time.monotonic() - due_s)
            return
        self.missing += 1

    async def _are_readable(self, context_ids: list[str]) -> list[bool]:
        request = BatchGetContextsRequest(
            tenant=DEFAULT_TENANT, context_ids=context_ids, max_events=MOST_EVENTS, include_payloads=True
        )
        results = (await self.house.operator.contexts.BatchGetContexts(request)).results
        return [_is_there(result) for result in results]

    async def backlog(self) -> tuple[int, int]:
        """Events that are not in a context yet, and contexts that are not understood yet."""
        stages = await self.house.operator.backlog()
        events, contexts = (
            stage.waiting_count + stage.in_flight_count + stage.delayed_count
            for stage in (stages["events"], stages["enrichment"])
        )
        self.backlog_max = max(self.backlog_max, events)
        self.contexts_waiting_max = max(self.contexts_waiting_max, contexts)
        return events, contexts

    async def look(self) -> None:
        """Look at the backlog again and again."""
        while True:
            await self.backlog()
            await asyncio.sleep(BACKLOG_POLL_S)

    async def drained(self, stage: int) -> float:
        """How long it takes from now until a stage (0: events, 1: contexts) has nothing left, seconds."""
        began_s = time.monotonic()
        async with asyncio.timeout(DRAINED_WITHIN_S):
            while (await self.backlog())[stage]:
                await asyncio.sleep(POLL_S * 10)
        return time.monotonic() - began_s


def _is_there(result: BatchGetResult) -> bool:
    if result.status.code not in {grpc.StatusCode.OK.value[0], grpc.StatusCode.NOT_FOUND.value[0]}:
        raise RuntimeError(f"a context can't be read: {result.status.reason}")
    return not result.status.code


class Generator:
    """The sending process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def send(self, count: int, rate: float, watch: Watch) -> dict[str, Any]:
        """Have so many sent, and every sample watched to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"count": count, "rate": rate}).encode() + b"\n")
        async with asyncio.TaskGroup() as group:
            async for line in self._process.stdout:
                said = json.loads(line)
                if "sent" in said:
                    return dict(said)
                group.create_task(watch.sample(said["context_id"], said["due_s"]))
        raise RuntimeError("the load generator ended; its reason stands above")


@asynccontextmanager
async def generating(house: House) -> AsyncIterator[Generator]:
    """A generator with its connections open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.e2e.sender", house.http),
        env=os.environ | {"BENCH_SECRET": house.system.secrets["GITHUB_WEBHOOK_SECRET"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Generator(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def measure(rate: float, duration_s: int, burst: int, searches_per_s: float) -> None:
    """Run it and report."""
    with tempfile.TemporaryDirectory(prefix="webhook-bench-") as directory:
        async with running_house(Path(directory)) as house, generating(house) as generator:
            await generator.send(int(WARM_UP_S * rate / 4), rate / 4, Watch(house))
            watch = Watch(house)
            looking = [asyncio.create_task(watch.look())]
            if searches_per_s:
                looking.append(asyncio.create_task(watch.search(searches_per_s)))
            before = cpu_s(house)
            print(f"  {rate:g}/s for {duration_s} s", flush=True)
            steady = await generator.send(int(rate * duration_s), rate, watch)
            await ended(looking)
            figures = figures_of(watch, steady)
            figures["contexts_drain_s"] = round(await watch.drained(1), 1)
            # Only now: what was put off has been paid for, too.
            cost = {name: (used - before[name]) / steady["sent"] for name, used in cpu_s(house).items()}
            figures |= {f"cpu_us_of_{name}": round(each * 1e6) for name, each in cost.items()}
            if burst:
                print(f"  a burst of {burst:,}", flush=True)
                figures |= await after_burst(generator, Watch(house), burst)
            figures["memory_mb"] = round(sum(each.memory_info().rss for each in parts(house).values()) / 1e6)
    report(
        "e2e",
        figures,
        settings={
            "rate_per_s": rate,
            "duration_s": duration_s,
            "burst": burst,
            "searches_per_s": searches_per_s,
            "model": "local (MiniLM)",
            "active_issues": ACTIVE_ISSUES,
            "comments_each": COMMENTS_EACH,
        },
        payloads={"source": "@octokit/webhooks-examples, issue_comment", "distinct": steady["sent"]},
    )


async def after_burst(generator: Generator, watch: Watch, burst: int) -> dict[str, Any]:
    """Send as fast as it is taken; how fast that was, and how long until all are in their contexts."""
    sent = await generator.send(burst, 0, watch)
    return {
        "burst_acknowledged": sent["acknowledged"],
        "burst_per_s": round(sent["requests_per_s"]),
        "drain_s": round(await watch.drained(0), 1),
        "burst_backlog_max": watch.backlog_max,
        "burst_contexts_drain_s": round(await watch.drained(1), 1),
    }


def figures_of(watch: Watch, steady: dict[str, Any]) -> dict[str, Any]:
    """Of the steady part."""
    ordered = sorted(watch.readable_s)
    searched = sorted(watch.searched_s)
    return {
        "requests_per_s": round(steady["requests_per_s"], 1),
        "p50_ms": round(quantile_ms(ordered, 0.5), 1),
        "p95_ms": round(quantile_ms(ordered, 0.95), 1),
        "p99_ms": round(quantile_ms(ordered, 0.99), 1),
        "http_p50_ms": round(steady["http_p50_ms"], 1),
        "http_p99_ms": round(steady["http_p99_ms"], 1),
        "samples": len(ordered),
        "samples_never_readable": watch.missing,
        "backlog_max": watch.backlog_max,
        "contexts_waiting_max": watch.contexts_waiting_max,
        "acknowledged": steady["acknowledged"],
        "error_rate": 1 - steady["acknowledged"] / steady["sent"],
        **{f"search_p{p}_ms": round(quantile_ms(searched, p / 100), 1) for p in (50, 99) if searched},
    }


def parts(house: House) -> dict[str, psutil.Process]:
    """The processes of the system, its Redis among them, by name."""
    return {name: psutil.Process(child.pid) for name, child in house.system.processes.items()}


def cpu_s(house: House) -> dict[str, float]:
    """CPU time that each has used, seconds."""
    return {name: sum(process.cpu_times()[:2]) for name, process in parts(house).items()}


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE_PER_S, help="deliveries a second")
    parser.add_argument("--duration", type=int, default=DURATION_S, help="of the steady part, seconds")
    parser.add_argument("--short", action="store_true", help=f"{SHORT_S} s instead")
    parser.add_argument("--burst", type=int, default=BURST, help="deliveries; 0: none")
    parser.add_argument("--searches", type=float, default=0, help="searches a second beside it")
    chosen = parser.parse_args()
    duration_s = SHORT_S if chosen.short else chosen.duration
    uvloop.run(measure(chosen.rate, duration_s, chosen.burst, chosen.searches))


if __name__ == "__main__":
    main()
