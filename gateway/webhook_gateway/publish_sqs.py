"""Publishes to SQS with the same answers as to a stream: new, had before, or not kept.

The queue takes a message before it can be known for certain whether the event is new, so the claim comes
last; see `webhook_shared.claims`. Where Redis does not answer, the message itself carries what its consumer
needs to claim for it, and the delivery is answered as new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from webhook_shared.claims import Claims, Standing
from webhook_shared.partitions import Partitions
from webhook_shared.redis import REDIS_TROUBLE, Backoff, RedisError
from webhook_shared.sqs import Sqs, SqsTrouble

from webhook_gateway import metrics
from webhook_gateway.event_publisher import MISSING_SQS
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Unavailable
from webhook_gateway.publish import RETRY_AFTER_S, Published
from webhook_gateway.sending import Sender, claim_of

log = structlog.get_logger()

_REFUSED = Unavailable("message", RETRY_AFTER_S)
_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)
_NEW = Standing()
# How long a batch waits for what Redis knows of its deliveries.
CLAIM_TIMEOUT_S = 0.5
# So long nobody asks a Redis that did not answer.
SHUNNED_FOR_S = 1.0


class SqsPublisher:
    """Publishes to one queue; see `EventPublisher`.

    Args:
        sender: To the queue.
        sqs: The same, to see whether it is back.
        claims: Which deliveries count.
        partitions: As of `Publisher`.
        patience_s: As of `Publisher`.
        conflicted: As of `Publisher`.
    """

    def __init__(
        self,
        sender: Sender,
        sqs: Sqs,
        claims: Claims,
        *,
        partitions: Partitions,
        patience_s: float,
        conflicted: Callable[[Publication, str], None],
    ) -> None:
        self._sender = sender
        self._sqs = sqs
        self._claims = claims
        self._partitions = partitions
        self._conflicted = conflicted
        self._patience_s = patience_s
        self._missed_at_s: float | None = None
        self._shunned_until_s = float("-inf")

    @property
    def gave_up(self) -> bool:
        """Whether SQS has been missed for longer than our patience, and not been seen since."""
        return self._missed_at_s is not None and time.monotonic() - self._missed_at_s >= self._patience_s

    def assume_missing(self) -> None:
        """Nobody waits for SQS until `probe` has seen it."""
        self._missed_at_s = float("-inf")

    async def probe(self) -> None:
        """See whether SQS is back."""
        try:
            async with asyncio.timeout(self._patience_s):
                await self._sqs.counts()
        except (SqsTrouble, TimeoutError):
            return
        self._missed_at_s = None

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order. As `Publisher.publish`."""
        results = await self.attempt(publications)
        started_s = time.monotonic()
        backoff = Backoff(base_s=0.02, cap_s=0.5)
        while MISSING_SQS in results and await self._may_try_again(backoff, started_s):
            open_ = [at for at, result in enumerate(results) if result is MISSING_SQS]
            again = await self.attempt([publications[at] for at in open_])
            for at, result in zip(open_, again, strict=True):
                results[at] = result
        return results

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, once; `MISSING_SQS` where it is not known to have worked."""
        standings = await self._standings(publications, claiming=False)
        results: list[Published] = [_published(*pair) for pair in zip(publications, standings, strict=True)]
        new = [at for at, result in enumerate(results) if isinstance(result, Accepted)]
        if not new:
            return results
        try:
            async with asyncio.timeout(self._patience_s):
                sent = await self._sender.send([publications[at] for at in new])
        except TimeoutError:
            self._missed("TimeoutError")
            for at in new:
                results[at] = MISSING_SQS
            return results
        kept = []
        for at, what in zip(new, sent, strict=True):
            if not what.fault:
                kept.append(at)
            elif what.final:
                log.error("publish.refused", error=what.fault, tool=publications[at].tool)
                results[at] = _REFUSED
            else:
                self._missed(what.fault)
                results[at] = MISSING_SQS
        if len(kept) == len(new):
            self._missed_at_s = None
        claimed = await self._standings([publications[at] for at in kept], claiming=True)
        for at, standing in zip(kept, claimed, strict=True):
            results[at] = _published(publications[at], standing)
            self._count(publications[at], standing)
        return results

    def _count(self, publication: Publication, standing: Standing) -> None:
        if standing.conflict_of:
            metrics.conflicts.labels(publication.tool).inc()
            log.warning(
                "event.in_conflict",
                event_id=publication.event_id,
                first_event_id=standing.conflict_of,
                tool=publication.tool,
            )
            self._conflicted(publication, standing.conflict_of)
        elif standing.renamed:
            metrics.replays.labels(publication.tool).inc()

    async def _standings(self, publications: Sequence[Publication], *, claiming: bool) -> list[Standing]:
        if not publications or time.monotonic() < self._shunned_until_s:
            return [_NEW] * len(publications)
        claims = [(each.event_id, claim_of(each, self._partitions)) for each in publications]
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT_S):
                return await (self._claims.claim(claims) if claiming else self._claims.look(claims))
        except _TROUBLE as error:
            self._shunned_until_s = time.monotonic() + SHUNNED_FOR_S
            log.warning("claims.unreachable", error=type(error).__name__)
            return [_NEW] * len(publications)

    def _missed(self, why: str) -> None:
        if self._missed_at_s is None:
            self._missed_at_s = time.monotonic()
            log.warning("publish.failed", queue="sqs", error=why)

    async def _may_try_again(self, backoff: Backoff, started_s: float) -> bool:
        delay_s = backoff.next_delay_s()
        since_s = min(started_s, self._missed_at_s if self._missed_at_s is not None else started_s)
        if time.monotonic() - since_s + delay_s >= self._patience_s:
            return False
        metrics.publish_repeats.inc()
        await asyncio.sleep(delay_s)
        return True


def _published(publication: Publication, standing: Standing) -> Published:
    if not standing.repeats:
        return Accepted(publication.event_id, publication.quarantined, standing.conflict_of)
    return Duplicate(standing.repeats, standing.renamed)
