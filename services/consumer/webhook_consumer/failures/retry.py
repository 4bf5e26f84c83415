"""When a failed entry is tried again, and when it is given up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from webhook_consumer.entry import Failure, Retry

# Beyond this many doublings every realistic base has met its cap.
MOST_DOUBLINGS = 30
# Tools beyond that share one budget: names in entries that are not ours must not fill the memory.
MOST_BUDGETS = 1000


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """How failures of one kind are tried again: exponential backoff with full jitter.

    Attributes:
        max_retries: Tries after the first one.
        base_s: The ceiling of the first delay, seconds; doubles with each failure...
        cap_s: ...up to this.
    """

    max_retries: int
    base_s: float
    cap_s: float


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What each kind of failure leads to.

    Attributes:
        max_retries: For kinds without terms of their own, as are the next two.
        base_s: See `RetryTerms`.
        cap_s: See `RetryTerms`.
        terms: By kind of failure.
    """

    max_retries: int
    base_s: float
    cap_s: float
    terms: Mapping[Failure, RetryTerms] = field(default_factory=dict)

    def delay_s(self, retry: Retry, failures: int, *, hurry: bool = True) -> float | None:
        """How long to wait, seconds; None where all tries are used up.

        Args:
            retry: The latest failure.
            failures: How many there have been, with this one; 1 or more.
            hurry: False where there have been too many retries lately: then it comes when the cap says.
        """
        terms = self.terms.get(retry.failure) or RetryTerms(self.max_retries, self.base_s, self.cap_s)
        if failures > terms.max_retries and not retry.patient:
            return None
        if hurry:
            ceiling = min(terms.cap_s, terms.base_s * 2.0 ** min(failures - 1, MOST_DOUBLINGS))
            delay_s = random.uniform(0, ceiling)  # noqa: S311  # spreads load; guards nothing
        else:
            delay_s = random.uniform(terms.cap_s / 2, terms.cap_s)  # noqa: S311  # the same
        if retry.after_s is None:
            return delay_s
        # Whoever was told when to come again comes a little later, not all at the same instant.
        return max(delay_s, retry.after_s + random.uniform(0, terms.base_s))  # noqa: S311  # the same


class RetryBudget:
    """Lets retries be a share of the work of a tool, so that failing work does not crowd out the rest.

    Counted in this process, over the window that is ending and the one before. As work is handed out at
    random, the share of each process is that of all.

    Args:
        share: Most retries per entry that was worked on lately.
        reserve: Retries that are allowed in any case.
        window_s: What counts as lately: up to twice this, seconds.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, share: float, reserve: int, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._reserve = reserve
        self._window_s = window_s
        self._clock = clock
        self._tries: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._retries: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self._turns = clock() + window_s

    def earn(self, tool: str, tries: int) -> None:
        """So many entries of a tool were worked on."""
        self._turn()
        _add(self._tries[0], tool, tries)

    def spend(self, tool: str) -> bool:
        """Whether an entry of the tool may come again as soon as it would."""
        self._turn()
        tries = sum(_count(window, tool) for window in self._tries)
        retries = sum(_count(window, tool) for window in self._retries)
        if retries >= self._reserve + self._share * tries:
            return False
        _add(self._retries[0], tool, 1)
        return True

    def _turn(self) -> None:
        now = self._clock()
        if now < self._turns:
            return
        stale = now >= self._turns + self._window_s
        self._tries = ({}, {} if stale else self._tries[0])
        self._retries = ({}, {} if stale else self._retries[0])
        self._turns = now + self._window_s


def _add(window: dict[str, int], tool: str, count: int) -> None:
    key = tool if tool in window or len(window) < MOST_BUDGETS else ""
    window[key] = window.get(key, 0) + count


def _count(window: dict[str, int], tool: str) -> int:
    return window.get(tool, window.get("", 0) if len(window) >= MOST_BUDGETS else 0)
