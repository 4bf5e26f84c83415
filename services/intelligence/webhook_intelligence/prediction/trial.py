"""What pre-warming would change, tried on names alone: hot tiers with predictions beside one without.

All of them hold as many contexts for as long. The plain one is an LRU. A warmed one has a waiting room for
predictions, at the cold end: a context that is used moves in among the others, one that is not goes first.
Nothing is stored here but names, so the trial runs all the time, also in shadow mode.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

# The waiting room takes this share of a tier at most, and nothing while nobody is predicted.
WAITING_SHARE = 0.2


class Effect(StrEnum):
    """What became of a use."""

    HIT = "hit"  # hot with and without
    SAVED = "saved"  # hot only thanks to a prediction
    MISSED = "missed"  # hot in neither
    POLLUTED = "polluted"  # hot but for a prediction


@dataclass(frozen=True)
class Size:
    """What a hot tier holds: so many contexts, each for so long after a use (0: while it fits)."""

    contexts: int
    hot_s: float = 0.0


class PlainTier:
    """A hot tier without predictions."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._used: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, context_id: str) -> bool:
        return context_id in self._used

    def __len__(self) -> int:
        return len(self._used)

    def use(self, context_id: str, at_s: float) -> bool:
        """Whether a context that is used now was hot; it is hot after that."""
        hot_s = self._size.hot_s
        last_s = self._used.pop(context_id, None)
        self._used[context_id] = at_s
        if len(self._used) > self._size.contexts:
            self.evict()
        return last_s is not None and (not hot_s or at_s - last_s < hot_s)

    def is_hot(self, context_id: str, at_s: float) -> bool:
        """Whether it would be."""
        last_s = self._used.get(context_id)
        return last_s is not None and (not self._size.hot_s or at_s - last_s < self._size.hot_s)

    def evict(self) -> None:
        """The one that was not used for longest goes."""
        self._used.popitem(last=False)

    def forget(self, context_id: str) -> None:
        """It is no more."""
        self._used.pop(context_id, None)


class WarmedTier:
    """A hot tier with predictions.

    Attributes:
        admitted: How many contexts were warmed.
        used_after: How many of them were used before they had to go.
    """

    def __init__(self, size: Size) -> None:
        self._contexts = size.contexts
        self._waiting_most = max(1, int(size.contexts * WAITING_SHARE))
        self._main = PlainTier(size)
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self.admitted = 0
        self.used_after = 0

    def __len__(self) -> int:
        return len(self._main) + len(self._waiting)

    def use(self, context_id: str, at_s: float) -> bool:
        """Whether a context that is used now was hot; it is hot after that."""
        waited = context_id in self._waiting
        if waited:
            del self._waiting[context_id]
            self.used_after += 1
        was_hot = self._main.use(context_id, at_s)
        surplus = len(self) - self._contexts
        while surplus > 0:
            if len(self._main) > self._contexts - self._waiting_most:
                self._main.evict()
            else:
                self._waiting.popitem(last=False)
            surplus -= 1
        return was_hot or waited

    def admit(self, context_id: str, at_s: float) -> None:
        """Warm a predicted context, unless it is hot already."""
        if context_id in self._waiting or self._main.is_hot(context_id, at_s):
            return
        self.admitted += 1
        self._waiting[context_id] = None
        if len(self._waiting) > self._waiting_most:
            self._waiting.popitem(last=False)
        elif len(self) > self._contexts:
            self._main.evict()

    def withdraw(self, context_id: str) -> None:
        """The prediction was wrong: its place is free."""
        self._waiting.pop(context_id, None)

    def forget(self, context_id: str) -> None:
        """It is no more."""
        self._main.forget(context_id)
        self.withdraw(context_id)


def effect(*, plain: bool, warmed: bool) -> Effect:
    """What became of a use that was hot in the one tier or the other."""
    if plain:
        return Effect.HIT if warmed else Effect.POLLUTED
    return Effect.SAVED if warmed else Effect.MISSED
