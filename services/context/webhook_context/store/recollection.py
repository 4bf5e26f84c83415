"""What the events of contexts said when they were last read, so that they need not be opened again.

A context that is busy is read after almost every event, and each time its newest events, and all that its
snapshot does not cover, would be opened and learned anew. What is remembered holds only for the very same
sealed bytes: where one of them differs, or is missing, everything is opened as if nothing were known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from webhook.context.v1.context_service_pb2 import Append

from webhook_context.domain.contexts import Facts
from webhook_context.domain.excerpts import RECENT_EVENTS

MOST_WEIGHT = 32 * 2**20
_WEIGHT_OF_A_THING = 64

Mark = int
"""Stands for sealed bytes, which never repeat: each has a nonce of its own."""


def marks_of(snapshot: bytes | None, sealed: Sequence[bytes]) -> list[Mark]:
    """Of a snapshot, and then of each event."""
    return [hash(snapshot), *map(hash, sealed)]


class Remembered(NamedTuple):
    """Of one context.

    Attributes:
        marks: Of the snapshot and the events that it does not cover.
        facts: What all events say together; to be read only.
        newest: What some of the newest events said, by their marks; to be read only.
        weight: Of all this.
    """

    marks: Sequence[Mark]
    facts: Facts
    newest: Mapping[Mark, Append]
    weight: int = 0

    @property
    def learned(self) -> int:
        """How many of the events that the snapshot does not cover are in the facts."""
        return len(self.marks) - 1


class Recollection:
    """The contexts that were read last.

    Args:
        most_weight: About how many characters, and 64 for each thing that has some.
    """

    def __init__(self, most_weight: int = MOST_WEIGHT) -> None:
        self._most_weight = most_weight
        self._weight = 0
        self._held: OrderedDict[tuple[str, str], Remembered] = OrderedDict()
        # Of all tenants of whom something may be held.
        self._tenants: set[str] = set()

    def recall(self, tenant: str, context_id: str, marks: Sequence[Mark]) -> Remembered | None:
        """What is known of a context that begins with these, as far as it is known."""
        held = self._held.get((tenant, context_id))
        if held is None or marks[: len(held.marks)] != held.marks:
            return None
        self._held.move_to_end((tenant, context_id))
        return held

    def remember(
        self, tenant: str, context_id: str, marks: Sequence[Mark], facts: Facts, newest: Mapping[Mark, Append]
    ) -> None:
        """What these events say together, and what the newest of them said; to be read only from now on."""
        self.forget(tenant, context_id)
        newest = dict(islice(newest.items(), max(len(newest) - RECENT_EVENTS, 0), None))
        weight = (
            _WEIGHT_OF_A_THING * len(marks) + _weight(facts) + sum(map(_weight_of_event, newest.values()))
        )
        self._held[tenant, context_id] = Remembered(marks, facts, newest, weight)
        self._weight += weight
        self._tenants.add(tenant)
        while self._weight > self._most_weight:
            _, oldest = self._held.popitem(last=False)
            self._weight -= oldest.weight

    def forget(self, tenant: str, context_id: str) -> None:
        """Of a context that is gone nothing is kept."""
        held = self._held.pop((tenant, context_id), None)
        if held is not None:
            self._weight -= held.weight

    def forget_tenants(self, tenants: set[str]) -> None:
        """Nor of tenants whose keys are destroyed; said again at their every call, it costs nothing."""
        if self._tenants.isdisjoint(tenants):
            return
        self._tenants -= tenants
        for tenant, context_id in [where for where in self._held if where[0] in tenants]:
            self.forget(tenant, context_id)


def _weight(facts: Facts) -> int:
    words, labels = facts.words.values(), facts.labels.value
    characters = sum(len(held.value) for held in words) + sum(map(len, labels))
    characters += sum(map(len, facts.actors)) + sum(len(link.context_id) for link in facts.links)
    return characters + _WEIGHT_OF_A_THING * (len(words) + len(labels) + len(facts.actors) + len(facts.links))


def _weight_of_event(said: Append) -> int:
    return said.ByteSize() + _WEIGHT_OF_A_THING
