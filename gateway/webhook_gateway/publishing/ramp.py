"""Which events go through Redis while the queue is SQS: a share of them, which an operator may move live."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError
from webhook_shared.tasks import ended

from webhook_gateway.outcome import Publication, Published
from webhook_gateway.publishing.event_publisher import EventPublisher

log = structlog.get_logger()

KEY = "migration:{webhook-events}"
FIELD = "redis_share_percent"
LOOK_S = 1.0

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class Share:
    """The share of events that go through Redis.

    Args:
        redis: Where an operator says it.
        percent: What holds until one does.
    """

    def __init__(self, redis: Client, percent: int) -> None:
        self._redis = redis
        self._configured = percent
        self.percent = percent

    def has(self, event_id: str) -> bool:
        """Whether an event belongs to it; what belongs to a share belongs to any larger one."""
        # Ids begin with the time: their checksum spreads evenly, they don't.
        return zlib.crc32(event_id.encode()) % 100 < self.percent

    async def look(self) -> None:
        """Take up what an operator has said.

        Raises:
            REDIS_TROUBLE: Redis does not answer.
        """
        said = await self._redis.hget(KEY, FIELD)
        percent = int(said) if said is not None and said.isdigit() else self._configured
        if percent != self.percent:
            log.info("migration.ramped", redis_share_percent=percent, before=self.percent)
        self.percent = min(percent, 100)

    async def keep(self) -> None:
        """Look again and again, for ever. Redis away: it stays as it was."""
        while True:
            try:
                await self.look()
            except _TROUBLE as error:
                log.debug("migration.share_unknown", error=type(error).__name__)
            await asyncio.sleep(LOOK_S)


async def ramp(redis: Client, percent: int | None) -> None:
    """Have all gateways move to a share within LOOK_S; None: each to what it is configured to.

    Raises:
        REDIS_TROUBLE: Redis does not answer.
    """
    if percent is None:
        await redis.hdel(KEY, FIELD)
    else:
        await redis.hset(KEY, FIELD, str(percent))


@asynccontextmanager
async def followed(share: Share) -> AsyncIterator[Share]:
    """A share that follows the operators while inside."""
    try:
        await share.look()
    except _TROUBLE as error:
        log.warning("migration.share_unknown", error=type(error).__name__, percent=share.percent)
    task = asyncio.create_task(share.keep())
    try:
        yield share
    finally:
        await ended([task])


class Ramped:
    """Publishes a share of the events to Redis and the others to SQS; see `EventPublisher`.

    What can't be read is kept in Redis, for operators, and so is what SQS has no room for.
    """

    def __init__(
        self, redis: EventPublisher, sqs: EventPublisher, share: Share, takes: Callable[[Publication], bool]
    ) -> None:
        self._redis = redis
        self._sqs = sqs
        self._share = share
        self._takes = takes

    @property
    def gave_up(self) -> bool:
        """Whether neither queue has been there for long."""
        return self._redis.gave_up and self._sqs.gave_up

    def assume_missing(self) -> None:
        """Redis has not been there since we began."""
        self._redis.assume_missing()

    async def probe(self) -> None:
        """See whether they are back."""
        await asyncio.gather(self._redis.probe(), self._sqs.probe())

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order."""
        return await self._parted(publications, self._redis.publish, self._sqs.publish)

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, once; in order."""
        return await self._parted(publications, self._redis.attempt, self._sqs.attempt)

    async def _parted(
        self, publications: Sequence[Publication], to_redis: _Publish, to_sqs: _Publish
    ) -> list[Published]:
        here = [at for at, each in enumerate(publications) if self._is_for_redis(each)]
        there = sorted(set(range(len(publications))) - set(here))
        results: dict[int, Published] = {}
        ways = [(way, ats) for way, ats in ((to_redis, here), (to_sqs, there)) if ats]
        found = await asyncio.gather(*(way([publications[at] for at in ats]) for way, ats in ways))
        for (_, ats), some in zip(ways, found, strict=True):
            results.update(zip(ats, some, strict=True))
        return [results[at] for at in range(len(publications))]

    def _is_for_redis(self, publication: Publication) -> bool:
        return (
            publication.quarantined or self._share.has(publication.event_id) or not self._takes(publication)
        )


_Publish = Callable[[Sequence[Publication]], Awaitable[list[Published]]]
