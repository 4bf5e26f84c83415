"""Keeps events where they are safe: in their stream, or in the spool until Redis is back.

What goes past a spool that is not empty yet goes straight to Redis. The order of deliveries is promised to
nobody, as senders deliver out of order themselves and appends commute; whereas new events that queued up
behind the spool would leave it only as fast as it drains, and a busy gateway might never be done with an
outage. What must not happen is that one delivery becomes two promises: while the spool holds a delivery,
its repetitions are recognised there, before Redis is asked.

A repetition that comes to another gateway, or that repeats what Redis had before it went away, can't be
recognised until the spool drains. The delivery is then one event all the same, the one that Redis had first.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from webhook_shared.redis import Backoff
from webhook_shared.tasks import ended

from webhook_gateway import metrics
from webhook_gateway.feed import Feed
from webhook_gateway.outcome import Duplicate, Publication, Published, Unavailable
from webhook_gateway.publishing.durability import Durability
from webhook_gateway.publishing.event_publisher import EventPublisher, is_missing
from webhook_gateway.publishing.spool import Held, Spool
from webhook_gateway.publishing.stream import MISSING, RETRY_AFTER_S

log = structlog.get_logger()

POLL_S = 0.1

_ON_ONE_DISK = Unavailable("durability", RETRY_AFTER_S)


class Keeper:
    """Publishes, and spools what Redis does not take.

    Args:
        publisher: To Redis.
        spool: Where events wait for Redis; None does without: what Redis does not take is refused.
        feed: Is told what was accepted.
    """

    def __init__(self, publisher: EventPublisher, spool: Spool | None, feed: Feed) -> None:
        self._publisher = publisher
        self._spool = spool
        self._feed = feed

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Keep each, or say that it could not be kept; in order. As `Publisher.publish`."""
        results = await self._safe(publications)
        self._feed.note(publications, results)
        return results

    async def _safe(self, publications: Sequence[Publication]) -> list[Published]:
        if self._spool is None:
            return await self._publisher.publish(publications)
        if self._spool.events:
            return await self._past(self._spool, publications)
        return await self._kept(self._spool, publications)

    async def _past(self, spool: Spool, publications: Sequence[Publication]) -> list[Published]:
        """Keep what the spool does not hold already."""
        firsts = [spool.first_of(publication) for publication in publications]
        new = [publication for publication, first in zip(publications, firsts, strict=True) if first is None]
        kept = iter(await self._kept(spool, new) if new else ())
        return [
            next(kept) if first is None else _vouched(publication, first)
            for publication, first in zip(publications, firsts, strict=True)
        ]

    async def _kept(self, spool: Spool, publications: Sequence[Publication]) -> list[Published]:
        if self._publisher.gave_up:
            # Nobody waits for a Redis that hangs; whoever drains the spool sees when it is back.
            results: list[Published] = [MISSING] * len(publications)
        else:
            results = await self._publisher.publish(publications)
        missing = [i for i, result in enumerate(results) if is_missing(result)]
        if not missing:
            return results
        spooled = await spool.keep([publications[i] for i in missing])
        for i, result in zip(missing, spooled, strict=True):
            results[i] = _vouched(publications[i], result)
        return results


def _vouched(publication: Publication, result: Published) -> Published:
    """One disk is no replica: such an event is kept like the others, but its sender is told to come again."""
    return _ON_ONE_DISK if publication.durability == Durability.REPLICATED else result


class Drain:
    """Empties the spool into Redis, oldest first, whenever Redis is there.

    An event leaves the spool once it is in the stream, as safe as its source asks. Killed in between, it is
    published again, which the script, or at the latest the consumer, recognises by its id. An event that
    Redis does not take lets the others pass.

    Args:
        publisher: To Redis.
        spool: Is emptied.
        met: Done once Redis has been seen and found fit; fails where it is unfit.
    """

    def __init__(self, publisher: EventPublisher, spool: Spool, met: asyncio.Future[None]) -> None:
        self._publisher = publisher
        self._spool = spool
        self._met = met
        self._after = 0
        # In the stream already, by position, without their bytes: a full disk may not let go of them.
        self._done: dict[int, Held] = {}

    async def run(self) -> None:
        """For ever; not at all where Redis turns out to be unfit, in which nothing would be safe."""
        try:
            await self._met
        except RuntimeError as error:
            log.error("spool.not_drained", why=str(error))
            return
        backoff = Backoff(base_s=0.05, cap_s=1.0)
        while True:
            if not self._spool.events:
                if self._publisher.gave_up:
                    await self._publisher.probe()
                await asyncio.sleep(POLL_S)
            elif await self._advanced():
                backoff.reset()
            else:
                await backoff.wait()

    async def _advanced(self) -> bool:
        try:
            return await self._step()
        except sqlite3.Error as error:
            log.error("spool.drain_failed", error=type(error).__name__)
            return False

    async def _step(self) -> bool:
        """One batch. False where it is better to wait before the next."""
        if len(self._done) == self._spool.events:
            return await self._forgotten()
        batch = await self._spool.read(self._after)
        if not batch:
            # What is left behind was not taken; another round.
            self._after = 0
            return False
        waiting = [held for held in batch if held.position not in self._done]
        results = await self._publisher.attempt([held.publication for held in waiting]) if waiting else []
        if results and all(map(is_missing, results)):
            return False
        self._after = batch[-1].position
        self._note(waiting, results)
        # Where the disk is full, what waits goes on to Redis all the same; it is let go of at the end.
        if 0 < len(self._done) <= len(batch):
            await self._forgotten()
        return True

    def _note(self, waiting: Sequence[Held], results: Sequence[Published]) -> None:
        for held, result in zip(waiting, results, strict=True):
            if isinstance(result, Unavailable):
                continue
            self._done[held.position] = held._replace(publication=held.publication._replace(sealed=b""))
            outcome = "duplicate" if isinstance(result, Duplicate) else "accepted"
            metrics.spool_drained.labels(outcome).inc()

    async def _forgotten(self) -> bool:
        try:
            await self._spool.drop(list(self._done.values()))
        except sqlite3.Error as error:
            log.warning("spool.not_forgotten", events=len(self._done), error=type(error).__name__)
            return False
        self._done.clear()
        if not self._spool.events:
            log.info("spool.drained")
        return True


@asynccontextmanager
async def drained(
    publisher: EventPublisher, spool: Spool | None, met: asyncio.Future[None]
) -> AsyncIterator[None]:
    """Drain the spool while inside, if there is one. As `Drain`."""
    if spool is None:
        yield
        return
    if not met.done():
        publisher.assume_missing()
    task = asyncio.create_task(Drain(publisher, spool, met).run())
    try:
        yield
    finally:
        await ended([task])
