"""Whether a rule of prediction pays, measured on itself."""

from __future__ import annotations

import math
from typing import Any

from webhook_intelligence.prediction.trial import Effect

# One-sided doubt of 5 %: the precision must be beyond that to count as above or below break-even.
DOUBT_Z = 1.645
# What is saved must stand out of chance by so many standard deviations. It is looked at with every use, and
# whoever looks often enough sees two by chance.
GAIN_Z = 3.0
# So many settled predictions, and so many uses that they changed, are remembered; older ones fade.
MEMORY = 500.0


class Verdict:
    """The record of one rule, and whether it is on.

    A rule begins off. It goes on when beyond doubt more of its predictions come true than break-even asks
    for, and beyond doubt they save uses, more than twice as many as they spoil. It goes off when either is
    no longer so, beyond doubt in the case of the first. On or off, it is measured alike: each rule has a
    tier of its own in the trial.
    """

    def __init__(self, break_even: float) -> None:
        self.break_even = break_even
        self.on = False
        self.hits = 0.0
        self.wasted = 0.0
        self.saved = 0.0
        self.polluted = 0.0

    @property
    def settled(self) -> float:
        """How many predictions the precision rests on."""
        return self.hits + self.wasted

    @property
    def precision(self) -> float:
        """Share of predictions that were used in time; 0 where nothing is known."""
        return self.hits / self.settled if self.settled else 0.0

    def settle(self, *, used: bool) -> None:
        """A prediction has come true, or has not."""
        if self.settled >= MEMORY:
            self.hits *= 1 - 1 / MEMORY
            self.wasted *= 1 - 1 / MEMORY
        if used:
            self.hits += 1
        else:
            self.wasted += 1
        self._judge()

    def affect(self, effect: Effect) -> None:
        """What became of a use in the tier of this rule."""
        if effect not in {Effect.SAVED, Effect.POLLUTED}:
            return
        if self.saved + self.polluted >= MEMORY:
            self.saved *= 1 - 1 / MEMORY
            self.polluted *= 1 - 1 / MEMORY
        if effect is Effect.SAVED:
            self.saved += 1
        else:
            self.polluted += 1
        self._judge()

    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"on": self.on, **{name: round(getattr(self, name), 3) for name in _COUNTS}}

    def restore(self, state: Any) -> None:
        """The opposite of `state`; raises what malformed data raises."""
        counts = {name: float(state[name]) for name in _COUNTS}
        self.on = bool(state["on"])
        self.__dict__.update(counts)

    def _judge(self) -> None:
        if not self.settled:
            return
        low, high = _precision_between(self.hits, self.settled)
        # Pollution below lift, where lift is what is saved less what is polluted.
        gain = self.saved - self.polluted
        pays = gain > self.polluted
        if self.on:
            self.on = high >= self.break_even and pays
        else:
            is_chance = gain <= GAIN_Z * math.sqrt(self.saved + self.polluted)
            self.on = low >= self.break_even and pays and not is_chance


_COUNTS = ("hits", "wasted", "saved", "polluted")


def _precision_between(hits: float, settled: float) -> tuple[float, float]:
    """Wilson's interval."""
    z2 = DOUBT_Z * DOUBT_Z
    share = hits / settled
    middle = share + z2 / (2 * settled)
    spread = DOUBT_Z * math.sqrt(share * (1 - share) / settled + z2 / (4 * settled * settled))
    return (middle - spread) / (1 + z2 / settled), (middle + spread) / (1 + z2 / settled)
