"""Streams of changes, for each watcher at its own pace.

A position in the stream of changes is the id of an entry that has been read. As long as that entry is there,
nothing behind it is gone, since the oldest go first; where it is not, the watcher is told so. Who keeps up is
served from memory; who falls behind is read the stream again. Nothing is queued for anybody.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from webhook_shared.errors import InvalidArgument, ResourceExhausted, ServiceError
from webhook_shared.redis import Client

from webhook_context import metrics
from webhook_context.changes.feeds import DELETED, VECTORS, Touched
from webhook_context.changes.following import Change, Position, Recent, begin, parsed
from webhook_context.domain.contexts import Context, Filter
from webhook_context.domain.lifecycle import TIERS
from webhook_context.store import keys
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts

READ_AT_ONCE = 500
# Replicas announce concurrently: for so long what is announced late is known to be old.
REMEMBERED_VERSIONS = 10_000
LOOKED_BACK = 1000
# Who may watch is asked once per stream; this is how long a revoked credential may go on.
LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What a watcher wants to hear of.

    Attributes:
        context_ids: Only these; empty for all.
        contexts: Whether the contexts come with their changes.
    """

    tenant: str
    wanted: Filter
    context_ids: frozenset[str] = frozenset()
    contexts: bool = False


class Told(NamedTuple):
    """A change, and the context as it is now where it was looked at."""

    change: Change
    context: Context | None


class Page(NamedTuple):
    """What a watcher gets next: changes, maybe none, and the position behind them."""

    told: list[Told]
    position: Position


