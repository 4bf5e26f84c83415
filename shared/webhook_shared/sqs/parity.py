"""What went through each of two queues, by event id, so that the two can be compared.

Every event is written down at up to four places, under the minute in which it was *received*, so that all
notes on one event meet however late they come. A note is 24 bytes appended to a string: the event's id and
when it was seen. A minute of 1,000 events a second is 1.4 MB for each place, and goes away by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from webhook_shared.redis import Client

NOTE = struct.Struct(">16sQ")
MINUTE_MS = 60_000
MOST_NAMED = 100


class Place(StrEnum):
    """Where an event is seen."""

    REDIS_QUEUED = "redis.queued"
    SQS_QUEUED = "sqs.queued"
    REDIS_PROCESSED = "redis.processed"
    SQS_PROCESSED = "sqs.processed"


EXPECTED: tuple[tuple[Place, Place], ...] = (
    (Place.REDIS_QUEUED, Place.SQS_QUEUED),
    (Place.SQS_QUEUED, Place.REDIS_QUEUED),
    (Place.REDIS_QUEUED, Place.REDIS_PROCESSED),
    (Place.SQS_QUEUED, Place.SQS_PROCESSED),
)
"""What was seen at the one is to be seen at the other."""


class Ledger:
    """Writes down what is seen at one place.

    Args:
        redis: Where.
        place: Which.
        retention_s: How long a minute's notes are kept.
    """

    def __init__(self, redis: Client, place: Place, *, retention_s: int) -> None:
        self._redis = redis
        self._place = place
        self._retention_s = retention_s

    async def note(self, seen: Iterable[tuple[str, int]]) -> None:
        """Write down events (id, received in Unix ms), all in one round trip. To repeat it does no harm.

        Raises:
            REDIS_TROUBLE: Redis does not answer.
        """
        now_ms = round(time.time() * 1000)
        minutes: dict[int, list[bytes]] = {}
        for event_id, received_ms in seen:
            minutes.setdefault(received_ms // MINUTE_MS, []).append(NOTE.pack(short(event_id), now_ms))
        if not minutes:
            return
        async with self._redis.pipeline(transaction=False) as together:
            for minute, notes in minutes.items():
                key = name(self._place, minute)
                together.append(key, b"".join(notes))
                together.expire(key, self._retention_s)
            await together.execute()


@dataclass
class Gap:
    """What was seen at one place and not at the other, though both had the time.

    Attributes:
        ids: At most MOST_NAMED of them.
    """

    seen_at: Place
    not_at: Place
    count: int = 0
    ids: list[str] = field(default_factory=list)


@dataclass
class Lag:
    """How much later than at the first place events were seen at the second."""

    seen_at: Place
    then_at: Place
    p50_ms: int = 0
    p99_ms: int = 0


@dataclass
class Comparison:
    """Two queues, side by side.

    Attributes:
        since_ms: The first minute looked at, Unix ms.
        until_ms: The end of the last one.
        counts: Different events seen at each place.
        gaps: Only where something is missing.
        lags: Where something was seen at both.
    """

    since_ms: int
    until_ms: int
    counts: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(Place, 0))
    gaps: list[Gap] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)


async def compare(redis: Client, *, window_s: float, settle_s: float) -> Comparison:
    """Compare what was received lately.

    An event counts as missing at a place only when it has been seen at the other for `settle_s`. A place
    that has seen nothing at all of the window takes no part, as nobody writes there; but for copies in SQS,
    which are what the comparison is for.

    Args:
        redis: Where the notes are.
        window_s: How far back to look.
        settle_s: How much time each place has.

    Raises:
        REDIS_TROUBLE: Redis does not answer.
    """
    now_ms = round(time.time() * 1000)
    first, last = round(now_ms - window_s * 1000) // MINUTE_MS, now_ms // MINUTE_MS
    tally = _Tally(now_ms - round(settle_s * 1000))
    for minute in range(first, last + 1):
        notes: Any = await redis.mget([name(place, minute) for place in Place])
        if any(notes):
            # A busy minute takes a while, and the loop has webhooks to take.
            await asyncio.to_thread(tally.add, dict(zip(Place, notes, strict=True)))
    return Comparison(
        since_ms=first * MINUTE_MS,
        until_ms=now_ms,
        counts=tally.counts,
        gaps=[gap for pair, gap in tally.gaps.items() if gap.count and tally.is_expected(pair)],
        lags=[Lag(*pair, *_percentiles(lags)) for pair, lags in tally.lags.items() if lags],
    )


def name(place: Place, minute: int) -> str:
    """The key of a minute's notes, in the stream's slot."""
    return f"parity:{{webhook-events}}:{place}:{minute}"


def short(event_id: str) -> bytes:
    """16 bytes for an id: itself where it is a UUID."""
    try:
        return uuid.UUID(event_id).bytes
    except ValueError:
        return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


class _Tally:
    """Adds up minutes; what was seen after `settled_ms` is not missed anywhere yet."""

    def __init__(self, settled_ms: int) -> None:
        self._settled_ms = settled_ms
        self.counts = dict.fromkeys(Place, 0)
        self.gaps = {pair: Gap(*pair) for pair in EXPECTED}
        self.lags: dict[tuple[Place, Place], Counter[int]] = {pair: Counter() for pair in EXPECTED}

    def is_expected(self, pair: tuple[Place, Place]) -> bool:
        """Whether what was seen at the one of them had to be seen at the other."""
        return pair == EXPECTED[0] or bool(self.counts[pair[1]])

    def add(self, notes: Mapping[Place, bytes | None]) -> None:
        """One minute."""
        seen = {place: _earliest(note or b"") for place, note in notes.items()}
        for place, events in seen.items():
            self.counts[place] += len(events)
        for pair in EXPECTED:
            there, then = seen[pair[0]], seen[pair[1]]
            for event, seen_ms in there.items():
                if event not in then:
                    if seen_ms <= self._settled_ms:
                        self._miss(self.gaps[pair], event)
                elif then[event] >= seen_ms:
                    self.lags[pair][then[event] - seen_ms] += 1

    @staticmethod
    def _miss(gap: Gap, event: bytes) -> None:
        gap.count += 1
        if len(gap.ids) < MOST_NAMED:
            gap.ids.append(str(uuid.UUID(bytes=event)))


def _earliest(notes: bytes) -> dict[bytes, int]:
    """When each event was seen first. A note that is cut short is none."""
    seen: dict[bytes, int] = {}
    for event, seen_ms in NOTE.iter_unpack(notes[: len(notes) // NOTE.size * NOTE.size]):
        seen.setdefault(event, seen_ms)
    return seen


def _percentiles(lags: Counter[int]) -> tuple[int, int]:
    total, passed = lags.total(), 0
    found: list[int] = []
    for lag_ms in sorted(lags):
        passed += lags[lag_ms]
        while len(found) < 2 and passed >= (0.5, 0.99)[len(found)] * total:
            found.append(lag_ms)
    return found[0], found[1]
