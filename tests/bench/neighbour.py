"""What a noisy source does to another one: `python -m tests.bench.neighbour`.

Two sources send at a steady pace, each its share; then the noisy one ten times its share, in turns. A
delivery counts from when it is due, not from when a connection was free for it. At last the noisy one sends
as fast as it is answered: then everybody waits, and what is told is who waits for how long.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson
import uvloop

from tests.bench.ingest.house import free_ports, process, storing
from tests.bench.ingest.sender import complete, quantile_ms
from tests.bench.report import report

SECRET = "the secret of both sources, of no other use"
SHARE_PER_S = 60
TIMES = 10
PHASE_S = 5.0
ROUNDS = 12
"""Many short ones in turns: a p99 of few deliveries is the machine's worst moment, and nobody's doing."""
CONNECTIONS = 32
FLOODING = 400
"""Connections that send as fast as they are answered."""

_NUMBERS = count()


@dataclass(frozen=True)
class Source:
    """Who sends."""

    tool: str
    signature: str
    delivery_id: str
    event: str


NOISY = Source("github", "X-Hub-Signature-256", "X-GitHub-Delivery", "X-GitHub-Event: issues\r\n")
QUIET = Source("jira", "X-Hub-Signature", "X-Atlassian-Webhook-Identifier", "")


def request(source: Source) -> bytes:
    """A delivery that was never sent before, of about 8 KB."""
    number = next(_NUMBERS)
    text = hashlib.sha256(str(number).encode()).hexdigest() * 120
    body = orjson.dumps({"webhookEvent": "jira:issue_updated", "timestamp": number, "text": text})
    signed = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST /webhooks/{source.tool} HTTP/1.1\r\nHost: hooks.example.com\r\n{source.event}"
        f"Content-Type: application/json\r\n{source.delivery_id}: {os.getpid()}-{number}\r\n"
        f"{source.signature}: sha256={signed}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """Sends one delivery after the other."""

    def __init__(self) -> None:
        self._answer = b""
        self._done: asyncio.Future[int]
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._answer += data
        if complete(self._answer):
            status, self._answer = int(self._answer[9:12]), b""
            self._done.set_result(status)

    def send(self, delivery: bytes) -> asyncio.Future[int]:
        """Send it; the status of its answer."""
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(delivery)
        return self._done

    def close(self) -> None:
        """End."""
        self._transport.close()


class Sender:
    """The kept connections of one source."""

    def __init__(self, source: Source, free: asyncio.Queue[Connection]) -> None:
        self._source, self._free = source, free
        self.waited_s: list[float] = []
        self.refused = 0

    async def steadily(self, per_s: float, for_s: float) -> None:
        """At a pace, whatever the answers take."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        under_way = set()
        for number in range(round(per_s * for_s)):
            due_s = began_s + number / per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            task = asyncio.create_task(self._one(due_s))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def without_pause(self, connections: int, for_s: float) -> None:
        """As fast as it is answered."""
        end_s = asyncio.get_running_loop().time() + for_s

        async def go_on() -> None:
            while (now_s := asyncio.get_running_loop().time()) < end_s:
                await self._one(now_s)

        await asyncio.gather(*(go_on() for _ in range(connections)))

    async def _one(self, due_s: float) -> None:
        connection = await self._free.get()
        status = await connection.send(request(self._source))
        self.waited_s.append(asyncio.get_running_loop().time() - due_s)
        self.refused += status not in {200, 202}
        self._free.put_nowait(connection)


@asynccontextmanager
async def sender(source: Source, port: int, connections: int) -> AsyncIterator[Sender]:
    """A sender that is connected."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    opened = []
    for _ in range(connections):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
        opened.append(connection)
        free.put_nowait(connection)
    try:
        yield Sender(source, free)
    finally:
        for connection in opened:
            connection.close()


@asynccontextmanager
async def house() -> AsyncIterator[int]:
    """Security and a gateway on a Redis of their own; the port of the door."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(storing("everysec"))
        security, http, rpc = free_ports(3)
        environ = {
            "REDIS_ADDRESSES": f"127.0.0.1:{store.server.port}",
            "GITHUB_WEBHOOK_SECRET": SECRET,
            "JIRA_WEBHOOK_SECRET": SECRET,
            "WEBHOOK_SECURITY_ADDRESS": f"127.0.0.1:{security}",
            "WEBHOOK_HTTP_ADDRESS": f"127.0.0.1:{http}",
            "WEBHOOK_GATEWAY_ADDRESS": f"127.0.0.1:{rpc}",
            "WEBHOOK_INTERNAL_KEY": "an internal key for measuring only, 0123456789",
            "ENCRYPTION_MASTER_KEY": "a master key for measuring only, 0123456789",
            "WEBHOOK_LOG_LEVEL": "warning",
        }
        for package, port in (("webhook_security", security), ("webhook_gateway", http)):
            await stack.enter_async_context(process([sys.executable, "-m", package], environ, port))
        yield http


