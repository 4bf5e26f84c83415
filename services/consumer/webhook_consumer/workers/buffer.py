"""The entries that this process holds: read but not started, running, or being settled."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from webhook_consumer.entry import DELIVERIES, ID, Entry
from webhook_consumer.workers.shares import Shares, tool_of

NEVER = math.inf
# How often the reader looks past the noisiest tool for others while it is behind.
PATIENCE_S = 0.1
# How many entries it then looks at; what is beyond a share is put aside.
LOOK_PAST = 500


class Buffer:
    """Bounded: the reader reads no more than there is room for.

    Where there are several tools, none has more than its share, and all have their turn in each batch.

    Args:
        capacity: Most entries held at once, but for those that are only being settled: the reader would
            stand still whenever many are. It is let in when a quarter is free, as a read costs about as
            much as a hundred entries; or when nothing waits.
        suspicious_deliveries: An entry delivered more often than this leaves the buffer alone, not in a
            batch: it may be what kills the process.
        patience_s: See PATIENCE_S.
    """

    def __init__(self, capacity: int, suspicious_deliveries: int, *, patience_s: float = PATIENCE_S) -> None:
        self._capacity = capacity
        self._worthwhile = max(1, capacity // 4)
        self._suspicious = suspicious_deliveries
        self._patience_s = patience_s
        self._held: dict[bytes, Entry] = {}
        self._settling: set[bytes] = set()
        self._waiting: dict[bytes, deque[Entry]] = {}
        self._suspects: deque[Entry] = deque()
        self._shares = Shares(capacity)
        self._outages = 0
        self._next_look = 0.0
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

    @contextmanager
    def outage(self) -> Iterator[None]:
        """While inside, nobody is looked past: all wait for the same thing."""
        self._outages += 1
        try:
            yield
        finally:
            self._outages -= 1

    async def room(self, behind_at: float = NEVER) -> int:
        """How many more may be added; waits until that is worth a read, or the buffer is closed.

        Args:
            behind_at: Where tools share the buffer, the noisiest may be in the way of the others. From then
                on (loop time) LOOK_PAST entries may be read now and then; what is beyond a share of these
                comes back from `add`.
        """
        loop = asyncio.get_running_loop()
        while not self._closed:
            may_look_past = self._shares.several and not self._outages
            look_past_at = max(behind_at, self._next_look) if may_look_past else NEVER
            if loop.time() >= look_past_at:
                self._next_look = loop.time() + self._patience_s
                return LOOK_PAST
            if self._is_worth_a_read():
                break
            self._freed.clear()
            await self._freed_by(look_past_at)
        return min(self._room(), self._shares.room())

    async def _freed_by(self, deadline: float) -> None:
        if deadline == NEVER:
            await self._freed.wait()
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._freed.wait()
        except TimeoutError:
            return

    def _room(self) -> int:
        return self._capacity - len(self._held) + len(self._settling)

    def _is_worth_a_read(self) -> bool:
        room = self._room()
        if self._shares.several:
            # Of a tool alone a quarter; here a quarter of what the noisiest may have.
            room = self._shares.room()
            return room >= max(1, self._worthwhile // 2) or (room > 0 and not self._waiting)
        return room >= self._worthwhile or (room > 0 and not self._waiting)

    async def add(self, entries: Sequence[Entry], *, shared: bool = False) -> list[Entry]:
        """Hold entries; those that are held already stay as they are.

        Args:
            entries: What was read.
            shared: Whether tools are held to their shares.

        Returns:
            What is beyond the share of its tool, and not held.
        """
        fresh = dict(zip(map(ID, entries), entries, strict=True))
        if not fresh.keys().isdisjoint(self._held):
            fresh = {entry_id: entry for entry_id, entry in fresh.items() if entry_id not in self._held}
        if not fresh:
            return []
        tools = {entry.fields.get(b"tool") or tool_of(entry) for entry in fresh.values()}
        self._shares.begin(tools, self._held.values())
        beyond: list[Entry] = []
        if shared and not self._shares.several and max(map(DELIVERIES, fresh.values())) <= self._suspicious:
            # Of one tool, and nothing suspicious: the usual case, which costs little.
            [tool] = tools
            self._held.update(fresh)
            self._waiting.setdefault(tool, deque()).extend(fresh.values())
            fresh = {}
        for entry in fresh.values():
            tool = tool_of(entry)
            if not shared:
                self._shares.insist(tool)
            elif not self._shares.take(tool):
                beyond.append(entry)
                continue
            self._hold(tool, entry)
        async with self._arrived:
            self._arrived.notify()
        return beyond

    def _hold(self, tool: bytes, entry: Entry) -> None:
        self._held[entry.id] = entry
        if entry.deliveries > self._suspicious:
            self._suspects.append(entry)
            return
        lane = self._waiting.get(tool)
        if lane is None:
            lane = self._waiting[tool] = deque()
        lane.append(entry)

    async def take(self, most: int) -> list[Entry]:
        """The next batch, of each tool the oldest; waits for one at least. Empty once this is closed."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: self._waiting or self._suspects or self._closed)
            if self._closed:
                return []
            batch = [self._suspects.popleft()] if self._suspects else self._round(most)
            if not self._waiting:
                self._freed.set()
            if self._waiting or self._suspects:
                # One worker wakes the next, a turn of the event loop later: all at once they would keep
                # reads and acknowledgements waiting, and the server idle.
                self._arrived.notify()
        return batch

    def _round(self, most: int) -> list[Entry]:
        """Of all tools alike; whoever was served stands last the next time."""
        batch: list[Entry] = []
        while self._waiting and len(batch) < most:
            part = max(1, (most - len(batch)) // len(self._waiting))
            for tool in list(self._waiting):
                lane = self._waiting.pop(tool)
                count = min(part, len(lane), most - len(batch))
                batch += [lane.popleft() for _ in range(count)]
                if lane:
                    self._waiting[tool] = lane
                if len(batch) == most:
                    break
        return batch

    def settling(self, ids: Iterable[bytes]) -> None:
        """These have been worked on; they are held until that is written down, but take no room."""
        self._settling.update(filter(self._held.__contains__, ids))
        self._freed.set()

    def drop(self, ids: Collection[bytes]) -> None:
        """Hold these no longer."""
        several = self._shares.several
        for entry_id in ids:
            entry = self._held.pop(entry_id, None)
            if several and entry is not None:
                self._shares.give_back(entry)
        self._settling.difference_update(ids)
        self._freed.set()

    def forget(self, ids: Iterable[bytes]) -> None:
        """Hold these no longer, and do not start those that wait: they are somebody else's now."""
        gone = set(ids)
        lanes = {
            tool: deque(entry for entry in lane if entry.id not in gone)
            for tool, lane in self._waiting.items()
        }
        self._waiting = {tool: lane for tool, lane in lanes.items() if lane}
        self._suspects = deque(entry for entry in self._suspects if entry.id not in gone)
        self.drop(gone)

    async def close(self) -> list[bytes]:
        """Start nothing more. Returns the ids of what was never started, which is still held."""
        self._closed = True
        self._freed.set()
        async with self._arrived:
            self._arrived.notify_all()
        unstarted = [entry.id for lane in (*self._waiting.values(), self._suspects) for entry in lane]
        self._waiting.clear()
        self._suspects.clear()
        return unstarted
