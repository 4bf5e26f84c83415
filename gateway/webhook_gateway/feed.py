"""Tells operators what was accepted: the writing side of the feed that `tail.py` reads.

The feed is a capped stream that exists only while somebody reads it: readers make it and keep it alive,
gateways look for it once a second and add to it only if it is there. Without readers a batch costs one
comparison here; with readers the rows are gathered and added away from the deliveries' path.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import orjson
import structlog
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError
from webhook_shared.tasks import ended

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Outcome, Publication

log = structlog.get_logger()

STREAM = "webhook-accepted"
ROWS = b"rows"
MISSED = b"missed"

LOOK_S = 1.0
GATHER_S = 0.1
# Small entries, so that a feed of 2,000 of them has an end: 128,000 rows of some 200 bytes.
ROWS_PER_ENTRY = 64
ENTRIES = 2_000
# What is kept for Redis to come back; more is told as missed.
MOST_WAITING = 10_000

Row = tuple[str, str, str, str, int, str, bool]
"""Event id, tenant, tool, type, received (Unix ms), traceparent, quarantined."""

_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class Feed:
    """Adds what this gateway accepts to the feed.

    Args:
        redis: Where the feed is.
    """

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._watched = False
        self._waiting: deque[Row] = deque()
        self._missed = 0
        self._some = asyncio.Event()

    def note(self, publications: Sequence[Publication], outcomes: Sequence[Outcome]) -> None:
        """Take up what of a batch was accepted, if anybody reads."""
        if not self._watched:
            return
        for publication, outcome in zip(publications, outcomes, strict=True):
            if isinstance(outcome, Accepted):
                self._waiting.append(_row(publication))
        while len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self._missed += 1
        if self._waiting:
            self._some.set()

    async def look(self) -> None:
        """See once whether anybody reads.

        Raises:
            REDIS_TROUBLE: Redis does not answer.
        """
        self._watched = bool(await self._redis.exists(STREAM))
        if not self._watched:
            self._forget()

    async def write(self) -> None:
        """Add what waits.

        Raises:
            REDIS_TROUBLE: Redis does not answer; what was not added still waits.
        """
        self._some.clear()
        while self._waiting or self._missed:
            rows = list(islice(self._waiting, ROWS_PER_ENTRY))
            fields: dict[Any, Any] = {ROWS: orjson.dumps(rows)}
            if missed := self._missed:
                fields[MISSED] = b"%d" % missed
            added = await self._redis.xadd(STREAM, fields, maxlen=ENTRIES, approximate=True, nomkstream=True)
            if added is None:
                # The last reader has long gone.
                self._watched = False
                self._forget()
                return
            self._missed -= missed
            for _ in rows:
                self._waiting.popleft()

    async def keep_looking(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.look()
            except _TROUBLE:
                # As it was: readers come back with Redis, and rows wait for them.
                metrics.feed_failures.inc()
            await asyncio.sleep(LOOK_S)

    async def keep_writing(self) -> None:
        """Add what comes, for ever."""
        backoff = Backoff(base_s=GATHER_S, cap_s=2.0)
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            try:
                await self.write()
            except _TROUBLE as error:
                metrics.feed_failures.inc()
                log.warning("feed.unwritable", error=type(error).__name__, waiting=len(self._waiting))
                self._some.set()
                await backoff.wait()
            else:
                backoff.reset()

    def _forget(self) -> None:
        self._waiting.clear()
        self._missed = 0


@asynccontextmanager
async def feeding(redis: Client) -> AsyncIterator[Feed]:
    """A feed that is written while the context lasts."""
    feed = Feed(redis)
    tasks = [asyncio.create_task(feed.keep_looking()), asyncio.create_task(feed.keep_writing())]
    try:
        yield feed
    finally:
        await ended(tasks)


def _row(publication: Publication) -> Row:
    return (
        publication.event_id,
        publication.tenant,
        publication.tool,
        publication.type,
        publication.received_ms,
        publication.traceparent,
        publication.quarantined,
    )
