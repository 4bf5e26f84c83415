"""Drops dead letters that have been kept for long enough: by tenant and tool, one process at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from webhook_shared.redis import Backoff, Client
from webhook_shared.retention import Retention
from webhook_shared.sweeps import my_turn
from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer.entry import Entry
from webhook_consumer.metrics import letters_expired
from webhook_consumer.queue.redis import QUEUE_TROUBLE, Lane

TURN = "retention:{dead-letters}"
"""STRING: is there until dead letters are next looked through."""
PAGE = 500


class LetterRetention:
    """Looks for dead letters that are due.

    Args:
        client: Where they are.
        lanes: The stages; more may come.
        retention: How long they are kept.
        every_s: How often to look.
    """

    def __init__(
        self, client: Client, lanes: Sequence[Lane], retention: Retention, *, every_s: float
    ) -> None:
        self._client = client
        self._lanes = lanes
        self._retention = retention
        self._every_s = every_s

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Look now and then while inside; not at all where all is kept for ever."""
        working = [asyncio.create_task(self._run())] if self._retention.shortest_ms() else []
        try:
            yield
        finally:
            await ended(working)

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                if await my_turn(self._client, TURN, self._every_s):
                    await self.sweep()
                backoff.reset()
            except QUEUE_TROUBLE as error:
                log.warning("letters.unreachable", error=type(error).__name__)
                await backoff.wait()
            except Exception:  # noqa: BLE001  # what is kept for too long is found out too late
                log.error("letters.not_swept", exc_info=True)
                await backoff.wait()

    async def sweep(self) -> int:
        """Look through all stages once; how many were dropped.

        Raises:
            REDIS_TROUBLE: The rest waits for the next sweep.
        """
        now_ms, dropped = int(time.time() * 1000), 0
        for lane in list(self._lanes):
            dropped += await self._sweep(lane.dead_letters, now_ms)
        return dropped

    async def _sweep(self, stream: str, now_ms: int) -> int:
        # What is younger than the shortest time need not be looked at.
        newest, after, dropped = f"{now_ms - self._retention.shortest_ms()}", "-", 0
        while True:
            rows: Any = await self._client.xrange(stream, min=after, max=newest, count=PAGE)
            if not rows:
                return dropped
            due = [Entry(*row) for row in rows if self._is_due(Entry(*row), now_ms)]
            if due:
                await self._client.xdel(stream, *(letter.id for letter in due))
                for letter in due:
                    letters_expired.labels(letter.tool).inc()
            dropped += len(due)
            after = f"({rows[-1][0].decode()}"

    def _is_due(self, letter: Entry, now_ms: int) -> bool:
        kept_ms = self._retention.kept_ms(letter.text(b"tenant"), letter.tool)
        return bool(kept_ms) and int(letter.id.partition(b"-")[0]) + kept_ms <= now_ms
