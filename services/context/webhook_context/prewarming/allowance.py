"""How much may be done per minute."""

from __future__ import annotations

from collections.abc import Callable

MINUTE_S = 60.0


class Allowance:
    """Fills up evenly, to a minute's worth at most.

    Args:
        per_minute: How much.
        clock: Seconds, rising.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self._most = per_minute
        self._left = per_minute
        self._clock = clock
        self._filled_s = clock()

    def holds(self, amount: float) -> bool:
        """Whether so much is left; what is larger than a minute's worth never is."""
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._filled_s) * self._most / MINUTE_S)
        self._filled_s = now_s
        return amount <= self._left

    def spend(self, amount: float) -> None:
        """So much is used."""
        self._left -= amount
