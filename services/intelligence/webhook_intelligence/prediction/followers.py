"""What follows what: counts that fade, in bounded memory.

For each antecedent: how often it began something, and how often each of its followers came then. Only the
antecedents that were seen last and the followers that come most often are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

MOST_ANTECEDENTS = 2048
MOST_FOLLOWERS = 12
HALF_LIFE_S = 14 * 86_400.0
# Fading by less than this is not worth the arithmetic.
FADE_EVERY_S = 3_600.0
# Seen once together is chance.
LEAST_SUPPORT = 1.5
# A count that has faded so far is as good as none.
_FORGOTTEN = 0.05


class _Entry:
    __slots__ = ("began", "counts", "faded_s")

    def __init__(self, began: float, faded_s: float, counts: dict[str, float]) -> None:
        self.began = began
        self.faded_s = faded_s
        self.counts = counts


class Followers:
    """The table."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, antecedent: str, at_s: float) -> None:
        """The antecedent came once more; whatever follows is counted against this."""
        entry = self._entries.get(antecedent)
        if entry is None:
            if len(self._entries) >= MOST_ANTECEDENTS:
                self._entries.popitem(last=False)
            self._entries[antecedent] = _Entry(1.0, at_s, {})
            return
        self._entries.move_to_end(antecedent)
        if at_s - entry.faded_s >= FADE_EVERY_S:
            _fade(entry, at_s)
        entry.began += 1.0

    def follow(self, antecedent: str, follower: str) -> None:
        """The follower came after it; at most once for each time that the antecedent began."""
        entry = self._entries.get(antecedent)
        if entry is None:
            return
        counts = entry.counts
        if follower not in counts and len(counts) >= MOST_FOLLOWERS:
            del counts[min(counts, key=counts.__getitem__)]
        counts[follower] = counts.get(follower, 0.0) + 1.0

    def after(self, antecedent: str) -> Iterator[tuple[str, float]]:
        """Each follower with support, and the share of times that it came."""
        entry = self._entries.get(antecedent)
        if entry is not None:
            for follower, count in entry.counts.items():
                if count >= LEAST_SUPPORT:
                    yield follower, min(1.0, count / entry.began)

    def forget(self, context_id: str) -> None:
        """It is no more: neither before nor after anything."""
        self._entries.pop(context_id, None)
        for entry in self._entries.values():
            entry.counts.pop(context_id, None)

    def state(self) -> list[Any]:
        """All of it as JSON has it, antecedents from the least recent."""
        return [
            [name, round(entry.began, 3), int(entry.faded_s), _rounded(entry.counts)]
            for name, entry in self._entries.items()
        ]

    def restore(self, state: list[Any]) -> None:
        """The opposite of `state`; raises what malformed data raises."""
        self._entries = OrderedDict(
            (str(name), _Entry(float(began), float(faded_s), {str(k): float(v) for k, v in counts.items()}))
            for name, began, faded_s, counts in state
        )


def _fade(entry: _Entry, at_s: float) -> None:
    share = 0.5 ** ((at_s - entry.faded_s) / HALF_LIFE_S)
    entry.began *= share
    entry.faded_s = at_s
    entry.counts = {
        name: count * share for name, count in entry.counts.items() if count * share >= _FORGOTTEN
    }


def _rounded(counts: dict[str, float]) -> dict[str, float]:
    return {name: round(count, 3) for name, count in counts.items()}
