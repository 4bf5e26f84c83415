"""Queues from which items are taken: as they came, or their lanes in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class InOrder(deque[T]):
    """As they came."""

    def first(self) -> T:
        """What `popleft` would take; there must be something."""
        return self[0]


class Turns(Generic[T]):
    """Of each lane in turn, so that a crowded one makes only itself wait. Within a lane the order stays.

    A lane that comes new takes its turn after those in which something waits.

    Args:
        lane: Of an item.
    """

    def __init__(self, lane: Callable[[T], Hashable]) -> None:
        self._lane = lane
        self._queues: dict[Hashable, deque[T]] = {}
        self._next: deque[Hashable] = deque()
        self._size = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._size

    def append(self, item: T) -> None:
        """It waits now."""
        lane = self._lane(item)
        queue = self._queues.get(lane)
        if queue is None:
            self._queues[lane] = queue = deque()
            self._next.append(lane)
        queue.append(item)
        self._size += 1

    def first(self) -> T:
        """What `popleft` would take; there must be something."""
        return self._queues[self._next[0]][0]

    def popleft(self) -> T:
        """Take the one whose turn it is."""
        lane = self._next[0]
        queue = self._queues[lane]
        item = queue.popleft()
        self._size -= 1
        if queue:
            self._next.rotate(-1)
        else:
            # Lanes come and go: nothing stays of one in which nothing waits.
            self._next.popleft()
            del self._queues[lane]
        return item
