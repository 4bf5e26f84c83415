"""Events that come again: what is there stays, what was deleted comes back once, what was erased never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from webhook.context.v1 import context_pb2
from webhook.context.v1.context_service_pb2 import AppendEventsRequest, AppendOutcome
from webhook_context.store import keys
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client

from services.context.tests.test_tiers import ISSUE, lifecycle

APPENDED, CREATED, DUPLICATE, REVIVED, DIFFERENT = (
    getattr(AppendOutcome, f"APPEND_OUTCOME_{name}")
    for name in ("APPENDED", "CREATED", "DUPLICATE", "REVIVED", "DIFFERENT")
)
DELETED = "CONTEXT_DELETED"


@pytest.fixture
async def tiered(open_house: Any, valkey: Any, tmp_path: Any) -> AsyncIterator[Any]:
    cold = ObjectStorageSection(directory=tmp_path / "cold")
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as up:
        yield up


async def told(house: Any, *appends: Any, dry_run: bool = False) -> list[Any]:
    """Per append: what became of it, or why it was refused."""
    request = AppendEventsRequest(appends=appends, dry_run=dry_run)
    results = (await house.contexts.AppendEvents(request)).results
    return [result.status.reason or result.outcome for result in results]


async def test_what_became_of_an_event_is_told(house: Any, make: Any) -> None:
    assert await told(house, make("1"), make("2"), make("2")) == [CREATED, APPENDED, DUPLICATE]


async def test_a_replay_brings_a_deleted_context_back_once(house: Any, make: Any) -> None:
    await house.append(make("1", title="A problem"), make("2"))
    before = await house.get(ISSUE)
    await house.delete(ISSUE)
    assert await told(house, make("1")) == [DELETED]

    again = [make(one, title="A problem", replay_id="first") for one in ("1", "2")]
    assert await told(house, *again) == [REVIVED, APPENDED]
    found = await house.get(ISSUE)
    assert [event.event_id for event in found.events] == ["1", "2"]
    assert (found.title, found.kind, found.tier) == ("A problem", "issue", context_pb2.TIER_HOT)
    assert found.version > before.version
    assert found.etag != before.etag
    assert [one.context_id for one in (await house.list()).contexts] == [ISSUE]
    assert (await house.search("problem")).matches[0].context.context_id == ISSUE
    # It lives as any other, and whoever comes by himself is let in again.
    assert await told(house, make("3"), make("1", replay_id="first")) == [APPENDED, DUPLICATE]

    await house.delete(ISSUE)
    # The deletion came after the replay: its stragglers don't undo it, a new replay may.
    assert await told(house, make("2", replay_id="first")) == [DELETED]
    assert await told(house, make("2", replay_id="second")) == [REVIVED]
    await house.delete(ISSUE)
    assert await told(house, make("2", replay_id="second")) == [DELETED]


async def test_nothing_brings_back_what_was_erased(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("1"))
    await house.delete(ISSUE)
    await redis.hset(keys.context("acme", ISSUE), "erased", "1")
    assert await told(house, make("1", replay_id="first")) == [DELETED]
    assert await told(house, make("1", replay_id="first"), dry_run=True) == [DELETED]


async def test_many_who_revive_at_once(house: Any, make: Any) -> None:
    await house.append(make("1"))
    await house.delete(ISSUE)
    calls = (told(house, make(str(n), replay_id="first")) for n in range(20))
    outcomes = [outcome for (outcome,) in await asyncio.gather(*calls)]
    assert sorted(outcomes) == sorted([REVIVED] + [APPENDED] * 19)
    assert (await house.get(ISSUE)).event_count == 20


async def test_a_cold_context_that_was_deleted_comes_back_without_its_old_objects(
    tiered: Any, make: Any, payload: Any, tmp_path: Any
) -> None:
    await tiered.append(*(make(str(n), payload=payload()) for n in range(3)))
    await tiered.move("COLD", ISSUE)
    await tiered.delete(ISSUE)
    assert await told(tiered, make("1", payload=b"again", replay_id="first")) == [REVIVED]
    found = await tiered.get(ISSUE, include_payloads=True)
    assert [(event.event_id, event.payload) for event in found.events] == [("1", b"again")]
    await tiered.move("COLD", ISSUE)
    assert (await tiered.get(ISSUE)).tier == context_pb2.TIER_COLD
    await tiered.append(make("2"))
    assert (await tiered.get(ISSUE)).event_count == 2


@pytest.mark.parametrize("tier", ["HOT", "WARM", "COLD"])
async def test_a_dry_run_tells_and_changes_nothing(
    tiered: Any, make: Any, payload: Any, redis: Client, tier: str
) -> None:
    other, gone = "github:octo/hello:issue:2", "github:octo/hello:issue:3"
    await tiered.append(make("1", payload=payload()), make("1", gone))
    await tiered.move(tier, ISSUE)
    await tiered.delete(gone)
    before = {key: await redis.dump(key) for key in await redis.keys("ctx:*")}
    assert await told(
        tiered,
        make("1", payload=b"not even looked at"),
        make("1", text="as other rules read it"),
        make("2"),
        make("1", other),
        make("1", gone),
        make("1", gone, replay_id="first"),
        make("", ISSUE),
        dry_run=True,
    ) == [DUPLICATE, DIFFERENT, APPENDED, CREATED, DELETED, REVIVED, "FIELD_INVALID"]
    after = {key: await redis.dump(key) for key in await redis.keys("ctx:*")}
    assert after == before
