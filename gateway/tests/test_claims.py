"""What makes deliveries the same one: the script's rule, and the same rule over what the spool holds."""

from __future__ import annotations

import random

import pytest
from prometheus_client import REGISTRY
from webhook_gateway.outcome import Accepted, Duplicate
from webhook_gateway.publishing.claims import Claims
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.stream import EVENTS, Publisher

from gateway.tests.publications import publication

DAY_MS = 86_400_000


@pytest.fixture
def publisher(redis) -> Publisher:
    return Publisher(redis, patience_s=0.5, assurance=Assurance(redis, replicas=1, timeout_s=0.2))


def accepted(event_id: str, conflict_of: str = "") -> Accepted:
    return Accepted(event_id, quarantined=False, conflict_of=conflict_of)


def counted(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"tool": "github"}) or 0.0


def sent(event_id: str, name: str, body: str, **changes):
    """A delivery that names itself and signs its body."""
    return publication(
        event_id,
        dedup_key=name,
        body_digest=body,
        replay_key=f"of {body}",
        replay_window_ms=DAY_MS,
        **changes,
    )


async def test_another_body_under_the_same_id_is_kept_and_listed(publisher, redis):
    before = counted("webhook_duplicate_conflicts_total")
    first, again, other = (
        sent(event_id, "k", body) for event_id, body in [("a", "x"), ("b", "x"), ("c", "y")]
    )
    assert await publisher.publish([first, again, other]) == [
        accepted("a"),
        Duplicate("a"),
        accepted("c", "a"),
    ]
    # Each of the two is recognised when it comes again, and a reply that was lost changes nothing.
    assert await publisher.publish([sent("d", "k", "y"), sent("e", "k", "x"), other]) == [
        Duplicate("c"),
        Duplicate("a"),
        accepted("c"),
    ]
    entries = [entry for _, entry in await redis.xrange(EVENTS)]
    assert [entry.get(b"conflict_of") for entry in entries] == [None, b"a"]
    [(_, conflict)] = await redis.xrange("conflicts:{webhook-events}")
    assert (conflict[b"id"], conflict[b"of"], conflict[b"tool"]) == (b"c", b"a", b"github")
    assert counted("webhook_duplicate_conflicts_total") == before + 1


async def test_bodies_that_nobody_compares_are_never_in_conflict(publisher, redis):
    await publisher.publish([publication("a", body_digest="x")])
    assert await publisher.publish([publication("b")]) == [Duplicate("a")]
    await redis.set("dedup:{webhook-events}:old", "first,second")
    as_before = publication("c", dedup_key="old", body_digest="z", occurrences_allowed=2)
    assert await publisher.publish([as_before]) == [Duplicate("first")]


async def test_what_is_signed_is_recognised_under_another_id(publisher, redis):
    before = counted("webhook_replays_detected_total")
    await publisher.publish([sent("a", "k", "x")])
    assert await publisher.publish([sent("b", "minted", "x"), sent("c", "k", "x")]) == [
        Duplicate("a", renamed=True),
        Duplicate("a"),
    ]
    assert await redis.xlen(EVENTS) == 1
    assert counted("webhook_replays_detected_total") == before + 1


async def test_the_senders_own_repetitions_pass_as_its_window_allows(publisher, redis):
    """What is signed is remembered for longer, and does not shorten what the user allows."""
    many = [sent(event_id, "k", "x", occurrences_allowed=2) for event_id in "abc"]
    assert await publisher.publish(many) == [accepted("a"), accepted("b"), Duplicate("a")]
    await redis.delete("dedup:{webhook-events}:k")  # as when its window is over
    assert await publisher.publish([sent("d", "k", "x")]) == [accepted("d")]
    assert await publisher.publish([sent("e", "minted", "x")]) == [Duplicate("a", renamed=True)]


async def test_no_end_of_bodies_under_one_id_costs_no_end_of_memory(publisher, redis):
    flood = [publication(f"e{number}", body_digest=f"{number:07}") for number in range(60)]
    results = await publisher.publish(flood)
    assert all(isinstance(result, Accepted) for result in results)
    assert await redis.strlen("dedup:{webhook-events}:k") < 32 * 44


async def test_a_record_is_stored_in_one_piece(publisher, redis):
    event_id = "019f0c1e-8c1d-7f3a-9a55-0d4a4f1f9d10"
    await publisher.publish([sent(event_id, "k" * 24, "1234567")])
    for key in ("k" * 24, "of 1234567"):
        assert await redis.object("encoding", f"dedup:{{webhook-events}}:{key}") == b"embstr"


async def test_the_rule_of_the_script_and_that_of_the_spool_are_one(publisher):
    """Any order of names, bodies, occurrences and repetitions: both say the same, step by step."""
    chance = random.Random(11)
    for story in range(40):
        held, before = Claims(), []
        for number in range(12):
            name, body = chance.choice("abc"), chance.choice("xyz")
            delivery = sent(f"{story}-{number}", f"{name}{story:06}", f"{body}{story}")
            delivery = delivery._replace(occurrences_allowed=chance.choice([1, 1, 2]))
            if chance.random() < 0.3:
                delivery = delivery._replace(replay_key="", body_digest=chance.choice(["", body]))
            if before and chance.random() < 0.2:
                delivery = chance.choice(before)
            before.append(delivery)
            (told,) = await publisher.publish([delivery])
            first = held.first_of(delivery)
            assert first == (None if isinstance(told, Accepted) else told)
            if first is None and delivery not in held:
                held.add(delivery)
