"""The load, in a process of its own: `python -m tests.bench.ingest.sender MIX`, with a `Mix` as JSON.

Reads `{"ports": [...], "connections": n, "round": m}`, a line each, signs the deliveries of that round and
then sends each once, over as many kept connections that each wait for an answer before the next delivery.
Writes one JSON line for each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import uvloop

from tests.bench.ingest.deliveries import Mix, bodies, deliveries

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


class Connection(asyncio.Protocol):
    """Sends, waits for the answer, sends the next."""

    def __init__(self, source: Iterator[bytes], latencies_s: list[float], statuses: Counter[int]) -> None:
        self._source = source
        self._latencies_s = latencies_s
        self._statuses = statuses
        self._transport: asyncio.WriteTransport
        self._answer = b""
        self._sent_s = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses
        self._next()

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of one."""
        self._answer += data
        if not complete(self._answer):
            return
        self._latencies_s.append(time.perf_counter() - self._sent_s)
        self._statuses[int(self._answer[9:12])] += 1
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing may close a connection before we do."""
        if not self.done.done():
            self.done.set_exception(ConnectionError("closed by the server"))

    def _next(self) -> None:
        delivery = next(self._source, None)
        if delivery is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_s = time.perf_counter()
        self._transport.write(delivery)


def complete(answer: bytes) -> bool:
    """Whether an answer has all of its body."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return False
    start = answer.lower().index(_LENGTH) + len(_LENGTH)
    return len(answer) >= end + len(_HEAD_END) + int(answer[start : answer.index(b"\r", start)])


def quantile_ms(ordered_s: list[float], share: float) -> float:
    """A quantile of ordered seconds, in milliseconds."""
    return ordered_s[min(len(ordered_s) - 1, int(len(ordered_s) * share))] * 1000


async def send_all(ports: Sequence[int], source: list[bytes], connections: int) -> dict[str, float]:
    """Send every delivery once; how fast and how that was answered."""
    latencies_s: list[float] = []
    statuses: Counter[int] = Counter()
    rest = iter(source)
    loop = asyncio.get_running_loop()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    opened = [
        await loop.create_connection(
            lambda: Connection(rest, latencies_s, statuses), "127.0.0.1", ports[number % len(ports)]
        )
        for number in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in opened))
    took_s = time.perf_counter() - began_s
    latencies_s.sort()
    return {
        "requests_per_s": len(source) / took_s,
        "p50_ms": quantile_ms(latencies_s, 0.5),
        "p99_ms": quantile_ms(latencies_s, 0.99),
        "p999_ms": quantile_ms(latencies_s, 0.999),
        "acknowledged": sum(count for status, count in statuses.items() if status in {200, 202}),
        "refused": sum(count for status, count in statuses.items() if status not in {200, 202}),
        "generator_cpu_us": (time.process_time() - began_cpu_s) / len(source) * 1e6,
    }


def main() -> None:
    """Have the bodies, say so, then send as often as asked."""
    mix = Mix(**json.loads(sys.argv[1]))
    made = bodies(mix.body_bytes, mix.count)
    print(json.dumps({"ready": len(made)}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        source = deliveries(mix, order["round"], made)
        sent = send_all(order["ports"], source, order["connections"])
        print(json.dumps(uvloop.run(sent)), flush=True)


if __name__ == "__main__":
    main()
