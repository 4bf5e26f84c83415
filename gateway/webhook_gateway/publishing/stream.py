"""Puts sealed events into their stream, once each.

Every event is published by one atomic script, idempotent by event id; a batch of them goes in one round
trip. So there is one retry loop and it lives here: whatever failed or was never heard of again is simply
run again, until it is in the stream or the time is up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from webhook_shared.partitions import Partitions
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError, Script

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Published, Unavailable
from webhook_gateway.publishing.durability import Assurance, Commands, Durability, marked
from webhook_gateway.publishing.patience import Patience

log = structlog.get_logger()

EVENTS = "webhook-events"
QUARANTINE = "webhook-quarantine"
RETRY_AFTER_S = 2.0

MISSING = Unavailable("redis", RETRY_AFTER_S)
"""Redis could not be reached, or takes nothing now."""

_REFUSED = Unavailable("key", RETRY_AFTER_S)
_UNSAFE = Unavailable("durability", RETRY_AFTER_S)
_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)
# Of the time that a batch has, how long one server may take to answer.
_SHARE_OF_PATIENCE = 0.8
_LEVELS = {int(level): level.name.lower() for level in Durability}
_Call = tuple[Sequence[Any], Sequence[Any]]
Conflicted = Callable[[Publication, str], None]
# What the script puts before an id.
_IN_CONFLICT = b"!"
_RENAMED = b"~"


class Publisher:
    """Publishes to one Redis.

    Args:
        redis: Where.
        patience_s: How long Redis may be away before a publication fails, counted from when it was
            first missed: in a long outage every batch is tried once and does not wait.
        assurance: Has Redis say how safe an event is, where its source asks.
        partitions: The streams that events are spread over; one by default.
        conflicted: Hears of events that came under the id of another one, by that one's id.
    """

    def __init__(
        self,
        redis: Client,
        *,
        patience_s: float,
        assurance: Assurance,
        partitions: Partitions | None = None,
        conflicted: Conflicted | None = None,
    ) -> None:
        self._redis = redis
        self._patience = Patience(patience_s)
        self._assurance = assurance
        self._partitions = partitions or Partitions(EVENTS)
        self._conflicted = conflicted
        self._script = Script.load("webhook_gateway", "publish", shared=("same_delivery",))

    @property
    def gave_up(self) -> bool:
        """Whether Redis has been missed for longer than our patience, and not been seen since."""
        return self._patience.is_over

    def assume_missing(self) -> None:
        """Redis has not been there since we began: nobody waits for it until `probe` has seen it."""
        self._patience.assume_missing()

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order.

        An event that is answered `Unavailable` may still be in the stream: a reply was lost, or it is not
        yet as safe as it should be. The sender's next delivery of it is then recognised as a duplicate.
        """
        backoff = Backoff(base_s=0.01, cap_s=0.25)
        return await self._patience.insist(self.attempt, publications, MISSING, backoff)

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, once; `MISSING` where it is not known to have worked."""
        calls = [_call(publication, self._stream(publication)) for publication in publications]
        asked = {each.durability for each in publications if each.durability > Durability.FAST}
        commands: Commands = {}
        try:
            async with asyncio.timeout(self._patience.lasts_s):
                if asked:
                    commands = await self._assurance.commands(asked)
                then = marked(commands) if commands else None
                # One server of several that hangs holds up no other's events.
                replies, told = await self._script.batch_then(
                    self._redis, calls, then, timeout_s=self._patience.lasts_s * _SHARE_OF_PATIENCE
                )
        except _TROUBLE as error:
            self._missed(error)
            return [MISSING] * len(calls)
        results = [_published(*pair) for pair in zip(publications, replies, strict=False)]
        if MISSING in results:
            self._missed(replies[results.index(MISSING)])
        else:
            self._patience.seen()
        for publication, result in zip(publications, results, strict=False):
            if isinstance(result, Accepted) and result.conflict_of:
                tell_of_conflict(publication, result.conflict_of, self._conflicted)
        if asked:
            reached = self._assurance.reached(asked, commands, told)
            _hold_back(publications, results, asked - reached)
        return results

    def _stream(self, publication: Publication) -> str:
        if publication.quarantined:
            return QUARANTINE
        return self._partitions.stream_of(publication.tenant, publication.tool)

    async def probe(self) -> None:
        """See whether Redis is back."""
        try:
            await self._redis.ping()
        except _TROUBLE:
            return
        self._patience.seen()

    def _missed(self, error: object) -> None:
        self._assurance.forget()
        if self._patience.missed():
            log.warning("publish.failed", error=type(error).__name__)


def tell_of_conflict(publication: Publication, first_event_id: str, conflicted: Conflicted | None) -> None:
    """Count and log an event that came under the id of another one, and tell who wants to hear of it."""
    event_id, tool = publication.event_id, publication.tool
    metrics.conflicts.labels(tool).inc()
    log.warning("event.in_conflict", event_id=event_id, first_event_id=first_event_id, tool=tool)
    if conflicted is not None:
        conflicted(publication, first_event_id)


def dedup_name(dedup_key: str, stream: str) -> str:
    """The Redis key that all deliveries of an event share, in the slot of their stream."""
    return f"dedup:{{{stream}}}:{dedup_key}"


def _call(publication: Publication, stream: str) -> _Call:
    # The script's keys share a slot.
    keys = [stream, dedup_name(publication.dedup_key, stream)]
    if publication.replay_key:
        keys.append(dedup_name(publication.replay_key, stream))
    args = (
        publication.event_id,
        max(1, publication.occurrences_allowed),
        max(1, publication.window_ms),
        publication.body_digest,
        max(1, publication.replay_window_ms),
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
    if isinstance(reply, bytes):
        if not reply:
            return Accepted(publication.event_id, publication.quarantined)
        return _repeated(publication, reply)
    if "WRONGTYPE" in str(reply):
        # Says something of this one's key and nothing of the server: waiting would not help.
        log.error("publish.refused", error=type(reply).__name__, tool=publication.tool)
        return _REFUSED
    return MISSING


def _repeated(publication: Publication, reply: bytes) -> Published:
    if reply.startswith(_IN_CONFLICT):
        return Accepted(publication.event_id, publication.quarantined, reply[1:].decode("ascii"))
    if reply.startswith(_RENAMED):
        metrics.replays.labels(publication.tool).inc()
        return Duplicate(reply[1:].decode("ascii"), renamed=True)
    return Duplicate(reply.decode("ascii"))


def _hold_back(publications: Sequence[Publication], results: list[Published], missed: set[int]) -> None:
    """Vouch for nothing that is less safe than its source asks; a duplicate is the same event."""
    for i, publication in enumerate(publications):
        if publication.durability in missed and not isinstance(results[i], Unavailable):
            metrics.durability_misses.labels(_LEVELS.get(publication.durability, "unknown")).inc()
            results[i] = _UNSAFE
