"""Events go into their contexts once, in any order, and none is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook.context.v1 import context_pb2
from webhook_context.domain.contexts import Facts
from webhook_shared.redis import Client

ID = "github:octo/hello:issue:1"


async def test_an_event_makes_a_context(house: Any, make: Any) -> None:
    link = context_pb2.Link(relation="fixes", context_id="github:octo/hello:issue:2")
    said = make("e1", title="It breaks", url="https://x/1", state="open", labels=["bug"], links=[link])
    (result,) = await house.append(said)
    assert (result.duplicate, result.version, result.status.code) == (False, 1, 0)

    found = await house.get(ID)
    assert (found.tenant, found.context_id, found.tool, found.kind) == ("acme", ID, "github", "issue")
    assert (found.title, found.url, found.state) == ("It breaks", "https://x/1", "open")
    assert (list(found.labels), list(found.actors), list(found.links)) == (["bug"], ["mona"], [link])
    assert (found.event_count, found.version, found.tier) == (1, 1, context_pb2.TIER_HOT)
    assert found.etag
    assert found.create_time.ToMilliseconds() == found.update_time.ToMilliseconds() > 0
    assert [event.text for event in found.events] == ["something happened"]
    assert not found.HasField("enrichment")


async def test_each_of_many_calls_at_the_same_time_gets_its_own_results(house: Any, make: Any) -> None:
    calls = [house.append(make(f"e{i}"), make(f"e{i}", ID + str(i))) for i in range(30)]
    results = await asyncio.gather(*calls)
    assert sorted(first.version for first, _ in results) == list(range(1, 31))
    assert [second.version for _, second in results] == [1] * 30
    assert (await house.get(ID)).event_count == 30


async def test_the_same_event_again_changes_nothing(house: Any, make: Any) -> None:
    await house.append(make("e1", title="first"))
    before = await house.get(ID)
    results = await house.append(make("e1", title="other"), make("e1"), make("e2"))
    assert [(r.duplicate, r.version) for r in results] == [(True, 1), (True, 1), (False, 2)]
    after = await house.get(ID)
    assert (before.title, after.title, after.event_count) == ("first", "first", 2)


async def test_one_bad_item_does_not_fail_its_neighbours(house: Any, make: Any) -> None:
    no_time = make("e4")
    no_time.event.ClearField("occurred_time")
    no_time.event.ClearField("received_time")
    results = await house.append(
        make("e1"),
        make("", title="no event id"),
        make("e2", text="x" * 16_385),
        make("e3", context_id="a\nb"),
        no_time,
        make("e5", tenant=""),
        make("e6", tool=""),
        make("e7"),
    )
    assert [(r.status.code, r.status.reason) for r in results[1:7]] == [(3, "FIELD_INVALID")] * 6
    assert [r.status.code for r in (results[0], results[7])] == [0, 0]
    assert (await house.get(ID)).event_count == 2


async def test_a_batch_has_its_bounds(house: Any, make: Any, refused: Any) -> None:
    await refused(house.append(), "INVALID_ARGUMENT", "FIELD_INVALID")
    await refused(house.append(*[make("e")] * 1001), "INVALID_ARGUMENT", "FIELD_INVALID")
    results = await house.append(*[make(f"e{i}", context_id=f"c{i % 100}") for i in range(1000)])
    assert {r.status.code for r in results} == {0}


async def test_payloads_come_only_where_asked_for(house: Any, make: Any, payload: Any) -> None:
    bodies = [payload() for _ in range(3)]
    await house.append(*[make(f"e{i}", payload=body) for i, body in enumerate(bodies)], make("bare"))
    assert [event.payload for event in (await house.get(ID)).events] == [b""] * 4
    found = await house.get(ID, include_payloads=True)
    assert [event.payload for event in found.events] == [*bodies, b""]
    found = await house.get(ID, include_payloads=True, max_events=2)
    assert [event.payload for event in found.events] == [bodies[2], b""]
    assert {event.content_type for event in found.events} == {"application/json"}


async def test_a_large_payload_survives(house: Any, make: Any) -> None:
    body = random.Random(1).randbytes(3_000_000)
    await house.append(make("e1", payload=body))
    assert (await house.get(ID, include_payloads=True)).events[0].payload == body


async def test_the_newest_events_come_in_the_order_of_arrival(house: Any, make: Any) -> None:
    await house.append(*[make(f"e{i}", at=-i) for i in range(100)])
    for asked, expected in ((0, 20), (-1, 0), (7, 7), (1000, 100)):
        found = await house.get(ID, max_events=asked)
        assert [e.event_id for e in found.events] == [f"e{i}" for i in range(100 - expected, 100)]
        assert found.event_count == 100


async def test_max_events_has_its_bounds(house: Any, refused: Any) -> None:
    for asked in (-2, 1001):
        await refused(house.get(ID, max_events=asked), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_a_clock_that_runs_ahead_pins_nothing(house: Any, make: Any) -> None:
    ahead = make("ahead", at=10**8, title="from the future")
    later = make("later", title="later")
    later.event.occurred_time.FromMilliseconds(ahead.event.received_time.ToMilliseconds() + 1)
    later.event.received_time.FromMilliseconds(ahead.event.received_time.ToMilliseconds() + 2)
    await house.append(ahead, later)
    assert (await house.get(ID)).title == "later"


async def test_a_long_context_reads_like_a_short_one(house: Any, make: Any, redis: Client) -> None:
    for start in range(0, 500, 50):
        batch = [make(f"e{i}", at=i, title=f"t{i}", actor=f"a{i}") for i in range(start, start + 50)]
        await house.append(*batch)
    found = await house.get(ID)
    assert (found.title, found.event_count, found.version) == ("t499", 500, 500)
    assert list(found.actors) == [f"a{i}" for i in range(499, 449, -1)]
    folded = int(await redis.hget(f"ctx:{{acme:{ID}}}", "folded") or 0)
    assert 500 - folded < 32


async def test_concurrent_appends_lose_nothing(house: Any, make: Any, open_house: Any, valkey: Any) -> None:
    async def writer(replica: Any, number: int) -> None:
        for i in range(10):
            await replica.append(make(f"{number}-{i}", at=number * 10 + i, actor=f"actor {number}"))

    async with open_house(valkey) as other:
        replicas = itertools.cycle([house, other])
        await asyncio.gather(*[writer(next(replicas), number) for number in range(20)])
        found, seen = await house.get(ID, max_events=1000), await other.get(ID, max_events=1000)
    assert found == seen
    assert (found.event_count, found.version) == (200, 200)
    assert {e.event_id for e in found.events} == {f"{n}-{i}" for n in range(20) for i in range(10)}
    assert list(found.actors) == [f"actor {n}" for n in range(19, -1, -1)]


said = st.fixed_dictionaries(
    {"at": st.integers(0, 3)},
    optional={
        "title": st.sampled_from("xyz"),
        "state": st.sampled_from(["open", "closed"]),
        "kind": st.sampled_from(["issue", "pull_request"]),
        "labels": st.lists(st.sampled_from("abc"), min_size=1, max_size=2),
        "actor": st.sampled_from(["mona", "hubot", "octo"]),
        "links": st.lists(
            st.builds(context_pb2.Link, relation=st.just("fixes"), context_id=st.sampled_from("pqr")),
            max_size=2,
        ),
    },
)


@st.composite
def _arrivals(draw: Any) -> tuple[list[dict[str, Any]], list[int], list[int]]:
    events = draw(st.lists(said, min_size=1, max_size=7))
    indexes = list(range(len(events)))
    repeated = draw(st.lists(st.sampled_from(indexes), max_size=5))
    return events, draw(st.permutations(indexes + repeated)), draw(st.permutations(indexes))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_arrivals())
def test_facts_do_not_depend_on_order_or_repetition(make: Any, arrivals: Any) -> None:
    events, first, second = arrivals
    results = []
    for order in (first, second):
        facts = Facts()
        for i in order:
            facts.learn(make(f"e{i}", **events[i]))
        results.append((facts, facts.recent_actors(), facts.recent_links()))
    assert results[0] == results[1]


_examples = itertools.count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=_arrivals(), cut=st.integers(1, 4))
async def test_contexts_do_not_depend_on_order_or_repetition(
    house: Any, make: Any, arrivals: Any, cut: int
) -> None:
    events, first, second = arrivals
    example, seen = next(_examples), []
    for name, order in (("a", first), ("b", second)):
        context_id = f"{name}{example}"
        appends = [make(f"e{i}", context_id=context_id, **events[i]) for i in order]
        for start in range(0, len(appends), cut):
            await house.append(*appends[start : start + cut])
        found = await house.get(context_id)
        kept = sorted(found.events, key=lambda event: str(event.event_id))
        for field in ("context_id", "etag", "create_time", "update_time", "events"):
            found.ClearField(field)
        seen.append((found, kept))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("count", [51, 120])
def test_the_most_recent_actors_stay_whatever_the_order(make: Any, count: int) -> None:
    events = [make(f"e{i}", at=i % 90, actor=f"a{i}") for i in range(count)]
    straight, mixed = Facts(), Facts()
    for event in events:
        straight.learn(event)
    for event in random.Random(7).sample(events, count):
        mixed.learn(event)
    assert straight.recent_actors() == mixed.recent_actors()
    assert len(straight.recent_actors()) == 50
