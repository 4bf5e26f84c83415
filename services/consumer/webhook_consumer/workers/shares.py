"""How much of a buffer each tool may have.

A tool may hold three times as many entries as there is room left. One noisy tool so has three quarters of
the buffer at most, two have three sevenths each, and there is always room for the next one. A tool that is
alone may have it all.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from webhook_consumer.entry import Entry

PER_FREE = 3
# A tool that was here so lately may come again: room is kept for it.
ACTIVE_S = 30.0


def tool_of(entry: Entry) -> bytes:
    """What an entry is accounted to: its tool, raw."""
    fields = entry.fields
    return fields.get(b"tool") or fields.get(b"context_id", b"").partition(b":")[0]


class Shares:
    """The shares in one buffer. Costs a comparison per entry while there is one tool only.

    Args:
        capacity: Of the buffer.
        clock: Seconds, monotonic.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._only: bytes | None = None
        self._held: Counter[bytes] | None = None
        self._total = 0
        self._seen: dict[bytes, float] = {}

    @property
    def several(self) -> bool:
        """Whether more than one tool has been here lately."""
        return self._held is not None

    def begin(self, tools: set[bytes], held: Iterable[Entry]) -> None:
        """Entries of these tools came; those held so far are given."""
        now = self._clock()
        if self._held is None:
            if len(tools) == 1 and (self._only is None or self._only in tools):
                [self._only] = tools
                return
            self._held = Counter(map(tool_of, held))
            self._total = self._held.total()
            self._seen = {self._only: now} if self._only is not None else {}
        self._seen.update(dict.fromkeys(tools, now))
        active = {tool: at for tool, at in self._seen.items() if now - at < ACTIVE_S or self._held[tool] > 0}
        self._seen = active
        if len(active) == 1:
            [self._only] = active
            self._held, self._total = None, 0

    def take(self, tool: bytes) -> bool:
        """Whether one more of the tool may be held; it then counts as held."""
        if self._held is None:
            return True
        if self._held[tool] >= PER_FREE * (self._capacity - self._total):
            return False
        self._count(tool)
        return True

    def insist(self, tool: bytes) -> None:
        """One more of the tool is held, share or no share."""
        if self._held is not None:
            self._count(tool)

    def _count(self, tool: bytes) -> None:
        assert self._held is not None
        self._held[tool] += 1
        self._total += 1

    def give_back(self, entry: Entry) -> None:
        """It is held no longer."""
        if self._held is None:
            return
        tool = tool_of(entry)
        if self._held[tool] > 1:
            self._held[tool] -= 1
        else:
            del self._held[tool]
        self._total -= 1

    def room(self) -> int:
        """How many entries may be added, whoever they are of, and all have room."""
        if self._held is None:
            return self._capacity
        free = self._capacity - self._total
        return max(0, (PER_FREE * free - max(self._held.values(), default=0)) // (PER_FREE + 1))
