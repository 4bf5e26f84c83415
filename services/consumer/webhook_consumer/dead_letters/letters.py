"""Reading what was given up."""

from __future__ import annotations

import base64
import heapq
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from webhook_shared.redis import Client, Script

from webhook_consumer.entry import Entry
from webhook_consumer.queue.redis import Lane, fields_of

NEWEST = "+"
# How many entries one call looks at, whatever the filter leaves of them.
MOST_SCANNED = 1000
# The most that are looked at to count them, per stage.
MOST_COUNTED = 100_000
_ID = re.compile(r"(?:(?P<lane>[a-z]+(?:-\d+)?):)?(?P<id>\d{1,20}-\d{1,20})")


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters; what is empty matches all.

    Attributes:
        stage: "events" or "enrichment".
        tool: As `Entry.tool`.
        tenant: As in the entry.
        cause: As in `Cause`.
        fingerprint: As `webhook_consumer.dead_letters.fingerprint` makes them.
    """

    stage: str = ""
    tool: str = ""
    tenant: str = ""
    cause: str = ""
    fingerprint: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it matches all."""
        return self == LetterFilter()

    @property
    def arguments(self) -> list[str]:
        """As the scripts take them; the stage chooses the stream."""
        return [self.tool, self.tenant, self.cause, self.fingerprint]


ALL_LETTERS = LetterFilter()


@dataclass(frozen=True, slots=True)
class Letter:
    """Where a dead letter is; it may be gone by now."""

    lane: Lane
    id: str


