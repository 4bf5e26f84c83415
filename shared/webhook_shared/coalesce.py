"""Turn many concurrent calls into few batches, without a timer.

While one batch is under way, arrivals queue; when it returns they leave together. A lone caller waits
for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from webhook_shared.turns import InOrder, Turns

T = TypeVar("T")
R = TypeVar("R")

# Of the loop: in the first a batch is put together and its call made, in the second the call goes out.
TURNS_TO_LEAVE = 2


class Coalescer(Generic[T, R]):
    """Batches items of concurrent callers.

    Args:
        flush: Takes a batch and returns one result per item, in order. An exception in place of a
            result is raised to that item's caller alone; one that is raised goes to all of them.
        max_items: Most items of one batch.
        in_flight: Most batches under way at once.
        max_weight: Most weight of one batch, unless a single item is heavier.
        weigh: The weight of an item; needed with `max_weight`.
        joins_at: A batch joins others that are under way only when it has grown to this share of their
            mean size. With 0 it goes at once, which is soonest for the item and, where a batch costs much
            more than an item, late for all.
        lane: Of an item; a batch takes from the lanes in turn. None takes the items as they came.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_items: int,
        in_flight: int = 1,
        max_weight: int | None = None,
        weigh: Callable[[T], int] | None = None,
        joins_at: float = 0.0,
        lane: Callable[[T], Hashable] | None = None,
    ) -> None:
        self._flush = flush
        self._max_items = max_items
        self._in_flight = in_flight
        self._max_weight = max_weight
        self._weigh = weigh
        self._joins_at = joins_at
        self._waiting: InOrder[tuple[T, asyncio.Future[R]]] | Turns[tuple[T, asyncio.Future[R]]] = (
            InOrder() if lane is None else Turns(lambda waiting: lane(waiting[0]))
        )
        # Sizes of the batches that are under way; tasks live on until they have answered.
        self._running: dict[asyncio.Task[None], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._tasks or self._waiting:
            await asyncio.sleep(0) if not self._tasks else await asyncio.wait(self._tasks)

    def __len__(self) -> int:
        """How many items wait for a batch."""
        return len(self._waiting)

    def submit(self, item: T) -> asyncio.Future[R]:
        """Queue an item; the future has its result. Cancelling the future does not stop the batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        # One turn of the loop later, so that all who arrive in this turn share the batch.
        if not self._scheduled and self._is_due():
            self._scheduled = True
            loop.call_soon(self._start)
        return future

    def _is_due(self) -> bool:
        """Whether what waits is a batch that may go and is worth it."""
        under_way = len(self._running)
        if under_way >= self._in_flight or not self._waiting:
            return False
        return len(self._waiting) * under_way >= self._joins_at * sum(self._running.values())

    def _start(self) -> None:
        self._scheduled = False
        while self._is_due():
            batch = self._take()
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running[task] = len(batch)
            self._tasks.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._returned(task)

    def _returned(self, task: asyncio.Task[None]) -> None:
        if self._running.pop(task, None) is not None:
            self._start()

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_items:
            if self._max_weight is not None and self._weigh is not None:
                weight += self._weigh(self._waiting.first()[0])
                if batch and weight > self._max_weight:
                    break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._flushed([item for item, _ in batch])
            # The next batch leaves before this one is answered: whoever works on it would be idle for as long
            # as it takes to answer all of these.
            for _ in range(TURNS_TO_LEAVE if self._running else 0):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it belongs to the callers
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _flushed(self, items: list[T]) -> Sequence[R | Exception]:
        try:
            return await self._flush(items)
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._returned(task)
