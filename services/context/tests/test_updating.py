"""Compare and set, enrichment marks, tombstones."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from webhook.context.v1 import context_pb2
from webhook_context.store import keys
from webhook_shared.redis import Client

ID = "github:octo/hello:issue:1"
KEY = f"ctx:{{acme:{ID}}}"


def _named(**fields: Any) -> context_pb2.Context:
    return context_pb2.Context(tenant="acme", context_id=ID, **fields)


async def _asked(redis: Client) -> list[str]:
    entries: Any = await redis.xrange(keys.ENRICHMENT)
    return [fields[b"context_id"].decode() for _, fields in entries]


async def test_an_update_changes_what_its_mask_names(house: Any, make: Any) -> None:
    await house.append(make("e1", title="from the sender", labels=["bug"]))
    before = await house.get(ID)
    updated = await house.update(_named(title="Better", labels=["x"]), "title", etag=before.etag)
    assert (updated.title, list(updated.labels), updated.version) == ("Better", ["bug"], 2)
    assert updated.etag != before.etag
    assert not updated.events
    updated = await house.update(_named(labels=["urgent", "bug"]), "labels")
    assert (updated.title, list(updated.labels)) == ("Better", ["urgent", "bug"])


async def test_an_update_answers_with_what_a_reader_gets(house: Any, make: Any) -> None:
    await house.append(make("e1", title="from the sender", labels=["bug"]))
    read = await house.get(ID)
    model = context_pb2.EmbeddingModel(provider="local", name="mini", dimension=2)
    enrichment = context_pb2.Enrichment(
        summary="It breaks.", importance=0.7, vector=[0.6, 0.8], embedding_model=model
    )
    pinned = _named(title="Better", labels=["x"], pinned=True, enrichment=enrichment)
    masks = (["enrichment"], read.etag), (["title", "labels"], ""), (["pinned", "enrichment"], "")
    for paths, etag in masks:
        updated = await house.update(pinned, *paths, etag=etag)
        assert updated == await house.get(ID, max_events=-1)
    assert (updated.version, updated.title, updated.pinned) == (4, "Better", True)
    assert (updated.enrichment.importance, list(updated.enrichment.vector)) == (0.7, [])


async def test_what_happens_after_an_edit_has_the_last_word(house: Any, make: Any) -> None:
    await house.append(make("e1", title="old"))
    await house.update(_named(title="edited"), "title")
    await house.append(make("earlier", at=5, title="had been said before the edit"))
    assert (await house.get(ID)).title == "edited"
    later = make("later", title="said after the edit")
    later.event.occurred_time.GetCurrentTime()
    later.event.received_time.GetCurrentTime()
    await house.append(later)
    assert (await house.get(ID)).title == "said after the edit"


async def test_a_lost_race_is_aborted_with_the_current_etag(house: Any, make: Any, refused: Any) -> None:
    await house.append(make("e1"))
    stale = (await house.get(ID)).etag
    await house.append(make("e2"))
    for etag in (stale, "nonsense"):
        call = house.update(_named(title="x"), "title", etag=etag)
        error = await refused(call, "ABORTED", "ETAG_MISMATCH")
        assert error.metadata["etag"] == (await house.get(ID)).etag


async def test_of_concurrent_updates_with_one_etag_one_wins(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    etag = (await house.get(ID)).etag
    calls = [house.update(_named(title=f"t{i}"), "title", etag=etag) for i in range(10)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_updates_without_etag_all_happen(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    await asyncio.gather(*[house.update(_named(title=f"t{i}"), "title") for i in range(8)])
    assert (await house.get(ID)).version == 9


async def test_a_request_id_makes_an_update_idempotent(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    etag, request_id = (await house.get(ID)).etag, str(uuid.uuid4())
    first = await house.update(_named(title="x"), "title", etag=etag, request_id=request_id)
    again = await house.update(_named(title="x"), "title", etag=etag, request_id=request_id.upper())
    assert first == again
    for _ in range(40):
        await house.update(_named(title="y"), "title", request_id=str(uuid.uuid4()))
    assert (await house.get(ID)).version == 42


@pytest.mark.parametrize(
    ("context", "paths", "asked"),
    [
        (_named(title="x"), [], {}),
        (_named(title="x"), ["title", "state"], {}),
        (_named(title="x"), ["title"], {"request_id": "not a uuid"}),
        (_named(enrichment=context_pb2.Enrichment(importance=1.5)), ["enrichment"], {}),
        (_named(enrichment=context_pb2.Enrichment(importance=float("nan"))), ["enrichment"], {}),
        (_named(enrichment=context_pb2.Enrichment(vector=[1.0])), ["enrichment"], {}),
        (context_pb2.Context(tenant="acme", title="x"), ["title"], {}),
    ],
)
async def test_what_an_update_refuses(house: Any, refused: Any, context: Any, paths: Any, asked: Any) -> None:
    await refused(house.update(context, *paths, **asked), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_an_enrichment_is_kept_and_replaced_as_a_whole(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    entity = context_pb2.Entity(kind="repository", value="octo/hello")
    updated = await house.enrich(
        ID,
        "It broke.",
        [0.6, 0.8],
        importance=0.7,
        entities=[entity],
        covered_event_id="e1",
        covered_event_count=1,
    )
    assert (updated.enrichment.summary, updated.enrichment.importance) == ("It broke.", 0.7)
    assert updated.enrichment.update_time.ToMilliseconds() > 0
    assert not (await house.get(ID)).enrichment.vector
    found = (await house.get(ID, include_vector=True)).enrichment
    assert list(found.vector) == pytest.approx([0.6, 0.8], abs=1e-3)
    assert (list(found.entities), found.covered_event_id) == ([entity], "e1")
    await house.enrich(ID, "It broke again.")
    found = (await house.get(ID, include_vector=True)).enrichment
    assert (found.summary, list(found.vector), list(found.entities)) == ("It broke again.", [], [])


async def test_a_context_is_handed_to_enrichment_once_per_bout(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e1", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01"))
    await house.append(make("e2"), make("e3"), make("other", context_id="b"))
    assert await _asked(redis) == [ID, "b"]
    entries: Any = await redis.xrange(keys.ENRICHMENT)
    assert entries[0][1] == {
        b"tenant": b"acme",
        b"context_id": ID.encode(),
        b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    }
    await house.enrich(ID, "s", etag=(await house.get(ID)).etag)
    await house.append(make("e1"))
    assert await _asked(redis) == [ID, "b"]
    await house.append(make("e4"))
    assert await _asked(redis) == [ID, "b", ID]


async def test_a_stale_enrichment_is_refused(house: Any, make: Any, redis: Client, refused: Any) -> None:
    await house.append(make("e1"))
    stale = (await house.get(ID)).etag
    await house.append(make("e2"))
    await refused(house.enrich(ID, "s", etag=stale), "ABORTED", "ETAG_MISMATCH")
    assert await redis.hmget(KEY, "dirty", "queued") == [b"1", b"1"]
    await house.enrich(ID, "blind")
    assert await redis.hmget(KEY, "dirty", "queued") == [b"1", b"1"]
    await house.enrich(ID, "s", etag=(await house.get(ID)).etag)
    assert await redis.hmget(KEY, "dirty", "queued") == [None, None]


async def test_a_repetition_heals_a_crash(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e1"))
    # As it is when the process dies right after the script.
    await redis.delete(keys.ENRICHMENT, keys.index("acme"))
    await redis.hdel(KEY, "queued", "queued_at")
    (result,) = await house.append(make("e1"))
    assert result.duplicate
    assert await _asked(redis) == [ID]
    assert [c.context_id for c in (await house.list()).contexts] == [ID]
    await house.append(make("e2"))
    assert await _asked(redis) == [ID]


async def test_a_late_mark_does_not_silence_the_next_bout(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e1"))
    await house.enrich(ID, "s", etag=(await house.get(ID)).etag)
    await redis.hset(KEY, "queued", "1")
    await house.append(make("e2"))
    assert await _asked(redis) == [ID, ID]


async def test_an_enrichment_that_never_came_is_asked_for_again(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e1"))
    await redis.hincrby(KEY, "queued_at", -11 * 60 * 1000)
    await house.append(make("e2"))
    assert await _asked(redis) == [ID, ID]


async def test_a_deleted_context_is_gone_for_good(house: Any, make: Any, redis: Client, refused: Any) -> None:
    await house.append(*[make(f"e{i}", payload=b"x" * 99) for i in range(40)])
    await house.enrich(ID, "s", [1.0])
    found = await house.get(ID)
    await refused(house.delete(ID, etag="1-1"), "ABORTED", "ETAG_MISMATCH")
    await house.delete(ID, etag=found.etag)

    await refused(house.get(ID), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await refused(house.delete(ID), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await refused(house.update(_named(title="x"), "title"), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    (result,) = await house.append(make("late"))
    assert (result.status.code, result.status.reason) == (9, "CONTEXT_DELETED")
    assert not (await house.list()).contexts
    assert set(await redis.hkeys(KEY)) == {b"version", b"deleted"}
    assert not await redis.exists(f"{KEY}:order")


async def test_a_tombstone_that_is_still_listed_is_passed_over(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e1"), make("e2", context_id="b"))
    await house.delete(ID)
    await redis.zadd(keys.index("acme"), {ID: 10**13})
    assert [c.context_id for c in (await house.list()).contexts] == ["b"]
    assert await redis.zrange(keys.index("acme"), 0, -1) == [b"b"]


async def test_what_was_never_there(house: Any, refused: Any, redis: Client) -> None:
    await refused(house.get(ID), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await refused(house.update(_named(title="x"), "title"), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await refused(house.delete(ID), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    assert not await redis.keys("ctx:*")
    assert not await redis.keys("tenantkey:*")
