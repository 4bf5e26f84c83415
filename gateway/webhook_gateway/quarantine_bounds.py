"""Keeps the quarantine within its bounds: the oldest events go, never silently."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError, Script
from webhook_shared.tasks import ended

from webhook_gateway import metrics
from webhook_gateway.publishing.stream import QUARANTINE
from webhook_gateway.settings import QuarantineSection

log = structlog.get_logger()

EVERY_S = 10.0
_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)
BOUNDS = ("age", "events", "bytes")


class QuarantineBounds:
    """Removes what is too old or too much. All gateways do, and it makes no difference how many.

    Args:
        client: Where the quarantine is.
        section: The bounds.
        clock: Unix seconds.
    """

    def __init__(
        self, client: Client, section: QuarantineSection, clock: Callable[[], float] = time.time
    ) -> None:
        self._client, self._section, self._clock = client, section, clock
        self._script = Script.load("webhook_gateway", "quarantine_trim")

    async def apply(self) -> dict[str, int]:
        """Remove what is past a bound; how many went for each.

        Raises:
            REDIS_TROUBLE, RedisError: Redis does not do it.
        """
        section = self._section
        oldest_ms = round((self._clock() - section.max_age.total_seconds()) * 1000)
        args = (max(oldest_ms, 0), section.max_events, section.max_bytes)
        counts = await self._script(self._client, [QUARANTINE], args)
        removed = {bound: int(count) for bound, count in zip(BOUNDS, counts, strict=True) if count}
        for bound, count in removed.items():
            metrics.quarantine_removed.labels(bound).inc(count)
        if removed:
            log.warning("quarantine.removed", **removed)
        return removed

    async def keep(self) -> None:
        """Apply them for ever."""
        while True:
            try:
                await self.apply()
            except _TROUBLE as error:
                log.info("quarantine.not_bounded", error=type(error).__name__)
            await asyncio.sleep(EVERY_S)


@asynccontextmanager
async def bounded(client: Client, section: QuarantineSection) -> AsyncIterator[None]:
    """Keep the bounds while inside."""
    task = asyncio.create_task(QuarantineBounds(client, section).keep())
    try:
        yield
    finally:
        await ended([task])
