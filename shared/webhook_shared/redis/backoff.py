"""Waiting before another try."""

from __future__ import annotations

import asyncio
import random


class Backoff:
    """Exponential waiting with full jitter, for loops that heal themselves."""

    def __init__(self, *, base_s: float = 0.05, cap_s: float = 5.0) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._failures = 0

    def next_delay_s(self) -> float:
        """Count one more failure and say how long to wait, seconds."""
        ceiling = min(self._cap_s, self._base_s * 2**self._failures)
        self._failures = min(self._failures + 1, 30)
        return random.uniform(0, ceiling)  # noqa: S311  # spreads load; guards nothing

    async def wait(self) -> None:
        """Wait as long as `next_delay_s` says."""
        await asyncio.sleep(self.next_delay_s())

    def reset(self) -> None:
        """All is well again."""
        self._failures = 0
