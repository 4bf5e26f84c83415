"""How many calls a provider takes at once: found out by asking, not configured.

Additive increase, multiplicative decrease, as in TCP: each round of answers allows one call more, a
provider that limits our rate halves what is allowed, and until its Retry-After has passed nobody asks it
anything.
"""

from __future__ import annotations

import asyncio

#: After a cut the answers of calls that were already under way say nothing new.
SETTLING_S = 1.0


class Pace:
    """The calls under way that one model allows, shared by all that call it from this process."""

    def __init__(self, *, first: int, most: int, kept_for_queries: int = 0) -> None:
        """Begin carefully.

        Args:
            first: Calls at once to begin with.
            most: Calls at once that are never exceeded; the same as `first`: nothing is found out.
            kept_for_queries: How many of these only queries may use, at least.
        """
        self._allowed = float(first)
        self._most = most
        self._kept_for_queries = kept_for_queries
        self._held_until = 0.0
        self._cut_at = float("-inf")

    @property
    def allowed(self) -> int:
        """How many calls may be under way."""
        return max(1, int(self._allowed))

    @property
    def kept_for_queries(self) -> int:
        """How many of these only queries may use, so that bulk work never makes them wait for a call."""
        return max(self._kept_for_queries, self.allowed // 4)

    def answered(self) -> None:
        """A call was answered."""
        self._allowed = min(float(self._most), self._allowed + 1 / self._allowed)

    def limited(self, wait_s: float) -> None:
        """A call was refused for its rate.

        Args:
            wait_s: How long the provider asks us to stay away; 0 where it does not say.
        """
        now = _now()
        self._held_until = max(self._held_until, now + wait_s)
        if now - self._cut_at >= SETTLING_S:
            self._cut_at = now
            self._allowed = max(1.0, self._allowed / 2)

    @property
    def held_s(self) -> float:
        """How long nobody may ask, seconds."""
        return max(0.0, self._held_until - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
