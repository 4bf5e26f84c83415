"""Writing that nobody waits for: what is to be kept is put down in memory and written in the background."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import structlog

from webhook_shared.redis import REDIS_TROUBLE, Backoff, RedisError

T = TypeVar("T")

log = structlog.get_logger()

LAST_WRITE_S = 1.0
"""How long the last write may take when the process ends, seconds."""

_AT_ONCE = 512
_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError)


class Journal(Generic[T]):
    """A bounded buffer before a store. When it is full the oldest entries go, and are counted.

    Args:
        name: For the log.
        write: Keeps at most 512 entries, all or none; is given the same ones again where it fails.
        most: Most entries that wait.
        most_bytes: Most bytes that wait.
        every_s: How long entries gather before they are written, seconds.
        lost: Is told how many entries had to go.
        gather: Called before each writing, to put down what was only counted so far.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[T]], Awaitable[None]],
        *,
        most: int,
        most_bytes: int,
        every_s: float,
        lost: Callable[[int], None],
        gather: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._write, self._lost, self._gather = name, write, lost, gather
        self._most, self._most_bytes, self._every_s = most, most_bytes, every_s
        self._waiting: deque[tuple[T, int]] = deque()
        self._waiting_bytes = 0
        self._something = asyncio.Event()

    def put(self, entry: T, size_bytes: int = 0) -> None:
        """Have an entry written soon; never waits."""
        self._waiting.append((entry, size_bytes))
        self._waiting_bytes += size_bytes
        self._shorten()
        self._something.set()

    def wake(self) -> None:
        """Have what `gather` knows written soon."""
        self._something.set()

    async def keep(self) -> None:
        """Write for ever; `close` writes what is left."""
        backoff = Backoff(base_s=0.1, cap_s=5.0)
        is_well = True
        while True:
            await self._something.wait()
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
            except _TROUBLE as error:
                if is_well:
                    log.warning("journal.not_written", journal=self._name, error=type(error).__name__)
                is_well = False
                await backoff.wait()
            else:
                is_well = True
                backoff.reset()

    async def close(self) -> None:
        """Write what is left, if that can be done soon; what can't is told in the log."""
        with contextlib.suppress(*_TROUBLE):
            async with asyncio.timeout(LAST_WRITE_S):
                await self.flush()
        if self._waiting:
            log.error("journal.left_behind", journal=self._name, entries=len(self._waiting))

    async def flush(self) -> None:
        """Write all that waits.

        Raises:
            REDIS_TROUBLE, RedisError: Not all could be written; the rest still waits.
        """
        self._something.clear()
        self._gather()
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await self._write([entry for entry, _ in batch])
            except BaseException:
                self._waiting.extendleft(reversed(batch))
                self._shorten()
                self._something.set()
                raise
            self._waiting_bytes -= sum(size for _, size in batch)

    def _shorten(self) -> None:
        count = 0
        while self._waiting and (len(self._waiting) > self._most or self._waiting_bytes > self._most_bytes):
            _, size_bytes = self._waiting.popleft()
            self._waiting_bytes -= size_bytes
            count += 1
        if count:
            self._lost(count)