@dataclass(frozen=True, slots=True)
class LetterCount:
    """Dead letters that died of the same thing; times are Unix ms."""

    stage: str
    fingerprint: str
    tool: str
    cause: str
    detail: str
    count: int
    newest_ms: int
    oldest_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One entry that was given up, and the stage that did."""

    lane: Lane
    entry: Entry


@dataclass(frozen=True, slots=True)
class Page:
    """Some dead letters, newest first; `token` is empty at the end."""

    letters: list[DeadLetter]
    token: str


class DeadLetters:
    """The dead letters of all stages as one list.

    Args:
        client: Where they are.
        lanes: The stages, partition by partition; more may come. Letters of the first one are named by
            their stream id alone, those of the others by the lane's name and the id.
    """

    def __init__(self, client: Client, lanes: Sequence[Lane]) -> None:
        self._client = client
        self._all = lanes
        self._default = lanes[0]
        self._page, self._ids, self._counts = (
            _filtered(name) for name in ("dead_letters", "letter_ids", "letter_counts")
        )

    @property
    def _lanes(self) -> dict[str, Lane]:
        return {lane.name: lane for lane in self._all}

    def name(self, letter: DeadLetter) -> str:
        """The id that `find` takes."""
        entry_id = letter.entry.id.decode()
        return entry_id if letter.lane == self._default else f"{letter.lane.name}:{entry_id}"

    async def page(self, size: int, token: str, which: LetterFilter = ALL_LETTERS) -> Page:
        """At most `size` dead letters, without their sealed bodies.

        A page may be short, even empty, with more to come: a filter is applied to so many entries per call.

        Raises:
            ValueError: The token is not one of ours.
        """
        positions = self._positions(token)
        found: dict[str, list[DeadLetter]] = {}
        further: dict[str, str] = {}
        for stage, position in positions.items():
            lane = self._lanes[stage]
            reply = await self._page(
                self._client, [lane.dead_letters], [*which.arguments, position, MOST_SCANNED, size]
            )
            further[stage] = reply[0].decode()
            found[stage] = [
                DeadLetter(lane, Entry(reply[at], fields_of(reply[at + 1]))) for at in range(1, len(reply), 2)
            ]
        merged = list(heapq.merge(*found.values(), key=_age, reverse=True))
        # Beyond a stage's last look, unseen letters may be newer than what another stage has to show.
        horizon = max((_parsed(where) for where in further.values() if where), default=(0, 0))
        ready = [letter for letter in merged if _age(letter) >= horizon]
        letters = ready[:size]
        return Page(letters, self._token(positions, found, further, letters))

    def locate(self, name: str) -> Letter | None:
        """Where a dead letter of this name would be; None where no name looks so."""
        match = _ID.fullmatch(name)
        lane = self._lanes.get(match["lane"] or self._default.name) if match else None
        return Letter(lane, match["id"]) if match and lane else None

    async def find(self, name: str) -> DeadLetter | None:
        """One of them, with its sealed body."""
        letter = self.locate(name)
        return await self.read(letter) if letter else None

    async def read(self, letter: Letter) -> DeadLetter | None:
        """The same, by where it is."""
        rows: Any = await self._client.xrange(letter.lane.dead_letters, letter.id, letter.id)
        return DeadLetter(letter.lane, Entry(*rows[0])) if rows else None

    async def matching(self, which: LetterFilter) -> AsyncIterator[Letter]:
        """Those that match and were there when this was called; oldest first, stage by stage."""
        ends = {lane.name: await self._newest(lane) for lane in self._lanes_of(which)}
        for stage, end in ends.items():
            lane, position = self._lanes[stage], "-"
            while end and position:
                position, *ids = map(
                    bytes.decode,
                    await self._ids(
                        self._client, [lane.dead_letters], [*which.arguments, position, end, MOST_SCANNED]
                    ),
                )
                for entry_id in ids:
                    yield Letter(lane, entry_id)

    async def _newest(self, lane: Lane) -> str:
        rows: Any = await self._client.xrevrange(lane.dead_letters, count=1)
        return rows[0][0].decode() if rows else ""

    async def counts(self, which: LetterFilter, most: int = MOST_COUNTED) -> tuple[list[LetterCount], bool]:
        """How many died of what, the most frequent first; and whether there are more than were looked at."""
        kinds: dict[tuple[str, str, str, str], LetterCount] = {}
        truncated = False
        for lane in self._lanes_of(which):
            position, left = NEWEST, most
            while position and left > 0:
                told, looked, *rows = await self._counts(
                    self._client, [lane.dead_letters], [*which.arguments, position, min(left, MOST_SCANNED)]
                )
                position, left = told.decode(), left - looked
                for at in range(0, len(rows), 7):
                    _add(kinds, _count(lane.stage, rows[at : at + 7]))
            truncated = truncated or bool(position)
        return sorted(kinds.values(), key=lambda kind: -kind.count), truncated

    def _lanes_of(self, which: LetterFilter) -> list[Lane]:
        return [lane for lane in self._lanes.values() if which.stage in ("", lane.stage)]

    def _positions(self, token: str) -> Mapping[str, str]:
        if not token:
            return dict.fromkeys(self._lanes, NEWEST)
        try:
            positions = orjson.loads(base64.urlsafe_b64decode(token.encode()))
        except ValueError:
            raise ValueError("not a page token of this list") from None
        if not isinstance(positions, dict) or not all(
            stage in self._lanes and isinstance(where, str) and (where == NEWEST or _ID.fullmatch(where[1:]))
            for stage, where in positions.items()
        ):
            raise ValueError("not a page token of this list")
        return positions

    def _token(
        self,
        positions: Mapping[str, str],
        found: Mapping[str, Sequence[DeadLetter]],
        further: Mapping[str, str],
        shown: Sequence[DeadLetter],
    ) -> str:
        seen = {self.name(letter) for letter in shown}
        following: dict[str, str] = {}
        for stage, letters in found.items():
            unseen = [letter for letter in letters if self.name(letter) not in seen]
            if not unseen:
                if further[stage]:
                    following[stage] = further[stage]
                continue
            before = [letter for letter in letters if self.name(letter) in seen]
            following[stage] = f"({before[-1].entry.id.decode()}" if before else positions[stage]
        return base64.urlsafe_b64encode(orjson.dumps(following)).decode() if following else ""


def _age(letter: DeadLetter) -> tuple[int, int]:
    return _parsed(letter.entry.id.decode())


def _parsed(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.lstrip("(").partition("-")
    return int(milliseconds), int(sequence)


def _count(stage: str, row: Sequence[Any]) -> LetterCount:
    fingerprint, tool, cause, detail = (bytes(value).decode(errors="replace") for value in row[:4])
    newest, oldest = (_parsed(bytes(value).decode())[0] for value in row[5:])
    return LetterCount(stage, fingerprint, tool, cause, detail, int(row[4]), newest, oldest)


def _add(kinds: dict[tuple[str, str, str, str], LetterCount], more: LetterCount) -> None:
    key = (more.stage, more.fingerprint, more.tool, more.cause)
    known = kinds.get(key)
    if known is not None:
        more = replace(
            more,
            detail=known.detail,
            count=known.count + more.count,
            newest_ms=max(known.newest_ms, more.newest_ms),
            oldest_ms=min(known.oldest_ms, more.oldest_ms),
        )
    kinds[key] = more


def _filtered(name: str) -> Script:
    return Script.load("webhook_consumer", "entry", "letter_filter", name)
