"""Reading what was given up."""

from __future__ import annotations

import base64
import heapq
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from webhook_shared.redis import Client, Script

from webhook_consumer.entry import Entry
from webhook_consumer.queue_redis import Lane, fields_of

NEWEST = "+"
# How many entries one call looks at, whatever the filter leaves of them.
MOST_SCANNED = 1000
_ID = re.compile(r"(?:(?P<stage>[a-z]+):)?(?P<id>\d{1,20}-\d{1,20})")


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
        lanes: The stages. Letters of the first one are named by their stream id alone, those of the
            others by stage and id.
    """

    def __init__(self, client: Client, lanes: Sequence[Lane]) -> None:
        self._client = client
        self._lanes = {lane.stage: lane for lane in lanes}
        self._default = lanes[0]
        self._script = Script.load("webhook_consumer", "dead_letters")

    def name(self, letter: DeadLetter) -> str:
        """The id that `find` takes."""
        entry_id = letter.entry.id.decode()
        return entry_id if letter.lane is self._default else f"{letter.lane.stage}:{entry_id}"

    async def page(self, size: int, token: str, *, tool: str = "", tenant: str = "") -> Page:
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
            reply = await self._script(
                self._client, [lane.dead_letters], [position, MOST_SCANNED, size, tool, tenant]
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

    async def find(self, name: str) -> DeadLetter | None:
        """One of them, with its sealed body."""
        match = _ID.fullmatch(name)
        lane = self._lanes.get(match["stage"] or self._default.stage) if match else None
        if match is None or lane is None:
            return None
        rows: Any = await self._client.xrange(lane.dead_letters, match["id"], match["id"])
        return DeadLetter(lane, Entry(*rows[0])) if rows else None

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
