"""Reads the feed of accepted events, for each operator at that operator's own pace.

A position in the feed is the id of an entry that has been read. Each reading begins with that entry itself:
if it is no longer there, what came behind it may be gone too, and the reader is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import orjson
from webhook_shared.errors import InvalidArgument, ResourceExhausted
from webhook_shared.redis import Client

from webhook_gateway.feed import LOOK_S, MISSED, ROWS, STREAM, Row

POLL_S = 0.2
KEPT_S = 600
RENEWED_S = 60.0
HEARTBEAT_S = 15.0
# Who may read is asked once per stream; this is how long a revoked credential may go on.
LONGEST_S = 3600.0
ENTRIES_PER_READ = 32
MOST_READERS = 16
# So long after the feed was made every gateway has seen it.
SEEN_BY_ALL_S = LOOK_S + 0.25

_TOKEN = re.compile(r"\d{1,20}-\d{1,20}")
_BEGINNING = "0-0"


class Page(NamedTuple):
    """What a reader gets next.

    Attributes:
        rows: In order; none in the first page and in a heartbeat.
        token: The position after them.
        gap: Whether some before them are missing.
    """

    rows: list[Row]
    token: str
    gap: bool


def _anything(_: Row) -> bool:
    return True


class Tail:
    """The readers of one gateway.

    Args:
        redis: Where the feed is.
    """

    def __init__(self, redis: Client) -> None:
        self._redis = redis
        self._ending = asyncio.Event()
        self._readers = 0

    def end(self) -> None:
        """Let every reader go: the gateway stops."""
        self._ending.set()

    async def follow(self, token: str, may_see: Callable[[Row], bool] = _anything) -> AsyncGenerator[Page]:
        """What is accepted from now on, or from the position of a token.

        Ends after LONGEST_S, and when the gateway stops.

        Args:
            token: Where to go on; empty for now.
            may_see: Whether this reader sees a row. Of what it does not see it hears nothing.

        Raises:
            InvalidArgument: FIELD_INVALID: It is no token.
            ResourceExhausted: TOO_MANY_TAILS.
            REDIS_TROUBLE: Redis does not answer.
        """
        if token and not _TOKEN.fullmatch(token):
            raise InvalidArgument(
                "this is no resume token", fields={"resume_token": "of an earlier response"}
            )
        if self._readers >= MOST_READERS:
            raise ResourceExhausted(
                "TOO_MANY_TAILS", f"{MOST_READERS} tails are open here", retry_after_s=5.0
            )
        self._readers += 1
        try:
            async with contextlib.aclosing(self._pages(token, may_see)) as pages:
                async for page in pages:
                    yield page
        finally:
            self._readers -= 1

    async def _pages(self, token: str, may_see: Callable[[Row], bool]) -> AsyncGenerator[Page]:
        end_s = time.monotonic() + LONGEST_S
        _, newest = await self._alive()
        renew_s = told_s = time.monotonic()
        position = token or newest
        yield Page([], position, gap=False)
        while not self._ending.is_set() and time.monotonic() < end_s:
            if time.monotonic() - renew_s >= RENEWED_S:
                await self._alive()
                renew_s = time.monotonic()
            page = await self._read(position)
            seen = [row for row in page.rows if may_see(row)]
            position = page.token
            if seen or page.gap or time.monotonic() - told_s >= HEARTBEAT_S:
                told_s = time.monotonic()
                yield page._replace(rows=seen)
            if not page.rows:
                await self._pause()

    async def _alive(self) -> tuple[str, str]:
        """Keep the feed, or make it; the ids of its oldest and of its newest entry.

        A feed that is younger than every gateway's last look may miss some of what they accept: it is given
        the time, so that a reader can be promised something.
        """
        if not await self._redis.expire(STREAM, KEPT_S):
            async with self._redis.pipeline(transaction=True) as together:
                together.xadd(STREAM, {ROWS: b"[]"})
                together.expire(STREAM, KEPT_S)
                await together.execute()
        oldest: Any = await self._redis.xrange(STREAM, count=1)
        seconds, microseconds = await self._redis.time()
        born_s = int(oldest[0][0].partition(b"-")[0]) / 1000 if oldest else 0.0
        age_s = int(seconds) + int(microseconds) / 1_000_000 - born_s
        if age_s < SEEN_BY_ALL_S:
            await asyncio.sleep(SEEN_BY_ALL_S - age_s)
        newest: Any = await self._redis.xrevrange(STREAM, count=1)
        return _id_of(oldest), _id_of(newest)

    async def _read(self, position: str) -> Page:
        entries: Any = await self._redis.xrange(STREAM, min=position, count=ENTRIES_PER_READ + 1)
        found = bool(entries) and entries[0][0].decode() == position
        if not entries:
            oldest, _ = await self._alive()
            return Page([], oldest, gap=True)
        if not found:
            entries = await self._redis.xrange(STREAM, count=ENTRIES_PER_READ)
        rows: list[Row] = []
        missed = False
        for _, fields in entries[1:] if found else entries:
            rows += orjson.loads(fields[ROWS])
            missed = missed or MISSED in fields
        return Page(rows, entries[-1][0].decode() if entries else position, gap=missed or not found)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._ending.wait()
        except TimeoutError:
            return


def _id_of(entries: Any) -> str:
    return entries[0][0].decode() if entries else _BEGINNING
