"""The change stream: how the replicas of this service learn of each other's writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from webhook_shared.redis import Backoff, Client

from webhook_context import keys
from webhook_context.feeds import KEPT_CHANGES, Touched

log = structlog.get_logger()

READ_AT_ONCE = 1000
BLOCK_S = 5.0


class Changes:
    """Follows the stream for as long as it runs.

    Args:
        blocking: A client of its own, made for blocking reads of BLOCK_S.
        touched: Called for each change.
        lost: Called where changes may have been missed.
    """

    def __init__(
        self, blocking: Client, *, touched: Callable[[Touched], None], lost: Callable[[], None]
    ) -> None:
        self._client = blocking
        self._touched = touched
        self._lost = lost

    async def follow(self) -> None:
        """Read on and on, through every outage of Redis."""
        backoff, position = Backoff(), b""
        while True:
            try:
                if not position:
                    position = await self._begin()
                    # From here on nothing is missed; before, anything may have been.
                    self._lost()
                position = await self._read(position)
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the following goes on
                log.warning("changes.unreadable", error=type(error).__name__)
                await backoff.wait()

    async def _begin(self) -> bytes:
        # An entry of our own gives a position that certainly exists, on an empty stream too.
        identity: Any = await self._client.xadd(
            keys.CHANGES, {"tenant": ""}, maxlen=KEPT_CHANGES, approximate=True
        )
        return bytes(identity)

    async def _read(self, position: bytes) -> bytes:
        reply: Any = await self._client.xread(
            {keys.CHANGES: position}, count=READ_AT_ONCE, block=int(BLOCK_S * 1000)
        )
        if not reply:
            return position
        entries = reply[0][1]
        for _, fields in entries:
            if change := _parse(fields):
                self._touched(change)
        # Trimming takes the oldest first: while our last entry is there, nothing behind it is gone.
        if not await self._client.xrange(keys.CHANGES, position, position, count=1):
            log.warning("changes.missed")
            self._lost()
        return bytes(entries[-1][0])


def _parse(fields: dict[bytes, bytes]) -> Touched | None:
    # A replica's own beginning has no tenant; whatever else is no change of ours is passed over.
    tenant, context_id = fields.get(b"tenant", b"").decode(), fields.get(b"context_id", b"").decode()
    version = fields.get(b"version", b"")
    return Touched(tenant, context_id, int(version)) if tenant and version.isdigit() else None
