"""Writes down what became of entries: acknowledged, delayed or dead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from webhook_shared.coalesce import Coalescer
from webhook_shared.redis import Backoff
from webhook_shared.telemetry import log

from webhook_consumer.buffer import Buffer
from webhook_consumer.entry import Cause, Dead, Done, Entry, Outcome, Retry
from webhook_consumer.metrics import StageMetrics, ack_fenced, stream_lost
from webhook_consumer.queue_redis import QUEUE_TROUBLE, Burial, Delayed, RedisQueue, StreamLost
from webhook_consumer.retry import RetryPolicy

MOST_PER_ACK = 1000


@dataclass
class _Sorted:
    done: list[Entry] = field(default_factory=list)
    delayed: list[Delayed] = field(default_factory=list)
    dead: list[Burial] = field(default_factory=list)


class Settlement:
    """Settles batches until it is written: the entries stay this process's until then.

    Acknowledgements of batches that end together leave in one call.
    """

    def __init__(self, queue: RedisQueue, buffer: Buffer, policy: RetryPolicy, metrics: StageMetrics) -> None:
        self._queue = queue
        self._buffer = buffer
        self._policy = policy
        self._metrics = metrics
        self._acks: Coalescer[list[bytes], None] = Coalescer(
            self._acknowledge, max_items=MOST_PER_ACK, max_weight=MOST_PER_ACK, weigh=len
        )

    async def settle(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        """Write down the outcomes, one per entry; returns when all are durable."""
        found = self._sort(entries, outcomes)
        if found.delayed:
            await self._insist(lambda: self._queue.delay(found.delayed))
        if found.dead:
            await self._insist(lambda: self._queue.bury(found.dead))
        if found.done:
            await self._acks.submit([entry.id for entry in found.done])
            self._count(found.done)
        self._buffer.drop([entry.id for entry in entries])

    async def _acknowledge(self, batches: list[list[bytes]]) -> list[None]:
        ids = [entry_id for batch in batches for entry_id in batch]
        await self._insist(lambda: self._queue.ack(ids))
        return [None] * len(batches)

    async def _insist(self, write: Callable[[], Awaitable[list[bytes]]]) -> None:
        # Every one of these scripts may be repeated: what it has settled is not the caller's any more.
        backoff = Backoff()
        while True:
            try:
                lost = await write()
            except StreamLost:
                # Whoever finds the stream gone creates it anew; then there is nothing to settle.
                stream_lost.labels(self._metrics.stage).inc()
                return
            except QUEUE_TROUBLE as error:
                log.warning("queue.not_settled", stage=self._metrics.stage, error=type(error).__name__)
                await backoff.wait()
                continue
            if lost:
                ack_fenced.labels(self._metrics.stage).inc(len(lost))
            return

    def _count(self, done: Sequence[Entry]) -> None:
        # By the raw name: a batch has few tools, and many entries.
        counts = Counter([entry.fields.get(b"tool") or entry.tool for entry in done])
        for tool, count in counts.items():
            name = tool.decode(errors="replace") if isinstance(tool, bytes) else tool
            self._metrics.processed.labels(name).inc(count)

    def _sort(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> _Sorted:
        if set(map(type, outcomes)) == {Done}:
            return _Sorted(done=list(entries))
        found = _Sorted()
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, Done):
                found.done.append(entry)
            else:
                self._sort_failure(entry, outcome, found)
        return found

    def _sort_failure(self, entry: Entry, outcome: Retry | Dead, found: _Sorted) -> None:
        tool, failures = entry.tool, entry.failures + 1
        self._metrics.failed.labels(tool).inc()
        if isinstance(outcome, Retry):
            delay_s = self._policy.delay_s(outcome, failures)
            if delay_s is not None:
                self._metrics.retried.labels(tool).inc()
                found.delayed.append(Delayed(entry.id, round(delay_s * 1000), failures))
                return
            outcome = Dead(Cause.EXHAUSTED, outcome.detail)
        self._metrics.dead_lettered.labels(tool, outcome.cause).inc()
        log.warning(
            "event.dead_lettered",
            stage=self._metrics.stage,
            event_id=entry.text(b"id"),
            tool=tool,
            cause=str(outcome.cause),
            detail=outcome.detail,
        )
        found.dead.append(Burial(entry.id, outcome.cause, outcome.detail, failures))
