"""Publishes to SQS with the same answers as to a stream: new, had before, or not kept.

The queue takes a message before it can be known for certain whether the event is new, so the claim comes
last; see `webhook_shared.claims`. Where Redis does not answer, the message itself carries what its consumer
needs to claim for it, and the delivery is answered as new.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog
from webhook_shared.claims import Claims, Standing
from webhook_shared.partitions import Partitions
from webhook_shared.redis import REDIS_TROUBLE, Backoff, RedisError
from webhook_shared.sqs.client import Sqs, SqsTrouble

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Published, Unavailable
from webhook_gateway.publishing.event_publisher import MISSING_SQS
from webhook_gateway.publishing.patience import Patience
from webhook_gateway.publishing.sqs_sending import Sender, claim_of
from webhook_gateway.publishing.stream import RETRY_AFTER_S, Conflicted, tell_of_conflict

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
        conflicted: Conflicted,
    ) -> None:
        self._sender = sender
        self._sqs = sqs
        self._claims = claims
        self._partitions = partitions
        self._conflicted = conflicted
        self._patience = Patience(patience_s)
        self._shunned_until_s = float("-inf")

    @property
    def gave_up(self) -> bool:
        """Whether SQS has been missed for longer than our patience, and not been seen since."""
        return self._patience.is_over

    def assume_missing(self) -> None:
        """Nobody waits for SQS until `probe` has seen it."""
        self._patience.assume_missing()

    async def probe(self) -> None:
        """See whether SQS is back."""
        try:
            async with asyncio.timeout(self._patience.lasts_s):
                await self._sqs.counts()
        except (SqsTrouble, TimeoutError):
            return
        self._patience.seen()

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order. As `Publisher.publish`."""
        backoff = Backoff(base_s=0.02, cap_s=0.5)
        return await self._patience.insist(self.attempt, publications, MISSING_SQS, backoff)

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, once; `MISSING_SQS` where it is not known to have worked."""
        standings = await self._standings(publications, claiming=False)
        results: list[Published] = [_published(*pair) for pair in zip(publications, standings, strict=True)]
        new = [at for at, result in enumerate(results) if isinstance(result, Accepted)]
        if not new:
            return results
        try:
            async with asyncio.timeout(self._patience.lasts_s):
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
            self._patience.seen()
        claimed = await self._standings([publications[at] for at in kept], claiming=True)
        for at, standing in zip(kept, claimed, strict=True):
            results[at] = _published(publications[at], standing)
            self._count(publications[at], standing)
        return results

    def _count(self, publication: Publication, standing: Standing) -> None:
        if standing.conflict_of:
            tell_of_conflict(publication, standing.conflict_of, self._conflicted)
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
        if self._patience.missed():
            log.warning("publish.failed", queue="sqs", error=why)


def _published(publication: Publication, standing: Standing) -> Published:
    if not standing.repeats:
        return Accepted(publication.event_id, publication.quarantined, standing.conflict_of)
    return Duplicate(standing.repeats, standing.renamed)
