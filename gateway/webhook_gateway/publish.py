"""Puts sealed events into their stream, once each.

Every event is published by one atomic script, idempotent by event id; a batch of them goes in one round
trip. So there is one retry loop and it lives here: whatever failed or was never heard of again is simply
run again, until it is in the stream or the time is up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError, Script

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Unavailable

log = structlog.get_logger()

EVENTS = "webhook-events"
QUARANTINE = "webhook-quarantine"
RETRY_AFTER_S = 2.0

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)
_Call = tuple[Sequence[Any], Sequence[Any]]
Published = Accepted | Duplicate | Unavailable


class Publisher:
    """Publishes to one Redis.

    Args:
        redis: Where.
        patience_s: How long Redis may be away before a publication fails, counted from when it was
            first missed: in a long outage every batch is tried once and does not wait.
    """

    def __init__(self, redis: Client, *, patience_s: float) -> None:
        self._redis = redis
        self._patience_s = patience_s
        self._script = Script.load("webhook_gateway", "publish")
        self._missed_at_s: float | None = None

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order.

        An event that is answered `Unavailable` may still be in the stream if a reply was lost. The
        sender's next delivery of it is then recognised as a duplicate.
        """
        calls = [_call(publication) for publication in publications]
        replies: list[Any] = [None] * len(calls)
        open_ = list(range(len(calls)))
        backoff = Backoff(base_s=0.01, cap_s=0.25)
        first = True
        while open_ and (first or await self._may_try_again(backoff)):
            first = False
            for i, reply in zip(open_, await self._run([calls[i] for i in open_]), strict=True):
                replies[i] = reply
            open_ = [i for i in open_ if not isinstance(replies[i], bytes)]
        return [_published(*pair) for pair in zip(publications, replies, strict=True)]

    async def _run(self, calls: Sequence[_Call]) -> Sequence[Any]:
        """One attempt; bytes where it is known to have worked."""
        try:
            async with asyncio.timeout(self._patience_s):
                replies = await self._script.batch(self._redis, calls)
        except _TROUBLE as error:
            self._missed(error)
            return [None] * len(calls)
        failures = [reply for reply in replies if not isinstance(reply, bytes)]
        if failures:
            self._missed(failures[0])
        else:
            self._missed_at_s = None
        return replies

    def _missed(self, error: object) -> None:
        if self._missed_at_s is None:
            self._missed_at_s = time.monotonic()
            log.warning("publish.failed", error=type(error).__name__)

    async def _may_try_again(self, backoff: Backoff) -> bool:
        delay_s = backoff.next_delay_s()
        since_s = time.monotonic() - self._missed_at_s if self._missed_at_s is not None else 0.0
        if since_s + delay_s >= self._patience_s:
            return False
        metrics.publish_repeats.inc()
        await asyncio.sleep(delay_s)
        return True


def _call(publication: Publication) -> _Call:
    stream = QUARANTINE if publication.quarantined else EVENTS
    # The stream's own name is the hash tag, so that the script's two keys share a slot.
    keys = (stream, f"dedup:{{{stream}}}:{publication.dedup_key}")
    args = (
        publication.event_id,
        max(1, publication.occurrences_allowed),
        max(1, publication.window_ms),
        publication.tenant,
        publication.tool,
        publication.type,
        publication.received_ms,
        publication.schema,
        publication.sealed,
        publication.traceparent,
    )
    return keys, args


def _published(publication: Publication, reply: object) -> Published:
    if not isinstance(reply, bytes):
        return Unavailable("redis", RETRY_AFTER_S)
    if reply:
        return Duplicate(reply.decode("ascii"))
    return Accepted(publication.event_id, publication.quarantined)
