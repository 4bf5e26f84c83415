"""What prediction learns from: who touched which context when."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

CONTEXT_ID_CHARS = 512
ACTOR_CHARS = 128
MOST_LINKS = 64


class ObservationKind(StrEnum):
    """What happened to a context."""

    EVENT = "event"
    ACCESS = "access"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Observation:
    """One touch of one context.

    Attributes:
        at_s: Unix time.
        kind: What it was.
        context_id: "github:octo/hello:pull_request:42".
        actor: Who it was; empty where nobody is known.
        links: Contexts that this one is tied to.
    """

    at_s: float
    kind: ObservationKind
    context_id: str
    actor: str = ""
    links: tuple[str, ...] = ()


class Recent:
    """The contexts that were in use within a time, at most so many of them."""

    def __init__(self, lookback_s: float, most: int) -> None:
        self._lookback_s = lookback_s
        self._most = most
        self._used: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, context_id: str) -> bool:
        return context_id in self._used

    def newest(self, count: int) -> list[str]:
        """The last ones, newest first."""
        found: list[str] = []
        for context_id in reversed(self._used):
            if len(found) == count:
                break
            found.append(context_id)
        return found

    def expire(self, at_s: float) -> None:
        """Forget what is too long ago."""
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] + self._lookback_s > at_s and len(self._used) <= self._most:
                return
            del self._used[oldest]

    def saw(self, context_id: str, at_s: float) -> None:
        """It is in use."""
        self._used[context_id] = at_s
        self._used.move_to_end(context_id)

    def forget(self, context_ids: Iterable[str]) -> None:
        """They are no more."""
        for context_id in context_ids:
            self._used.pop(context_id, None)
