"""What was sent, what was promised, what is there: and whether that agrees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests import payloads
from tests.senders import Delivery, GitHub

REPOSITORY = "ledger/books"


def context_id(number: int, repository: str = REPOSITORY) -> str:
    """The context of issue `number`."""
    return f"github:{repository}:issue:{number}"


def delivery(sender: GitHub, sequence: int, contexts: int, repository: str = REPOSITORY) -> Delivery:
    """The `sequence`-th delivery: a comment on one of so many issues, recognisable by its text and its id."""
    number = 1 + sequence % contexts
    text = f"Entry {sequence} of the ledger."
    comment = payloads.github_comment(repository, number, f"Page {number}", text)
    return sender.deliver("issue_comment", comment, delivery_id=f"{repository}-{sequence}")


@dataclass
class Promises:
    """What senders were told.

    Attributes:
        events: By sequence, the event id that the acknowledgement named.
        unheard: By sequence, the event id of an acknowledgement that did not reach its sender.
        repeated: Acknowledgements that said: had it before, this is its event.
        retries: Deliveries that were sent again because nobody had acknowledged them.
        refused: Answers by status that were no acknowledgement; "closed" where nobody listened, "cut" where
            what had been sent was never answered.
    """

    events: dict[int, str] = field(default_factory=dict)
    unheard: dict[int, str] = field(default_factory=dict)
    repeated: int = 0
    retries: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def renamed(self) -> list[int]:
        """Deliveries that came again and were told another event than the first time."""
        return [at for at, first in self.unheard.items() if self.events.get(at, first) != first]


@dataclass(frozen=True)
class Kept:
    """What a reader finds.

    Attributes:
        contexts: By context, the ids of its events and the bytes of each.
        behind: Contexts whose enrichment has not seen all their events.
        dead: Ids of events that were given up.
        waiting: Ids of events in the queue, in flight, delayed or in quarantine.
    """

    contexts: Mapping[str, list[tuple[str, bytes]]]
    behind: frozenset[str]
    dead: frozenset[str]
    waiting: frozenset[str]

    @property
    def events(self) -> Counter[str]:
        """How often each event is in a context, all contexts together."""
        return Counter(event_id for events in self.contexts.values() for event_id, _ in events)


@dataclass(frozen=True)
class Account:
    """The result.

    Attributes:
        lost: Sequences that were acknowledged and are nowhere, under no id that their sender was told.
        double_effects: Deliveries that had an effect more than once, and events that are twice in a context.
        changed: Deliveries whose event does not hold the bytes that were sent.
        strangers: Events that nobody sent.
    """

    lost: list[int]
    double_effects: list[str]
    changed: list[int]
    strangers: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether everything agrees."""
        return not (self.lost or self.double_effects or self.changed or self.strangers)


def audit(promises: Promises, sent: Iterable[tuple[int, Delivery]], kept: Kept) -> Account:
    """Compare what was promised with what is there.

    A delivery may have been accepted with nobody hearing of it, and then been recognised when it came
    again: that is one event. Where it came again while Redis was away it may have been told another id,
    which gives way to the first one's once Redis is back; that is one event, too. Two events of one
    delivery are a double effect, whatever was said.
    """
    sequence_of = {each.body: sequence for sequence, each in sent}
    events = kept.events
    there = set(events) | kept.dead | kept.waiting
    effects: Counter[int] = Counter()
    told_of: dict[str, int] = {}
    strangers = []
    for found in kept.contexts.values():
        for event_id, body in found:
            sequence = sequence_of.get(body)
            if sequence is None:
                strangers.append(event_id)
            else:
                effects[sequence] += 1
                told_of[event_id] = sequence
    return Account(
        lost=sorted(
            sequence
            for sequence, event_id in promises.events.items()
            if there.isdisjoint({event_id, promises.unheard.get(sequence, event_id)})
        ),
        double_effects=[
            *(f"event {event_id}: {times} times" for event_id, times in events.items() if times > 1),
            *(f"delivery {sequence}: {times} events" for sequence, times in effects.items() if times > 1),
        ],
        changed=sorted(
            sequence
            for sequence, event_id in promises.events.items()
            if event_id in told_of and told_of[event_id] != sequence
        ),
        strangers=sorted(set(strangers)),
    )
