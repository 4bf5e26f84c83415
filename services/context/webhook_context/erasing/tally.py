"""What an erasure has found, erased and left, place by place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

STAYS = frozenset({"SHARED", "NOT_SEARCHABLE", "IN_USE", "UNDECODABLE"})
"""Why something stays that another run would not erase either."""


class Count(NamedTuple):
    """Of one place.

    Attributes:
        found: Erased or left; in a dry run what would be erased.
        reason: Why some is left; empty where none is.
    """

    place: str
    found: int
    erased: int
    left: int = 0
    reason: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether another run would find nothing to do."""
        return not self.reason or self.reason in STAYS


@dataclass(slots=True)
class _Sum:
    before: int = 0
    found: int = 0
    erased: int = 0
    left: int = 0
    reason: str = ""


class Tally:
    """Counts by place over the passes of an erasure, those of runs that were cut short included."""

    def __init__(self, erased: dict[str, int] | None = None) -> None:
        self._sums = {place: _Sum(before=count) for place, count in (erased or {}).items()}
        self._changed: set[str] = set(self._sums)

    @classmethod
    def read(cls, written: bytes | None) -> Tally:
        """What `written` told."""
        return cls(json.loads(written) if written else None)

    def written(self) -> str:
        """What has been erased so far."""
        erased = {place: each.before + each.erased for place, each in self._sums.items()}
        return json.dumps({place: count for place, count in erased.items() if count})

    def begin_pass(self) -> None:
        """Look once more: what was left may go now."""
        self._sums = {
            place: _Sum(before=each.before + each.erased)
            for place, each in self._sums.items()
            if each.before + each.erased or not each.reason
        }

    def erased(self, place: str, count: int = 1, *, dry_run: bool = False) -> None:
        """Some was found and is gone, or in a dry run would be."""
        each = self._of(place)
        each.found += count
        if not dry_run:
            each.erased += count

    def left(self, place: str, reason: str, count: int = 0) -> None:
        """Some was found and stays, or it is not known whether there is some."""
        each = self._of(place)
        each.found += count
        each.left += count
        if not each.reason or each.reason in STAYS:
            each.reason = reason

    def told(self, count: Count) -> None:
        """What another service tells of its place, all of this pass."""
        each = self._of(count.place)
        each.found, each.erased, each.left, each.reason = count.found, count.erased, count.left, count.reason

    def _of(self, place: str) -> _Sum:
        self._changed.add(place)
        return self._sums.setdefault(place, _Sum())

    def changes(self) -> list[Count]:
        """Those that have changed since this was last asked, by name."""
        changed, self._changed = self._changed, set()
        return [count for count in self.counts() if count.place in changed]

    def counts(self) -> list[Count]:
        """All, by name."""
        return [
            Count(place, each.before + each.found, each.before + each.erased, each.left, each.reason)
            for place, each in sorted(self._sums.items())
        ]

    @property
    def is_complete(self) -> bool:
        """Whether every place has been reached, and nothing is left that another run would erase."""
        return all(count.is_settled for count in self.counts())
