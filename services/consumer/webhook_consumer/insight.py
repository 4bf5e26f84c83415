"""What is read of a context in order to understand it, and what is understood of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Happening:
    """One event of a context. `occurred_ns` is Unix time, None where the sender gave none."""

    event_id: str
    action: str
    actor: str
    text: str
    occurred_ns: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """A context as it was read.

    Attributes:
        tenant: Its tenant.
        context_id: Its id.
        kind: "pull_request", "message"...
        title: As the sender gave it.
        summary: So far.
        event_count: Over its whole life.
        covered_event_count: Of these, how many were there when it was understood last.
        covered_event_id: The last one that the summary covers.
        happenings: The newest events, in the order of arrival.
        etag: Of this very state.
        links: The contexts that it is tied to.
    """

    tenant: str
    context_id: str
    kind: str
    title: str
    summary: str
    event_count: int
    covered_event_count: int
    covered_event_id: str
    happenings: tuple[Happening, ...]
    etag: str
    links: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether `happenings` holds everything that the summary does not cover."""
        if len(self.happenings) >= self.event_count:
            return True
        if self.covered_event_id:
            # Not by their number: a summary may have left events for later.
            return any(one.event_id == self.covered_event_id for one in self.happenings)
        return len(self.happenings) >= self.event_count - self.covered_event_count

    @property
    def news(self) -> tuple[Happening, ...]:
        """What happened since the summary; of a context that has none, all that was read."""
        for at in range(len(self.happenings) - 1, -1, -1):
            if self.happenings[at].event_id == self.covered_event_id:
                return self.happenings[at + 1 :]
        return self.happenings

    def covered_by(self, deferred_count: int) -> str:
        """The last event that a summary covers which leaves so many of the last ones for later."""
        if deferred_count >= len(self.happenings):
            return self.covered_event_id
        return self.happenings[-1 - deferred_count].event_id


@dataclass(frozen=True, slots=True)
class Model:
    """What made a vector."""

    provider: str
    name: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Insight:
    """What was understood of a context: all of it derived from strangers' text, none of it an order.

    Attributes:
        deferred_count: So many of the last happenings no model has read yet; they are sent again.
    """

    vector: tuple[float, ...]
    model: Model
    summary: str
    summary_model: str
    importance: float
    factors: tuple[tuple[str, float], ...]
    entities: tuple[tuple[str, str], ...]
    deferred_count: int = 0
