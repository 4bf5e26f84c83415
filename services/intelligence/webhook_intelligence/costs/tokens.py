"""How far estimated tokens are from what providers bill."""

from __future__ import annotations

import math
from collections.abc import Mapping

from webhook_shared.tokens import estimate, pieces

from webhook_intelligence.costs.prices import Usage

__all__ = ["Calibration", "estimate", "pieces"]

# How fast a factor follows what providers bill, and how far it may go.
LEARNING_RATE = 0.1
LEAST_FACTOR, MOST_FACTOR = 0.2, 5.0


class Calibration:
    """By how much estimates are off, by model: learned from what providers bill."""

    def __init__(self) -> None:
        self._factors: dict[str, float] = {}
        self._changed: set[str] = set()

    def expected(self, model: str, estimated: Usage) -> Usage:
        """An estimate, put right."""
        return Usage(
            math.ceil(estimated.input_tokens * self._factors.get(f"in|{model}", 1.0)),
            math.ceil(estimated.output_tokens * self._factors.get(f"out|{model}", 1.0)),
        )

    def learn(self, model: str, estimated: Usage, billed: Usage) -> None:
        """A call was billed."""
        for name, expected, real in (
            (f"in|{model}", estimated.input_tokens, billed.input_tokens),
            (f"out|{model}", estimated.output_tokens, billed.output_tokens),
        ):
            if expected > 0 and real > 0:
                ratio = min(MOST_FACTOR, max(LEAST_FACTOR, real / expected))
                self._factors[name] = (1 - LEARNING_RATE) * self._factors.get(
                    name, 1.0
                ) + LEARNING_RATE * ratio
                self._changed.add(name)

    def take_changed(self) -> dict[str, float]:
        """The factors that have changed since this was asked last."""
        changed, self._changed = self._changed, set()
        return {name: self._factors[name] for name in changed}

    def restore(self, stored: Mapping[str, str]) -> None:
        """Go on from what was learned before; what is no factor is passed over."""
        for name, value in stored.items():
            try:
                factor = float(value)
            except ValueError:
                continue
            if LEAST_FACTOR <= factor <= MOST_FACTOR and name not in self._factors:
                self._factors[name] = factor
