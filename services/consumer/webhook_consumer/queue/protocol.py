"""What a worker asks of the queue that it works off: Redis Streams or SQS.

An entry is in exactly one place, and each method moves some of them. A method that takes ids returns those
that are not this process's any more: somebody else works on them, and they stay as they are. To repeat a
call is safe: what it has settled is nobody's, and is not returned. Any method may raise QUEUE_TROUBLE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from webhook_consumer.entry import Entry
from webhook_consumer.queue.redis import Burial, Claimed, Counts, Delayed, Lane


class EventQueue(Protocol):
    """One stage's queue, as one process sees it.

    Attributes:
        lane: Which stage's, and where operators find it.
    """

    lane: Lane

    @property
    def name(self) -> str:
        """This process's name among those that work off the queue; empty before `join`."""
        ...

    async def join(self) -> None:
        """Be ready to read; repeats only what is missing."""

    async def keep_name(self) -> bool:
        """Show that this process is alive. False: somebody else has its name, and what it held."""
        ...

    async def leave(self) -> None:
        """Take part no longer."""

    async def read(self, most: int) -> list[Entry]:
        """New entries, now this process's; waits a while for the first.

        Raises:
            StreamLost: Call `join` and go on.
        """
        ...

    async def wake(self) -> None:
        """End a read that waits, as soon as that loses nothing."""

    async def claim(
        self, cursor: bytes, *, held: Sequence[bytes], room: int, idle_ms: int | None = None
    ) -> Claimed:
        """Take over entries that were handed out and never settled, where the queue does not do it itself.

        Args:
            cursor: START, or where the last call stopped.
            held: Left alone.
            room: Most to take.
            idle_ms: Anybody's that are idle this long; None: this process's own, however idle.
        """
        ...

    async def ack(self, ids: Sequence[bytes]) -> list[bytes]:
        """Done: gone for good."""
        ...

    async def renew(self, ids: Sequence[bytes]) -> list[bytes]:
        """Show that these are being worked on."""
        ...

    async def delay(self, items: Sequence[Delayed]) -> list[bytes]:
        """Out of sight until they are due."""
        ...

    async def bury(self, items: Sequence[Burial]) -> list[bytes]:
        """Among the dead letters."""
        ...

    async def release(self, ids: Sequence[bytes], idle_ms: int) -> None:
        """Hand back what was not started, as idle as given, so that others find it at once."""

    async def promote(self, most: int) -> tuple[int, int | None]:
        """Bring back what is due. Returns how many, and in how many ms the next is due (None: none)."""
        ...

    async def park(self, entries: Sequence[Entry]) -> list[bytes]:
        """Out of sight until `unpark`, or for a while where the queue has no such thing."""
        ...

    async def unpark(self, most: int, allowances: Mapping[str, int], *, wanted: int, least: int) -> int:
        """Bring back what was parked, of a tool as many as its allowance says. Returns how many."""
        ...

    async def reap(self, idle_ms: int, most: int) -> list[str]:
        """Forget processes that hold nothing and have been silent for so long. Returns their names."""
        ...

    async def accuse(self, entry_id: bytes) -> int:
        """Note that a suspect is about to be started alone. Returns how often that has been noted."""
        ...

    async def acquit(self, entry_id: bytes) -> None:
        """Forget the notes on a suspect that came to an end."""

    async def counts(self) -> Counts:
        """Where the entries are now."""
        ...

    async def consumers(self) -> list[tuple[str, int, int]]:
        """Name, entries in flight and idle time (ms) of each process that works off the queue, by name."""
        ...