class Watching:
    """The watchers of this process.

    Args:
        client: Of the Redis that has the stream.
        store: Has the contexts.
        recent: The latest changes.
        most: Streams that may be open here at the same time.
        heartbeat_s: So often a watcher of whom nothing is to be told hears how far it is.
    """

    def __init__(
        self, client: Client, store: RedisContexts, recent: Recent, *, most: int, heartbeat_s: float
    ) -> None:
        self._client = client
        self._store = store
        self._recent = recent
        self._most = most
        self._heartbeat_s = heartbeat_s
        self._ending = asyncio.Event()
        self._open = 0

    def end(self) -> None:
        """Let every watcher go: the process stops."""
        self._ending.set()

    async def follow(self, wish: Wish, token: str) -> AsyncGenerator[Page]:
        """What changes from now on, or from the position of a token; the first page comes at once.

        Ends after LONGEST_S, and when the process stops.

        Raises:
            InvalidArgument: FIELD_INVALID: It is no token.
            ServiceError: RESUME_TOKEN_TOO_OLD.
            ResourceExhausted: TOO_MANY_WATCHES.
            REDIS_TROUBLE: Redis does not answer.
        """
        position = read_token(token)
        if self._open >= self._most:
            raise ResourceExhausted(
                "TOO_MANY_WATCHES", f"{self._most} watches are open here", retry_after_s=5.0
            )
        self._open += 1
        metrics.WATCHES.inc()
        try:
            async with aclosing(self._pages(wish, position)) as pages:
                async for page in pages:
                    yield page
        finally:
            self._open -= 1
            metrics.WATCHES.dec()

    async def _pages(self, wish: Wish, resumed: Position | None) -> AsyncGenerator[Page]:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + LONGEST_S
        versions = _Versions()
        if resumed is None:
            position = await self._newest()
        else:
            position = resumed
            versions.recall(await self._before(position), wish.tenant)
        yield Page([], position)
        told_s = loop.time()
        while not self._ending.is_set() and loop.time() < end_s:
            growth = self._recent.growth()
            changes = await self._after(position)
            if changes:
                position = changes[-1].position
                told = await self._told(wish, versions.risen(_latest(wish, changes)))
            else:
                told = []
            if told or loop.time() - told_s >= self._heartbeat_s:
                yield Page(told, position)
                told_s = loop.time()
            if not changes:
                await self._pause(growth, told_s + self._heartbeat_s - loop.time())

    async def _after(self, position: Position) -> Sequence[Change]:
        remembered = self._recent.after(position, READ_AT_ONCE)
        if remembered is not None:
            return remembered
        metrics.WATCH_REREADS.inc()
        found: Any = await self._client.xrange(keys.CHANGES, min=str(position), count=READ_AT_ONCE + 1)
        changes = [parsed(*entry) for entry in found]
        if not changes or changes[0].position != position:
            raise too_old()
        return changes[1:]

    async def _before(self, position: Position) -> Sequence[Change]:
        found: Any = await self._client.xrevrange(keys.CHANGES, max=str(position), count=LOOKED_BACK)
        if not found or Position.of(found[0][0]) != position:
            raise too_old()
        return [parsed(*entry) for entry in found]

    async def _newest(self) -> Position:
        found: Any = await self._client.xrevrange(keys.CHANGES, count=1)
        return Position.of(found[0][0] if found else await begin(self._client))

    async def _told(self, wish: Wish, changes: list[Change]) -> list[Told]:
        if not wish.contexts and wish.wanted == Filter():
            return [Told(change, None) for change in changes]
        ids = [change.touched.context_id for change in changes if change.touched and not _is_deletion(change)]
        found = dict(zip(ids, await self._store.read(wish.tenant, ids, View()), strict=True))
        told = []
        for change in changes:
            assert change.touched is not None
            context = found.get(change.touched.context_id)
            if isinstance(context, Context):
                if wish.wanted.admits(context):
                    told.append(Told(change, context if wish.contexts else None))
            elif _is_deletion(change) or isinstance(context, ServiceError):
                # Of what can't be looked at nobody can say that it is not wanted.
                told.append(Told(change, None))
            # What is gone since has an announcement of its own.
        return told

    async def _pause(self, growth: asyncio.Event, most_s: float) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (growth, self._ending)]
        try:
            await asyncio.wait(waiting, timeout=max(most_s, 0), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()


class _Versions:
    """The highest versions told lately: a change that is announced late does not come after a later one."""

    def __init__(self) -> None:
        self._highest: OrderedDict[str, int] = OrderedDict()

    def recall(self, changes: Sequence[Change], tenant: str) -> None:
        """What was told before."""
        for _, touched in changes:
            if touched and touched.tenant == tenant:
                self._note(touched)

    def risen(self, changes: list[Change]) -> list[Change]:
        """Those that tell something new, which they then have told."""
        return [change for change in changes if change.touched and self._note(change.touched)]

    def _note(self, touched: Touched) -> bool:
        highest = self._highest.get(touched.context_id, -1)
        if touched.what in TIERS:
            # A move leaves the version as it is, and that version's own change may be announced after it.
            return touched.version >= highest
        if touched.version <= highest:
            return False
        self._highest[touched.context_id] = touched.version
        self._highest.move_to_end(touched.context_id)
        if len(self._highest) > REMEMBERED_VERSIONS:
            self._highest.popitem(last=False)
        return True


def too_old() -> ServiceError:
    """Changes behind a token are no longer kept."""
    return ServiceError(
        grpc.StatusCode.OUT_OF_RANGE,
        "RESUME_TOKEN_TOO_OLD",
        "changes behind this token are no longer kept: watch without a token, then list what changed since",
    )


def write_token(position: Position) -> str:
    """An opaque name of a position."""
    return base64.urlsafe_b64encode(str(position).encode()).decode()


def read_token(token: str) -> Position | None:
    """The position that a token names; None for an empty one.

    Raises:
        InvalidArgument: It is none of ours.
    """
    if not token:
        return None
    try:
        time_ms, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition("-")
        position = Position(int(time_ms), int(number))
    except (binascii.Error, ValueError):
        position = Position(-1, 0)
    if not (0 <= position.time_ms < 2**64 and 0 <= position.number < 2**64):
        raise InvalidArgument(
            "this is no resume token", fields={"resume_token": "must be of an earlier response"}
        )
    return position


def _latest(wish: Wish, changes: Sequence[Change]) -> list[Change]:
    """Of each context that is watched the last change of a kind, in order."""
    latest: dict[tuple[str, bool], Change] = {}
    for change in changes:
        touched = change.touched
        if touched is None or touched.tenant != wish.tenant or touched.what == VECTORS:
            continue
        if wish.context_ids and touched.context_id not in wish.context_ids:
            continue
        kind = (touched.context_id, touched.what in TIERS)
        held = latest.get(kind)
        if held is None or held.touched is None or held.touched.version <= touched.version:
            latest.pop(kind, None)
            latest[kind] = change
    return list(latest.values())


def _is_deletion(change: Change) -> bool:
    return change.touched is not None and change.touched.what == DELETED
