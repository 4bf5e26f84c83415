"""The workers of one process: one for each lane, those of partitions that turn up later too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer.queue.redis import QUEUE_TROUBLE, Lane
from webhook_consumer.workers.worker import Worker

LOOK_PERIOD_S = 5.0


class Crew:
    """Runs workers.

    Args:
        workers: All; whoever holds this list sees those that come later.
        employ: Gives the worker of a lane that is new here.
        find: The lanes beyond those of the settings that hold something.

    Attributes:
        ends: Whether what is not begun yet is left to others.
    """

    def __init__(
        self,
        workers: list[Worker],
        employ: Callable[[Lane], Worker],
        find: Callable[[], Awaitable[Iterable[Lane]]],
    ) -> None:
        self._workers = workers
        self._employ = employ
        self._find = find
        self._known: set[str] = set()
        self.ends = False

    def add(self, lane: Lane) -> Worker:
        """Have a lane worked on, once this crew is at work."""
        self._known.add(lane.stream)
        worker = self._employ(lane)
        self._workers.append(worker)
        return worker

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """All of them, while inside."""
        for worker in self._workers:
            await worker.__aenter__()
        looking = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self.ends = True
            await ended([looking])
            # Side by side: together they may take no longer than one of them.
            await asyncio.gather(*(worker.__aexit__(None, None, None) for worker in self._workers))

    async def look(self) -> None:
        """Take up what nobody publishes to any more, or did not when this process was set up.

        Raises:
            QUEUE_TROUBLE: It could not be seen.
        """
        for lane in await self._find():
            if lane.stream not in self._known:
                log.info("queue.partition_found", stream=lane.stream)
                await self.add(lane).__aenter__()

    async def _look(self) -> None:
        while True:
            try:
                await self.look()
            except QUEUE_TROUBLE as error:
                log.debug("queue.partitions_unseen", error=type(error).__name__)
            await asyncio.sleep(LOOK_PERIOD_S)