async def measure(share_per_s: float, phase_s: float, rounds: int) -> None:
    """Play the phases and report."""
    async with (
        house() as port,
        sender(QUIET, port, CONNECTIONS) as quiet,
        sender(NOISY, port, CONNECTIONS) as steady,
    ):
        await asyncio.gather(quiet.steadily(share_per_s, 2), steady.steadily(share_per_s, 2))
        played, waited_s = [], defaultdict[int, list[float]](list)
        for times in phases(rounds):
            played.append(await phase(quiet, steady, share_per_s, times, phase_s))
            waited_s[times] += quiet.waited_s
        async with sender(NOISY, port, FLOODING) as flooding:
            played.append(await phase(quiet, flooding, share_per_s, 0, phase_s))
        refused = quiet.refused + steady.refused + flooding.refused
    calm, loud = quantiles(waited_s[1]), quantiles(waited_s[TIMES])
    flood = played[-1]
    report(
        "neighbour",
        {
            "quiet_p50_ms": calm["p50_ms"],
            f"quiet_p50_ms_beside_{TIMES}_shares": loud["p50_ms"],
            "quiet_p99_ms": calm["p99_ms"],
            f"quiet_p99_ms_beside_{TIMES}_shares": loud["p99_ms"],
            "change_percent": (loud["p99_ms"] / calm["p99_ms"] - 1) * 100,
            "quiet_p50_ms_beside_a_flood": flood["quiet"]["p50_ms"],
            "quiet_p99_ms_beside_a_flood": flood["quiet"]["p99_ms"],
            "noisy_p50_ms_in_a_flood": flood["noisy"]["p50_ms"],
            "noisy_per_s_in_a_flood": flood["noisy_per_s"],
            "refused": refused,
        },
        settings={"share_per_s": share_per_s, "times": TIMES, "phase_s": phase_s, "rounds": rounds},
        payloads={"source": "made up, signed, each different", "bytes": len(request(QUIET))},
        rounds=played,
    )


async def phase(quiet: Sender, noisy: Sender, share_per_s: float, times: int, for_s: float) -> dict[str, Any]:
    """Both send, the noisy one so many shares; 0: all it can."""
    quiet.waited_s, noisy.waited_s = [], []
    loud = noisy.steadily(share_per_s * times, for_s) if times else noisy.without_pause(FLOODING, for_s)
    await asyncio.gather(quiet.steadily(share_per_s, for_s), loud)
    sent_per_s = len(noisy.waited_s) / for_s
    told = {
        "times": times,
        "noisy_per_s": sent_per_s,
        "quiet": quantiles(quiet.waited_s),
        "noisy": quantiles(noisy.waited_s),
    }
    print(f"  {shown(told)}", flush=True)
    return told


def phases(rounds: int) -> Iterator[int]:
    """How many shares the noisy one sends."""
    for number in range(rounds):
        yield from (1, TIMES) if number % 2 == 0 else (TIMES, 1)


def quantiles(waited_s: list[float]) -> dict[str, float]:
    """What half of the deliveries took at most, and all but one of a hundred."""
    ordered = sorted(waited_s)
    return {f"p{share * 100:g}_ms": quantile_ms(ordered, share) for share in (0.5, 0.99)}


def shown(phase: dict[str, Any]) -> str:
    """One line."""
    told = {
        who: f"p50 {phase[who]['p50_ms']:.1f}, p99 {phase[who]['p99_ms']:.1f} ms"
        for who in ("quiet", "noisy")
    }
    what = f"{phase['times']:2} x its share" if phase["times"] else "all it can   "
    return f"noisy {what} ({phase['noisy_per_s']:5.0f}/s): {told['noisy']}; quiet: {told['quiet']}"


def main() -> None:
    """Parse, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=SHARE_PER_S, help="deliveries per second of each")
    parser.add_argument("--seconds", type=float, default=PHASE_S, help="of each phase")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    uvloop.run(measure(chosen.share, chosen.seconds, chosen.rounds))


if __name__ == "__main__":
    main()
