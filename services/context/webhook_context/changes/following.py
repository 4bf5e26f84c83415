"""The change stream: how the replicas of this service learn of each other's writes."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import structlog
from webhook_shared.redis import Backoff, Client

from webhook_context.changes.feeds import Touched
from webhook_context.store import keys

log = structlog.get_logger()

READ_AT_ONCE = 1000
BLOCK_S = 5.0
REST_S = 0.01
"""Between two readings, so that writes one after another are read together; the first of them is not late."""
RECENT = 4096


class Position(NamedTuple):
    """The id of an entry: later ones are greater."""

    time_ms: int
    number: int

    @classmethod
    def of(cls, identity: bytes) -> Position:
        """From Redis."""
        time_ms, _, number = identity.partition(b"-")
        return cls(int(time_ms), int(number))

    def __str__(self) -> str:
        return f"{self.time_ms}-{self.number}"


class Change(NamedTuple):
    """An entry; with nothing touched where a replica has only begun to read."""

    position: Position
    touched: Touched | None


class Recent:
    """The latest changes, in memory, for those who follow closely: without a hole, and bounded."""

    def __init__(self, most: int = RECENT) -> None:
        self._most = most
        self._begin: Position | None = None
        self._changes: list[Change] = []
        self._grown = asyncio.Event()

    def restart(self, begin: Position) -> None:
        """From here on nothing is missed."""
        self._begin, self._changes = begin, []
        self._stir()

    def extend(self, changes: Sequence[Change]) -> None:
        """What comes next."""
        self._changes += changes
        if len(self._changes) > 2 * self._most:
            # Rarely, since what stays is copied.
            self._begin = self._changes[-self._most - 1].position
            del self._changes[: -self._most]
        self._stir()

    def after(self, position: Position, most: int) -> Sequence[Change] | None:
        """What came behind a position; None where that is longer ago than this remembers."""
        if self._begin is None or position < self._begin:
            return None
        first = bisect_right(self._changes, position, key=lambda change: change.position)
        return self._changes[first : first + most]

    def growth(self) -> asyncio.Event:
        """Is set when something comes."""
        return self._grown

    def _stir(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()


class Changes:
    """Follows the stream for as long as it runs.

    Args:
        blocking: A client of its own, made for blocking reads of BLOCK_S.
        touched: Called for each change.
        lost: Called where changes may have been missed.
        recent: Remembers the latest.
    """

    def __init__(
        self,
        blocking: Client,
        *,
        touched: Callable[[Touched], None],
        lost: Callable[[], None],
        recent: Recent,
    ) -> None:
        self._client = blocking
        self._touched = touched
        self._lost = lost
        self._recent = recent

    async def follow(self) -> None:
        """Read on and on, through every outage of Redis."""
        backoff, position = Backoff(), b""
        while True:
            try:
                if not position:
                    position = await begin(self._client)
                    # From here on nothing is missed; before, anything may have been.
                    self._recent.restart(Position.of(position))
                    self._lost()
                position = await self._read(position)
                backoff.reset()
                await asyncio.sleep(REST_S)
            except Exception as error:  # noqa: BLE001  # whatever it is, the following goes on
                log.warning("changes.unreadable", error=type(error).__name__)
                await backoff.wait()

    async def _read(self, position: bytes) -> bytes:
        reply: Any = await self._client.xread(
            {keys.CHANGES: position}, count=READ_AT_ONCE, block=int(BLOCK_S * 1000)
        )
        if not reply:
            return position
        changes = [parsed(*entry) for entry in reply[0][1]]
        # Trimming takes the oldest first: while our last entry is there, nothing behind it is gone.
        if await self._client.xrange(keys.CHANGES, position, position, count=1):
            self._recent.extend(changes)
        else:
            log.warning("changes.missed")
            self._recent.restart(changes[0].position)
            self._recent.extend(changes[1:])
            self._lost()
        for change in changes:
            if change.touched:
                self._touched(change.touched)
        return str(changes[-1].position).encode()


async def begin(client: Client) -> bytes:
    """An entry that says nothing: a position that certainly exists, on an empty stream too."""
    identity: Any = await client.xadd(keys.CHANGES, {"tenant": ""})
    return bytes(identity)


def parsed(identity: bytes, fields: dict[bytes, bytes]) -> Change:
    """An entry as Redis has it; whatever is no change of ours touches nothing."""
    tenant, context_id, version, what = (
        fields.get(name, b"").decode() for name in (b"tenant", b"context_id", b"version", b"what")
    )
    touched = Touched(tenant, context_id, int(version), what) if tenant and version.isdigit() else None
    return Change(Position.of(identity), touched)
