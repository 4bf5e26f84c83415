"""Duplicates that are answered before they are sealed: never one that is new, whatever the filter thinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from prometheus_client import REGISTRY
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_DUPLICATE, Verdict
from webhook_security.duplicates.known import KnownDuplicates, first_of
from webhook_security.duplicates.seen import Seen
from webhook_security.settings import SecuritySection
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client

EVENTS = "webhook-events"
ISSUE = orjson.dumps({"issue": {"updated_at": "2026-01-02T03:04:05Z"}})


def looked_up(result: str) -> float:
    name = "webhook_security_duplicates_looked_up_total"
    return REGISTRY.get_sample_value(name, {"result": result}) or 0.0


class Door:
    """Judges as the service does, and publishes as the gateway's script does."""

    def __init__(self, judge: Any, redis: Client, seen: Seen, worth: int = 1) -> None:
        self.redis, self.judge = redis, judge
        self.known = KnownDuplicates(redis, Partitions(EVENTS), seen, worth=worth)
        judge.admission = type(judge.admission)(
            judge.registry, judge.keyring, judge.admission._rejections, known=self.known
        )

    async def __call__(self, *deliveries: Any) -> list[Verdict]:
        admission = self.judge.admission
        cases = [admission.case(delivery, Verdict()) for delivery in deliveries]
        held = admission.conclude(admission.prove(cases))
        if held:
            await admission.settle(held)
        return [case.verdict for case in cases]

    async def publish(self, verdict: Verdict) -> None:
        listed = f"{verdict.event.id}:{verdict.body_digest}"
        await self.redis.set(f"dedup:{{{EVENTS}}}:{verdict.dedup_key}", listed)
        if verdict.replay_key:
            owned = f"{verdict.event.id}:{verdict.dedup_key[:7]}"
            await self.redis.set(f"dedup:{{{EVENTS}}}:{verdict.replay_key}", owned)


@pytest.fixture
def door(judge: Any, redis: Client) -> Door:
    return Door(judge, redis, Seen(100_000, 4, 0.001))


@pytest.fixture
def issue(deliver: Any, sign: Any) -> Callable[..., Any]:
    def make(delivery_id: str, body: bytes = ISSUE) -> Any:
        return deliver("github", body, {**sign.github(body), "x-github-delivery": delivery_id})

    return make


async def test_a_duplicate_is_answered_and_not_sealed(door: Door, issue: Any) -> None:
    before = looked_up("known")
    (first,) = await door(issue("a"))
    await door.publish(first)
    again, new = await door(issue("a"), issue("b", ISSUE + b" "))
    assert (again.outcome, again.first_event_id) == (OUTCOME_DUPLICATE, first.event.id)
    assert not again.HasField("event")
    assert (new.outcome, bool(new.event.sealed)) == (OUTCOME_ADMITTED, True)
    assert looked_up("known") == before + 1


async def test_a_few_are_not_worth_a_look(judge: Any, redis: Client, issue: Any) -> None:
    door = Door(judge, redis, Seen(100_000, 4, 0.001), worth=3)
    (first,) = await door(issue("a"))
    await door.publish(first)
    before = looked_up("known")
    two = await door(issue("a"), issue("a"))
    assert [bool(verdict.event.sealed) for verdict in two] == [True, True]
    three = await door(issue("a"), issue("a"), issue("a"))
    assert [verdict.first_event_id for verdict in three] == [first.event.id] * 3
    assert looked_up("known") == before + 3


async def test_a_flood_of_minted_ids_is_answered_too(door: Door, issue: Any) -> None:
    (first,) = await door(issue("a"))
    await door.publish(first)
    verdicts = await door(*(issue(f"minted-{number}") for number in range(5)))
    assert {verdict.first_event_id for verdict in verdicts} == {first.event.id}


async def test_what_was_seen_and_is_nowhere_is_sealed(door: Door, issue: Any, redis: Client) -> None:
    """Publishing failed, the window is over, the event ended as a dead letter: it comes in."""
    before = looked_up("unknown")
    (first,) = await door(issue("a"))
    (again,) = await door(issue("a"))
    assert first.event.sealed
    assert again.event.sealed
    assert looked_up("unknown") == before + 1


