"""Writes down what became of entries: acknowledged, delayed, dead or put aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from webhook_shared.coalesce import Coalescer
from webhook_shared.redis import Backoff
from webhook_shared.telemetry import log

from webhook_consumer.dead_letters.fingerprint import fingerprint
from webhook_consumer.dead_letters.redrive import Canaries
from webhook_consumer.entry import CANARY, ID, Cause, Dead, Done, Entry, Failure, Outcome, Retry
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryBudget, RetryPolicy
from webhook_consumer.metrics import StageMetrics, ack_fenced, over_budget, parkings, stream_lost
from webhook_consumer.queue.protocol import EventQueue
from webhook_consumer.queue.redis import QUEUE_TROUBLE, Burial, Delayed, StreamLost
from webhook_consumer.workers.buffer import Buffer

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

    def __init__(
        self,
        queue: EventQueue,
        buffer: Buffer,
        policy: RetryPolicy,
        metrics: StageMetrics,
        *,
        holds: Holds,
        budget: RetryBudget | None = None,
        canaries: Canaries | None = None,
    ) -> None:
        self._queue = queue
        self._buffer = buffer
        self._policy = policy
        self._metrics = metrics
        self._holds = holds
        self._budget = budget
        self._canaries = canaries
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
            await self._acks.submit(list(map(ID, found.done)))
            self._count(found.done)
        if self._canaries is not None and any(CANARY in fields for _, fields, _ in entries):
            await self._tell(self._canaries, entries, outcomes)
        self._buffer.drop(list(map(ID, entries)))

    async def park(self, entries: Sequence[Entry], why: str) -> None:
        """Put entries aside that were not started; returns when that is durable."""
        await self._insist(lambda: self._queue.park(entries))
        parkings.labels(self._metrics.stage, why).inc(len(entries))
        self._buffer.drop([entry.id for entry in entries])

    async def _tell(self, canaries: Canaries, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        # After the outcome is durable: a canary of which nobody hears counts as undecided, not as well.
        ends = {
            entry.fields[CANARY]: isinstance(outcome, Done)
            for entry, outcome in zip(entries, outcomes, strict=True)
            if _is_canary(entry) and not self._is_retried(entry, outcome)
        }
        try:
            await canaries.tell(ends)
        except QUEUE_TROUBLE:
            log.info("redrive.canary_not_told", stage=self._metrics.stage)

    def _is_retried(self, entry: Entry, outcome: Outcome) -> bool:
        if not isinstance(outcome, Retry):
            return False
        return self._policy.delay_s(outcome, entry.failures + 1) is not None

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
        counts = Counter([fields.get(b"tool") or Entry(one, fields).tool for one, fields, _ in done])
        for tool, count in counts.items():
            name = tool.decode(errors="replace") if isinstance(tool, bytes) else tool
            self._metrics.processed.labels(name).inc(count)
            if self._budget is not None:
                self._budget.earn(name, count)
            self._holds.went_well(name, count)

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
        if not _is_contended(outcome):
            self._metrics.failed.labels(tool).inc()
        self._holds.failed(tool, outcome)
        if not entry.failures and self._budget is not None:
            self._budget.earn(tool, 1)
        if isinstance(outcome, Retry):
            delay_s = self._policy.delay_s(outcome, failures)
            if delay_s is not None:
                if self._is_over_budget(tool, outcome):
                    over_budget.labels(tool, self._metrics.stage).inc()
                    delay_s = self._policy.delay_s(outcome, failures, hurry=False) or delay_s
                self._metrics.retried.labels(tool).inc()
                found.delayed.append(Delayed(entry.id, round(delay_s * 1000), failures))
                return
            outcome = Dead(Cause.EXHAUSTED, outcome.detail)
        alike = fingerprint(self._metrics.stage, tool, outcome.cause, outcome.detail)
        self._metrics.dead_lettered.labels(tool, outcome.cause).inc()
        log.warning(
            "event.dead_lettered",
            stage=self._metrics.stage,
            event_id=entry.text(b"id"),
            tool=tool,
            cause=str(outcome.cause),
            detail=outcome.detail,
            fingerprint=alike,
        )
        found.dead.append(Burial(entry.id, outcome.cause, outcome.detail, failures, alike))

    def _is_over_budget(self, tool: str, outcome: Retry) -> bool:
        # To look again at what has changed is no retry of what failed.
        if self._budget is None or _is_contended(outcome):
            return False
        return not self._budget.spend(tool)


def _is_contended(outcome: Outcome) -> bool:
    # Nothing has failed: there is more to do than there was.
    return isinstance(outcome, Retry) and outcome.failure is Failure.CONTENDED


def _is_canary(entry: Entry) -> bool:
    return CANARY in entry.fields
