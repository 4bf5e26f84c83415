"""The entries that this process holds: read but not started, running, or being settled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence

from webhook_consumer.entry import Entry


class Buffer:
    """Bounded: the reader reads no more than there is room for.

    Args:
        capacity: Most entries held at once, but for those that are only being settled: the reader would
            stand still whenever many are. It is let in when a quarter is free, as a read costs about as
            much as a hundred entries; or when nothing waits.
        suspicious_deliveries: An entry delivered more often than this leaves the buffer alone, not in a
            batch: it may be what kills the process.
    """

    def __init__(self, capacity: int, suspicious_deliveries: int) -> None:
        self._capacity = capacity
        self._worthwhile = max(1, capacity // 4)
        self._suspicious = suspicious_deliveries
        self._held: dict[bytes, Entry] = {}
        self._settling: set[bytes] = set()
        self._waiting: deque[Entry] = deque()
        self._suspects: deque[Entry] = deque()
        self._arrived = asyncio.Condition()
        self._freed = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """How many entries are held."""
        return len(self._held)

    def __contains__(self, entry_id: bytes) -> bool:
        return entry_id in self._held

    def ids(self) -> list[bytes]:
        """The ids of all that are held."""
        return list(self._held)

    def is_suspect(self, entry: Entry) -> bool:
        """Whether the entry is to run alone."""
        return entry.deliveries > self._suspicious

    async def room(self) -> int:
        """How many more may be added; waits until that is worth a read, or the buffer is closed."""
        while not self._is_worth_a_read() and not self._closed:
            self._freed.clear()
            await self._freed.wait()
        return self._room()

    def _room(self) -> int:
        return self._capacity - len(self._held) + len(self._settling)

    def _is_worth_a_read(self) -> bool:
        room = self._room()
        return room >= self._worthwhile or (room > 0 and not self._waiting)

    async def add(self, entries: Sequence[Entry]) -> None:
        """Hold entries; those that are held already stay as they are."""
        fresh = {entry.id: entry for entry in entries if entry.id not in self._held}
        if not fresh:
            return
        self._held.update(fresh)
        for entry in fresh.values():
            (self._suspects if entry.deliveries > self._suspicious else self._waiting).append(entry)
        async with self._arrived:
            self._arrived.notify()

    async def take(self, most: int) -> list[Entry]:
        """The next batch, oldest first; waits for at least one entry. Empty once the buffer is closed."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._waiting or self._suspects or self._closed)
            if self._closed:
                return []
            if self._suspects:
                batch = [self._suspects.popleft()]
            else:
                batch = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            if not self._waiting:
                self._freed.set()
            if self._waiting or self._suspects:
                # One worker wakes the next, a turn of the event loop later: all at once they would keep
                # reads and acknowledgements waiting, and the server idle.
                self._arrived.notify()
        return batch

    def settling(self, ids: Iterable[bytes]) -> None:
        """These have been worked on; they are held until that is written down, but take no room."""
        self._settling |= self._held.keys() & ids
        self._freed.set()

    def drop(self, ids: Collection[bytes]) -> None:
        """Hold these no longer."""
        for entry_id in ids:
            self._held.pop(entry_id, None)
        self._settling.difference_update(ids)
        self._freed.set()

    def forget(self, ids: Iterable[bytes]) -> None:
        """Hold these no longer, and do not start those that wait: they are somebody else's now."""
        gone = set(ids)
        self._waiting = deque(entry for entry in self._waiting if entry.id not in gone)
        self._suspects = deque(entry for entry in self._suspects if entry.id not in gone)
        self.drop(gone)

    async def close(self) -> list[bytes]:
        """Start nothing more. Returns the ids of what was never started, which is still held."""
        self._closed = True
        self._freed.set()
        async with self._arrived:
            self._arrived.notify_all()
        unstarted = [entry.id for entry in (*self._waiting, *self._suspects)]
        self._waiting.clear()
        self._suspects.clear()
        return unstarted