async def test_another_body_is_left_to_who_publishes(door: Door, issue: Any) -> None:
    (first,) = await door(issue("a"))
    await door.publish(first)
    (other,) = await door(issue("a", ISSUE + b" "))
    assert (other.outcome, other.body_digest != first.body_digest) == (OUTCOME_ADMITTED, True)
    assert other.event.sealed


async def test_a_filter_that_takes_everything_for_seen_loses_nothing(
    judge: Any, redis: Client, issue: Any
) -> None:
    door = Door(judge, redis, Seen(1, 1, 0.5))
    bodies = [ISSUE + b" " * number for number in range(20)]
    verdicts = await door(*(issue(f"new-{number}", body) for number, body in enumerate(bodies)))
    assert all(verdict.event.sealed for verdict in verdicts)


async def test_without_redis_everything_is_sealed_and_redis_left_alone(
    judge: Any, issue: Any, redis_server: Any, redis: Client
) -> None:
    door = Door(judge, redis, Seen(100_000, 4, 0.001))
    (first,) = await door(issue("a"))
    await door.publish(first)
    door.known._client = _Away()  # type: ignore[assignment]  # all that is asked of it
    for _ in range(3):
        (again,) = await door(issue("a"))
        assert again.event.sealed
    assert door.known._client.asked == 1


class _Away:
    asked = 0

    async def mget(self, names: list[str]) -> list[bytes]:
        self.asked += 1
        raise ConnectionError


async def test_what_is_to_be_safer_is_left_to_who_publishes(
    make_judge: Any, redis: Client, issue: Any
) -> None:
    security = SecuritySection.model_validate({"sources": {"github": {"durability": "fsynced"}}})
    door = Door(make_judge(security), redis, Seen(100_000, 4, 0.001))
    (first,) = await door(issue("a"))
    await door.publish(first)
    (again,) = await door(issue("a"))
    assert again.event.sealed


def verdict(**fields: Any) -> Verdict:
    return Verdict(dedup_key="k" * 24, occurrences_allowed=1, **fields)


@pytest.mark.parametrize(
    ("judged", "record", "echo", "first"),
    [
        (verdict(), None, None, ""),
        (verdict(), b"a:", None, "a"),
        (verdict(), b"a", None, "a"),
        (verdict(body_digest="x"), b"a:x", None, "a"),
        (verdict(body_digest="y"), b"a:x,b:y", None, "b"),
        (verdict(body_digest="z"), b"a:x,b:y", None, ""),
        (Verdict(dedup_key="k" * 24, occurrences_allowed=3), b"a:x,b:x", None, ""),
        (Verdict(dedup_key="k" * 24, occurrences_allowed=2), b"a:x,b:x", None, "a"),
        (verdict(replay_key="r"), None, b"a:kkkkkkk", ""),
        (verdict(replay_key="r"), None, b"a:another", "a"),
        (verdict(), None, b"a:another", ""),
    ],
)
def test_records_are_read_as_the_script_reads_them(
    judged: Verdict, record: bytes | None, echo: bytes | None, first: str
) -> None:
    assert first_of(judged, record, echo) == first


def test_the_filter_forgets_no_earlier_than_it_says_and_is_wrong_as_seldom() -> None:
    seen = Seen(200_000, 4, 0.001)
    keys = [f"key-{number}" for number in range(seen.capacity)]
    wrong = sum(seen.note(key) for key in keys)
    assert all(seen.note(key) for key in keys)
    # Two filters; the rate is that of a full one.
    assert wrong <= 2 * 0.001 * seen.capacity
    for number in range(2 * seen.capacity):
        seen.note(f"later-{number}")
    assert sum(seen.note(f"key-{number}") for number in range(100)) < 10


def test_the_guides_keys_shape_the_filter() -> None:
    by_default = Seen(10_000_000, 4, 0.001)
    assert by_default.size_bytes == pytest.approx(2 * 10_000_000 / 8, rel=0.001)
    assert by_default.capacity == pytest.approx(490_000, rel=0.01)
    assert Seen(20_000_000, 4, 0.001).capacity == pytest.approx(2 * by_default.capacity, rel=0.01)
    assert Seen(10_000_000, 7, 0.001).capacity > by_default.capacity
