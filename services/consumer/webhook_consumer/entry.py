"""What a stage works on, and what can become of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple, Protocol

UNKNOWN_TOOL = "unknown"
# The field of an entry whose end somebody waits for: who, and the dead letter that it was.
CANARY = b"canary"


class Entry(NamedTuple):
    """One stream entry, as delivered to this process.

    Attributes:
        id: The stream's id: b"1763841234567-0".
        fields: As they were added.
        deliveries: How often it was handed to a worker, this time included.
    """

    id: bytes
    fields: dict[bytes, bytes]
    deliveries: int = 1

    def text(self, name: bytes) -> str:
        """A field as text; empty where it is absent or no text."""
        try:
            return self.fields.get(name, b"").decode()
        except UnicodeDecodeError:
            return ""

    @property
    def tool(self) -> str:
        """The source's name; that of its context where the entry is about a context."""
        return self.text(b"tool") or self.text(b"context_id").partition(":")[0] or UNKNOWN_TOOL

    @property
    def failures(self) -> int:
        """How often a handler has failed on it."""
        value = self.fields.get(b"attempt", b"")
        return int(value) if value.isdigit() else 0


ID: Callable[[Entry], bytes] = itemgetter(0)
DELIVERIES: Callable[[Entry], int] = itemgetter(2)
"""For `map` over all entries of a batch: the fields of a named tuple take twice as long by their names."""


class Cause(StrEnum):
    """Why an entry was given up."""

    UNDECODABLE = "undecodable"
    PERMANENT = "permanent"
    EXHAUSTED = "exhausted"
    CRASH_LOOP = "crash_loop"
    QUOTA = "quota"
    """The tenant has no room for it; put it back when it has."""


class Failure(StrEnum):
    """What kind of failure may heal; each has its own terms, see `RetryPolicy`."""

    TRANSIENT = "transient"
    """The other side or the handler is at fault: what opens the breaker of a tool."""
    RATE_LIMITED = "rate_limited"
    """The other side is well and has had enough for now."""
    UNREADABLE = "unreadable"
    """Sealed under a key or written in a version that is not known here yet."""
    CONTENDED = "contended"
    """What it is about kept changing: nothing is wrong."""
    AWAY = "away"
    """What it needs can't be reached; others may have got through."""


@dataclass(frozen=True, slots=True)
class Done:
    """The effect is durable."""


@dataclass(frozen=True, slots=True)
class Retry:
    """It failed and may succeed later.

    Attributes:
        detail: One line for operators, without payload.
        after_s: The earliest time to come again, where the other side said so; seconds.
        patient: Tried for as long as it takes: the failure says nothing about the entry.
        failure: Of which kind.
    """

    detail: str
    after_s: float | None = None
    patient: bool = False
    failure: Failure = Failure.TRANSIENT


@dataclass(frozen=True, slots=True)
class Dead:
    """It can't succeed."""

    cause: Cause
    detail: str


Outcome = Done | Retry | Dead
DONE = Done()


class Outage(Exception):
    """What the stage as a whole needs is away: no entry is to blame, none is to be settled.

    Attributes:
        is_silence: There was no answer in time; an entry may be to blame after all, if others have theirs.
    """

    def __init__(self, detail: str, *, is_silence: bool = False) -> None:
        super().__init__(detail)
        self.is_silence = is_silence


class Handler(Protocol):
    """A stage's work."""

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """Work on a batch; one outcome per entry, in order.

        Must be idempotent: an entry comes again whenever nobody knows how it went.

        Raises:
            Outage: Try the very same batch again later.
        """
        ...
