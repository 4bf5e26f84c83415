"""What is remembered of events saves opening them, and never stands in for others."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from webhook_context import messages
from webhook_context.domain.contexts import AsOf, Change, Facts
from webhook_context.parts.tiers import tiering
from webhook_context.store import keys
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.recollection import Recollection, marks_of
from webhook_context.store.records import Records
from webhook_context.store.tiers_redis import Timing
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.redis import Client
from webhook_shared.settings import RedisSection

from services.context.tests.conftest import webhook_of

ID = "github:octo/hello:issue:1"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each event is opened."""
    counts: Counter[str] = Counter()
    open_event = Records.open_event

    def counting(self: Records, tenant: str, context_id: str, event_id: str, sealed: bytes) -> Any:
        counts[event_id] += 1
        return open_event(self, tenant, context_id, event_id, sealed)

    # Counts and calls the real one: whether something was opened can't be seen from outside.
    monkeypatch.setattr(Records, "open_event", counting)
    return counts


async def test_what_was_read_is_not_opened_again_for_its_facts(
    house: Any, make: Any, opened: Counter[str]
) -> None:
    await house.append(make("e1", title="first"), make("e2", labels=["bug"]))
    assert (await house.get(ID)).title == "first"
    await house.append(make("e3", state="open"))
    opened.clear()
    found = await house.get(ID)
    assert (found.title, found.labels, found.state) == ("first", ["bug"], "open")
    assert [event.event_id for event in found.events] == ["e1", "e2", "e3"]
    # Once, by the index or by this reader; nobody opens the others again.
    assert opened == {"e3": 1}


async def test_what_is_remembered_of_an_event_has_no_payload(house: Any, make: Any) -> None:
    said = make("e1")
    said.event.payload = b'{"a":1}'
    await house.append(said)
    for with_payloads, payload in ((False, b""), (True, b'{"a":1}'), (False, b""), (True, b'{"a":1}')):
        (event,) = (await house.get(ID, include_payloads=with_payloads)).events
        assert event.payload == payload


async def test_a_person_s_words_stand_although_the_events_are_remembered(house: Any, make: Any) -> None:
    await house.append(make("e1", title="said"))
    held = await house.get(ID)
    held.title = "edited"
    await house.update(held, "title")
    assert (await house.get(ID)).title == "edited"
    await house.append(make("e2", state="closed"))
    found = await house.get(ID)
    assert (found.title, found.state) == ("edited", "closed")


async def test_a_remembered_event_that_was_tampered_with_is_noticed(
    house: Any, make: Any, redis: Client, refused: Any
) -> None:
    await house.append(make("e1", title="genuine"), make("e2"))
    assert (await house.get(ID)).title == "genuine"
    name = keys.context("acme", ID)
    sealed = await redis.hget(name, "e:e1")
    assert sealed
    await redis.hset(name, "e:e1", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    await refused(house.get(ID), "DATA_LOSS", "CONTEXT_UNREADABLE")


async def test_a_context_that_was_deleted_begins_anew(house: Any, make: Any) -> None:
    await house.append(make("e1", title="old", labels=["old"]))
    await house.get(ID)
    await house.delete(ID)
    await house.append(make("e2", ID + "0", title="other"))
    assert (await house.get(ID + "0")).title == "other"


def _facts(title: str) -> Facts:
    facts = Facts()
    facts.state("title", title, AsOf(1, "e1"))
    return facts


def test_it_recalls_what_these_very_events_said() -> None:
    recollection = Recollection()
    marks = marks_of(b"snapshot", [b"one", b"two"])
    recollection.remember("acme", ID, marks, _facts("it"), {})
    for later in ([], [b"more"]):
        known = recollection.recall("acme", ID, marks_of(b"snapshot", [b"one", b"two", *later]))
        assert known
        assert (known.facts, known.learned) == (_facts("it"), 2)
    for others in (
        marks_of(None, [b"one", b"two"]),
        marks_of(b"snapshot", [b"two", b"one"]),
        marks_of(b"snapshot", [b"one"]),
        marks_of(b"another", []),
    ):
        assert recollection.recall("acme", ID, others) is None
    assert recollection.recall("globex", ID, marks) is None


@pytest.fixture
def store(redis: Client, valkey: RedisSection, tmp_path: Path) -> RedisContexts:
    return tiering(redis, DirectoryObjectStore(tmp_path), webhook_of(valkey), Timing()).store


async def test_an_edit_that_is_not_written_is_not_recalled(store: RedisContexts, make: Any) -> None:
    await store.append([messages.entry("acme", make("e1", title="it", labels=["bug"]))])
    edit = Change("acme", ID, patch={"title": "changed", "labels": ["x"], "attributes": {"a": 1}})
    for _ in range(2):
        facts = (await store.read_one("acme", ID, View())).facts
        assert (facts.word("title"), facts.labels.value, facts.attributes) == ("it", ("bug",), {})
        edited = edit.revise(await store.read_one("acme", ID, View())).facts
        assert (edited.word("title"), edited.labels.value, edited.attributes) == ("changed", ("x",), {"a": 1})


async def test_what_is_learned_later_does_not_reach_who_read_before(store: RedisContexts, make: Any) -> None:
    await store.append([messages.entry("acme", make("e1", title="it"))])
    before = (await store.read_one("acme", ID, View())).facts
    await store.append([messages.entry("acme", make("e2", state="closed"))])
    after = (await store.read_one("acme", ID, View())).facts
    assert (before.word("state"), after.word("state")) == ("", "closed")


def test_the_oldest_is_forgotten_where_it_grows_too_heavy() -> None:
    recollection = Recollection(most_weight=5000)
    for number in range(5):
        recollection.remember("acme", f"{number}", marks_of(None, []), _facts("x" * 1000), {})
        recollection.recall("acme", "0", marks_of(None, []))
    known = [n for n in range(5) if recollection.recall("acme", f"{n}", marks_of(None, []))]
    assert known == [0, 2, 3, 4]


def test_what_is_too_heavy_alone_is_not_kept() -> None:
    recollection = Recollection(most_weight=500)
    recollection.remember("acme", ID, marks_of(None, []), _facts("x" * 1000), {})
    assert recollection.recall("acme", ID, marks_of(None, [])) is None


def test_of_a_tenant_whose_keys_are_destroyed_nothing_is_kept() -> None:
    recollection = Recollection()
    for tenant in ("acme", "globex"):
        recollection.remember(tenant, ID, marks_of(None, []), _facts("it"), {})
    recollection.forget_tenants({"acme"})
    assert recollection.recall("acme", ID, marks_of(None, [])) is None
    assert recollection.recall("globex", ID, marks_of(None, []))
    recollection.remember("acme", ID, marks_of(None, []), _facts("again"), {})
    recollection.forget_tenants({"acme"})
    assert recollection.recall("acme", ID, marks_of(None, [])) is None
