"""Why a context may be needed next: three rules, each learning by itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Protocol

from webhook_intelligence.prediction.followers import Followers
from webhook_intelligence.prediction.observations import Observation, Recent

Candidate = tuple[str, float]
"""A context, and how likely it is to be used within the lookback window."""

MOST_SESSIONS = 32
MOST_ACTORS = 1024
MOST_LINKED = 2048
MOST_NEIGHBOURS = 16
MOST_OPEN = 4096
MOST_KIND_PAIRS = 1024
# Of each pair of kinds so many tries are remembered; older ones fade.
MEMORY_TRIES = 200.0


class Rule(Protocol):
    """One way to predict."""

    name: str

    def __len__(self) -> int:
        """How many contexts it remembers something about."""

    def learn(self, use: Observation, recent: Recent) -> None:
        """A context is used. `recent` does not hold this use yet."""

    def candidates(self, context_id: str) -> Iterator[Candidate]:
        """What may follow a context, in no order."""

    def forget(self, context_id: str) -> None:
        """A context is no more."""

    def state(self) -> Any:
        """What is learned, as JSON has it."""

    def restore(self, state: Any) -> None:
        """The opposite of `state`; raises what malformed data raises."""


class Links:
    """What is tied to a context: its issue, its commit, its run. Exact, so it comes first.

    How likely a neighbour is to be used is learned by the kinds of the two: after a pull request its issue
    may often be read, after an issue its milestone never.
    """

    name = "links"

    def __init__(self, lookback_s: float) -> None:
        self._lookback_s = lookback_s
        self._neighbours: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        # Pair of kinds to (uses, tries); a neighbour that is tried, until when and for which pair.
        self._pairs: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._open: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._neighbours)

    def learn(self, use: Observation, recent: Recent) -> None:
        """Note its links; count whether those of what came before were of use."""
        for link in use.links:
            if link != use.context_id:
                self._join(use.context_id, link)
                self._join(link, use.context_id)
        self._expire(use.at_s)
        tried = self._open.pop(use.context_id, None)
        if tried is not None:
            self._count(tried[1], used=1.0)
        if use.context_id in recent:
            return
        for neighbour in self._neighbours.get(use.context_id, ()):
            if neighbour not in recent and neighbour not in self._open:
                pair = _pair(use.context_id, neighbour)
                self._count(pair, tried=1.0)
                self._open[neighbour] = (use.at_s + self._lookback_s, pair)

    def candidates(self, context_id: str) -> Iterator[Candidate]:
        """Its neighbours."""
        for neighbour in self._neighbours.get(context_id, ()):
            used, tried = self._pairs.get(_pair(context_id, neighbour), (0.0, 0.0))
            yield neighbour, (used + 1.0) / (tried + 2.0)

    def forget(self, context_id: str) -> None:
        """It is no more."""
        for neighbour in self._neighbours.pop(context_id, ()):
            self._neighbours.get(neighbour, OrderedDict()).pop(context_id, None)
        self._open.pop(context_id, None)

    def state(self) -> Any:
        """Neighbours and pairs."""
        return {
            "neighbours": [[name, list(known)] for name, known in self._neighbours.items()],
            "pairs": [[pair, round(used, 3), round(tried, 3)] for pair, (used, tried) in self._pairs.items()],
        }

    def restore(self, state: Any) -> None:
        """See `Rule`."""
        self._neighbours = OrderedDict(
            (str(name), OrderedDict((str(one), None) for one in known)) for name, known in state["neighbours"]
        )
        self._pairs = OrderedDict((str(p), (float(used), float(tried))) for p, used, tried in state["pairs"])

    def _join(self, one: str, other: str) -> None:
        known = self._neighbours.get(one)
        if known is None:
            if len(self._neighbours) >= MOST_LINKED:
                self._neighbours.popitem(last=False)
            known = self._neighbours[one] = OrderedDict()
        else:
            self._neighbours.move_to_end(one)
        known[other] = None
        known.move_to_end(other)
        if len(known) > MOST_NEIGHBOURS:
            known.popitem(last=False)

    def _count(self, pair: str, *, used: float = 0.0, tried: float = 0.0) -> None:
        uses, tries = self._pairs.pop(pair, (0.0, 0.0))
        if tries >= MEMORY_TRIES:
            uses, tries = uses * (1 - 1 / MEMORY_TRIES), tries * (1 - 1 / MEMORY_TRIES)
        self._pairs[pair] = (min(uses + used, tries + tried), tries + tried)
        if len(self._pairs) > MOST_KIND_PAIRS:
            self._pairs.popitem(last=False)

    def _expire(self, at_s: float) -> None:
        while self._open:
            oldest = next(iter(self._open))
            if self._open[oldest][0] > at_s and len(self._open) <= MOST_OPEN:
                return
            del self._open[oldest]


class Association:
    """What is used together with a context, in whatever order, within the lookback window."""

    name = "association"

    def __init__(self, lookback_s: float) -> None:
        self._lookback_s = lookback_s
        self._followers = Followers()
        # The contexts whose window is open: since when, and who has come within it.
        self._sessions: OrderedDict[str, tuple[float, set[str]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._followers)

    def learn(self, use: Observation, recent: Recent) -> None:
        """Count it once for each open window."""
        context_id = use.context_id
        while self._sessions:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest][0] + self._lookback_s > use.at_s:
                break
            del self._sessions[oldest]
        for antecedent, (_, seen) in self._sessions.items():
            if context_id not in seen and antecedent != context_id:
                seen.add(context_id)
                self._followers.follow(antecedent, context_id)
        if context_id not in self._sessions:
            if len(self._sessions) >= MOST_SESSIONS:
                self._sessions.popitem(last=False)
            self._sessions[context_id] = (use.at_s, set())
            self._followers.begin(context_id, use.at_s)

    def candidates(self, context_id: str) -> Iterator[Candidate]:
        """What has come in its windows."""
        return self._followers.after(context_id)

    def forget(self, context_id: str) -> None:
        """It is no more."""
        self._sessions.pop(context_id, None)
        self._followers.forget(context_id)

    def state(self) -> Any:
        """The counts."""
        return self._followers.state()

    def restore(self, state: Any) -> None:
        """See `Rule`."""
        self._followers.restore(state)


class Succession:
    """What the same actor used next: a Markov chain of the first order."""

    name = "succession"

    def __init__(self) -> None:
        self._followers = Followers()
        self._last: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._followers)

    def learn(self, use: Observation, recent: Recent) -> None:
        """Count one step of its actor."""
        before = self._last.pop(use.actor, None)
        self._last[use.actor] = use.context_id
        if len(self._last) > MOST_ACTORS:
            self._last.popitem(last=False)
        if before is not None and before != use.context_id:
            self._followers.begin(before, use.at_s)
            self._followers.follow(before, use.context_id)

    def candidates(self, context_id: str) -> Iterator[Candidate]:
        """What has come next."""
        return self._followers.after(context_id)

    def forget(self, context_id: str) -> None:
        """It is no more."""
        self._followers.forget(context_id)
        for actor in [actor for actor, last in self._last.items() if last == context_id]:
            del self._last[actor]

    def state(self) -> Any:
        """The counts."""
        return self._followers.state()

    def restore(self, state: Any) -> None:
        """See `Rule`."""
        self._followers.restore(state)


def _pair(one: str, other: str) -> str:
    return f"{_kind(one)}>{_kind(other)}"


def _kind(context_id: str) -> str:
    """Of "github:octo/hello:pull_request:42" the tool and the kind."""
    parts = context_id.split(":")
    return f"{parts[0]}:{parts[-2]}" if len(parts) > 2 else parts[0]
