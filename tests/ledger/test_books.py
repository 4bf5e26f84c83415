"""The audit finds what it is there to find."""

from __future__ import annotations

from tests.ledger.books import Kept, Promises, audit, delivery
from tests.senders import Delivery, GitHub

SENT = [(n, delivery(GitHub("a secret"), n, 2)) for n in range(3)]
BODIES = [each.body for _, each in SENT]


def _kept(*events: tuple[str, bytes], dead: str = "", waiting: str = "") -> Kept:
    return Kept({"one": list(events)}, frozenset(), frozenset(dead.split()), frozenset(waiting.split()))


def _promised(*event_ids: str) -> Promises:
    return Promises(events=dict(enumerate(event_ids)))


def test_everything_may_be_in_another_place() -> None:
    account = audit(_promised("a", "b", "c"), SENT, _kept(("a", BODIES[0]), dead="b", waiting="c"))
    assert account.is_clean


def test_a_delivery_that_nobody_acknowledged_may_be_there_or_not() -> None:
    assert audit(_promised("a"), SENT, _kept(("a", BODIES[0]), ("x", BODIES[1]))).is_clean


def test_what_is_nowhere_is_lost() -> None:
    account = audit(_promised("a", "b"), SENT, _kept(("a", BODIES[0])))
    assert account.lost == [1]


def test_who_did_not_hear_the_first_answer_may_have_been_told_another_id() -> None:
    promises = Promises(events={0: "b"}, unheard={0: "a"})
    assert promises.renamed == [0]
    assert audit(promises, SENT, _kept(("a", BODIES[0]))).is_clean
    assert audit(promises, SENT, _kept()).lost == [0]
    assert audit(promises, SENT, _kept(("a", BODIES[0]), ("b", BODIES[0]))).double_effects


def test_an_event_that_is_twice_in_a_context_is_found() -> None:
    account = audit(_promised("a"), SENT, _kept(("a", BODIES[0]), ("a", BODIES[0])))
    assert account.double_effects == ["event a: 2 times", "delivery 0: 2 events"]


def test_a_delivery_that_became_two_events_is_found() -> None:
    account = audit(_promised("a"), SENT, _kept(("a", BODIES[0]), ("x", BODIES[0])))
    assert account.double_effects == ["delivery 0: 2 events"]


def test_an_event_with_other_bytes_is_found() -> None:
    account = audit(_promised("a", "b"), SENT, _kept(("a", BODIES[1]), ("b", BODIES[0])))
    assert account.changed == [0, 1]


def test_an_event_that_nobody_sent_is_found() -> None:
    account = audit(_promised("a"), SENT, _kept(("a", BODIES[0]), ("x", b"what?")))
    assert account.strangers == ["x"]


def test_each_delivery_is_one_of_its_kind() -> None:
    assert len(set(BODIES)) == len(SENT)
    assert all(isinstance(each, Delivery) for _, each in SENT)
