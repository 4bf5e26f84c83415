"""Contexts in all tiers, over a socket: the same answers, nothing lost, nothing left behind."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from webhook.context.v1 import context_pb2, context_service_pb2
from webhook.context.v1.context_admin_service_pb2 import GetStatsRequest
from webhook_context.settings import ContextLifecycleSection
from webhook_context.store import keys
from webhook_shared.objects.protocol import ObjectStorageSection

ISSUE = "github:octo/hello:issue:1"
HOT, WARM, COLD = (context_pb2.TIER_HOT, context_pb2.TIER_WARM, context_pb2.TIER_COLD)
MOMENT = timedelta(milliseconds=30)


def lifecycle(**changed: Any) -> ContextLifecycleSection:
    """Nothing moves by itself, what moves is dropped at once, what is due is done at once."""
    return ContextLifecycleSection(
        **{
            "hot_duration": timedelta(hours=1),
            "warm_duration": timedelta(hours=2),
            "grace_duration": timedelta(),
            "check_interval": MOMENT,
            "promote_after_reads": 1000,
            "warm_from_size": 0,
            **changed,
        }
    )


@pytest.fixture
def cold(tmp_path: Path) -> ObjectStorageSection:
    return ObjectStorageSection(directory=tmp_path / "cold")


@pytest.fixture
async def tiered(open_house: Any, valkey: Any, cold: ObjectStorageSection) -> AsyncIterator[Any]:
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as up:
        yield up


async def until(condition: Callable[[], Any]) -> Any:
    """Waits until an awaited condition holds."""
    async with asyncio.timeout(30):
        while True:
            if found := await condition():
                return found
            await asyncio.sleep(0.01)


def objects(cold: ObjectStorageSection) -> list[Path]:
    """All but the copies of the tenants' keys."""
    found = [path for path in cold.directory.rglob("*") if path.is_file()]
    return [path for path in found if path.relative_to(cold.directory).parts[0] != "keys"]


def without_place(context: context_pb2.Context) -> context_pb2.Context:
    bare = context_pb2.Context()
    bare.CopyFrom(context)
    bare.ClearField("tier")
    return bare


async def full(house: Any, context_id: str = ISSUE) -> Any:
    request = context_service_pb2.GetContextRequest(
        context_id=context_id, tenant="acme", max_events=1000, include_payloads=True, include_vector=True
    )
    return await house.contexts.GetContext(request)


async def known(house: Any, make: Any, payload: Any, count: int = 12) -> Any:
    await house.append(*(make(f"e{n}", at=n, text=f"text {n}", payload=payload()) for n in range(count)))
    held = await house.enrich(ISSUE, "a payment problem", [0.6, 0.8], etag=(await house.get(ISSUE)).etag)
    assert held.event_count == count
    return await full(house)


@pytest.mark.parametrize("way", ["WARM", "COLD", "WARM COLD", "COLD WARM", "WARM COLD HOT COLD WARM HOT"])
async def test_every_tier_gives_the_same_answer(
    tiered: Any, make: Any, *, payload: Any, way: str, redis: Any, cold: Any
) -> None:
    before = await known(tiered, make, payload)
    assert before.served_tier == HOT
    for tier in way.split():
        (told, done) = await tiered.move(tier, ISSUE)
        assert (done.moved_count, done.failed_count) == (1, 0), told
        after = await full(tiered)
        assert after.served_tier == after.context.tier == context_pb2.Tier.Value(f"TIER_{tier}")
        assert without_place(after.context) == without_place(before.context)
        fields = await redis.hkeys(keys.context("acme", ISSUE))
        assert any(field.startswith(b"e:") for field in fields) == (tier == "HOT")
        assert await redis.hlen(keys.packs("acme", ISSUE)) == (tier == "WARM")
    # A cold source is dropped by the one who looks after due contexts.
    await until(lambda: _async(len(objects(cold)) == (way.endswith("COLD"))))


async def _async(value: Any) -> Any:
    return value


@pytest.mark.parametrize("tier", ["WARM", "COLD"])
async def test_lists_and_searches_need_no_pack(
    tiered: Any, make: Any, *, payload: Any, tier: str, cold: Any, open_house: Any, valkey: Any
) -> None:
    await known(tiered, make, payload)
    await tiered.append(make("other", "github:octo/hello:issue:2", text="nothing alike"))
    await tiered.move(tier, ISSUE)
    for path in objects(cold):
        path.unlink()
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as fresh:
        found = await fresh.search("text 11")
        assert found.matches[0].context.context_id == ISSUE
        listed = {one.context_id: one for one in (await fresh.list()).contexts}
    assert listed[ISSUE].enrichment.summary == "a payment problem"
    assert listed[ISSUE].tier == context_pb2.Tier.Value(f"TIER_{tier}")


@pytest.mark.parametrize("tier", ["WARM", "COLD"])
async def test_events_come_to_a_packed_context(tiered: Any, make: Any, payload: Any, tier: str) -> None:
    before = await known(tiered, make, payload)
    await tiered.move(tier, ISSUE)
    results = await tiered.append(
        make("e3", at=3, text="text 3"), make("late", at=99, title="Changed"), make("e11", at=11)
    )
    assert [result.duplicate for result in results] == [True, False, True]
    after = (await full(tiered)).context
    assert [event.event_id for event in after.events] == [*(f"e{n}" for n in range(12)), "late"]
    assert (after.title, after.event_count) == ("Changed", 13)
    assert after.version == before.context.version + 1

    risen = await until(lambda: _when(tiered, HOT))
    assert without_place(risen) == without_place(after)
    assert (await tiered.append(make("late", at=99)))[0].duplicate


async def _when(house: Any, tier: int) -> Any:
    found = (await full(house)).context
    return found if found.tier == tier else None


@pytest.mark.parametrize("tier", ["WARM", "COLD"])
async def test_a_change_needs_no_pack_and_lets_the_context_rise(
    tiered: Any, make: Any, payload: Any, tier: str
) -> None:
    before = await known(tiered, make, payload)
    await tiered.move(tier, ISSUE)
    await tiered.update(context_pb2.Context(tenant="acme", context_id=ISSUE, title="Mine"), "title")
    risen = await until(lambda: _when(tiered, HOT))
    assert (risen.title, len(risen.events)) == ("Mine", 12)
    assert risen.enrichment == before.context.enrichment


async def test_reads_bring_a_context_up_tier_by_tier(
    open_house: Any, valkey: Any, cold: Any, make: Any, payload: Any
) -> None:
    settings = lifecycle(promote_after_reads=2, check_interval=timedelta(milliseconds=10))
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        await known(house, make, payload)
        await house.move("COLD", ISSUE)
        first = await full(house)
        assert first.served_tier == COLD
        await full(house)
        served = [first.served_tier]

        async def hot() -> bool:
            served.append((await full(house)).served_tier)
            return served[-1] == HOT

        await until(hot)
        assert sorted(set(served)) == [HOT, WARM, COLD]


async def test_the_cold_store_away(tiered: Any, make: Any, payload: Any, cold: Any, refused: Any) -> None:
    await known(tiered, make, payload)
    await tiered.move("COLD", ISSUE)
    aside = cold.directory.with_name("aside")
    cold.directory.rename(aside)
    cold.directory.write_text("no directory")
    error = await refused(full(tiered), "UNAVAILABLE", "COLD_STORE_UNREACHABLE")
    assert error.retry_after_s
    assert (await tiered.append(make("late", at=99, title="Taken")))[0].status.code == 0
    assert (await tiered.get(ISSUE, max_events=-1)).title == "Taken"
    assert [event.event_id for event in (await tiered.get(ISSUE, max_events=1)).events] == ["late"]
    (told, _) = await tiered.move("HOT", ISSUE)
    assert told.transitions[0].status.reason == "COLD_STORE_UNREACHABLE"

    cold.directory.unlink()
    aside.rename(cold.directory)
    assert (await full(tiered)).context.event_count == 13


@pytest.mark.parametrize("harm", ["gone", "damaged", "another's"])
async def test_a_pack_that_is_not_what_was_packed(
    tiered: Any, make: Any, *, payload: Any, cold: Any, refused: Any, harm: str
) -> None:
    await known(tiered, make, payload)
    await tiered.append(make("x", "other"))
    await tiered.move("COLD", ISSUE)
    (path,) = objects(cold)
    await tiered.move("COLD", "other")
    (other,) = set(objects(cold)) - {path}
    held = path.read_bytes()
    flipped = held[:-1] + bytes([held[-1] ^ 1])
    content = {"gone": None, "damaged": flipped, "another's": other.read_bytes()}[harm]
    path.unlink()
    if content:
        path.write_bytes(content)
    await refused(full(tiered), "DATA_LOSS", "CONTEXT_UNREADABLE")
    assert (await tiered.get(ISSUE, max_events=-1)).enrichment.summary == "a payment problem"


async def test_a_deleted_context_leaves_no_object(
    tiered: Any, make: Any, *, payload: Any, cold: Any, redis: Any, refused: Any
) -> None:
    await known(tiered, make, payload)
    await tiered.move("COLD", ISSUE)
    assert objects(cold)
    await tiered.delete(ISSUE)
    assert objects(cold) == []
    await refused(full(tiered), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    assert set(await redis.hkeys(keys.context("acme", ISSUE))) == {b"version", b"deleted"}
    assert await redis.exists(keys.packs("acme", ISSUE), keys.revisions("acme", ISSUE)) == 0
    assert (await tiered.append(make("late")))[0].status.reason == "CONTEXT_DELETED"


async def test_a_deletion_without_the_cold_store_is_completed_later(
    tiered: Any, make: Any, payload: Any, cold: Any, refused: Any
) -> None:
    await known(tiered, make, payload)
    await tiered.move("COLD", ISSUE)
    assert objects(cold)
    aside = cold.directory.with_name("aside")
    cold.directory.rename(aside)
    await tiered.delete(ISSUE)
    aside.rename(cold.directory)
    await refused(tiered.delete(ISSUE), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    await until(lambda: _async(not objects(cold)))


async def test_important_and_pinned_contexts_stay(tiered: Any, make: Any) -> None:
    ids = [f"c{n}" for n in range(4)]
    await tiered.append(*(make(f"e{one}", one) for one in ids))
    await tiered.enrich("c1", importance=0.6)
    await tiered.enrich("c2", importance=0.9)
    await tiered.update(context_pb2.Context(tenant="acme", context_id="c3", pinned=True), "pinned")

    async def tiers() -> list[int]:
        return [(await tiered.get(one)).tier for one in ids]

    *_, done = await tiered.move("WARM")
    assert await tiers() == [WARM, WARM, HOT, HOT]
    assert (done.moved_count, done.skipped_count) == (2, 2)
    await tiered.move("COLD")
    assert await tiers() == [COLD, WARM, HOT, HOT]
    # One that is named goes, important or not, unless somebody wants it to stay.
    await tiered.move("COLD", "c2")
    (told, _) = await tiered.move("COLD", "c3")
    assert told.transitions[0].status.reason == "CONTEXT_PINNED"
    assert await tiers() == [COLD, WARM, COLD, HOT]


async def test_small_contexts_skip_the_warm_tier(
    open_house: Any, valkey: Any, *, cold: Any, make: Any, redis: Any
) -> None:
    settings = lifecycle(warm_from_size=4096, hot_duration=MOMENT, warm_duration=2 * MOMENT)
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        await house.append(make("e1"))
        *_, done = await house.move("WARM")
        assert (done.moved_count, done.skipped_count) == (0, 1)
        await until(lambda: _is(redis, b"cold"))
        assert await redis.exists(keys.packs("acme", ISSUE)) == 0


async def test_a_dry_run_moves_nothing(tiered: Any, make: Any) -> None:
    await tiered.append(*(make(f"e{n}", f"c{n}", labels=["x"] if n else []) for n in range(3)))
    wanted = context_service_pb2.ContextFilter(labels=["x"])
    told, done = await tiered.move("COLD", dry_run=True, filter=wanted)
    assert {one.context_id for one in told.transitions} == {"c1", "c2"}
    assert all(one.bytes_before > 0 for one in told.transitions)
    assert (done.moved_count, done.skipped_count) == (2, 1)
    assert (await tiered.get("c1")).tier == HOT
    *_, done = await tiered.move("COLD", filter=wanted, max_contexts=1)
    assert (done.moved_count, (await tiered.get("c1")).tier) == (1, COLD)


@pytest.mark.parametrize(
    ("asked", "code", "reason"),
    [
        ({"tier": "UNSPECIFIED"}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"tier": "WARM", "max_contexts": -1}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"tier": "HOT", "until_pressure_ends": True}, "INVALID_ARGUMENT", "FIELD_INVALID"),
        ({"tier": "WARM", "context_id": "unknown"}, "NOT_FOUND", "CONTEXT_NOT_FOUND"),
    ],
)
async def test_orders_that_are_refused(tiered: Any, refused: Any, asked: Any, code: str, reason: str) -> None:
    await refused(tiered.move(**asked), code, reason)


async def test_contexts_go_down_by_themselves(
    open_house: Any, valkey: Any, cold: Any, make: Any, redis: Any
) -> None:
    settings = lifecycle(hot_duration=MOMENT, warm_duration=3 * MOMENT)
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        await house.append(make("e1", "a:{b}%"), make("e2", "c"))
        await house.update(context_pb2.Context(tenant="acme", context_id="c", pinned=True), "pinned")
        seen = set()

        async def is_cold() -> bool:
            tier = await redis.hget(keys.context("acme", "a:{b}%"), "tier")
            seen.add(tier)
            return bool(tier == b"cold")

        await until(is_cold)
        assert b"warm" in seen or len(seen) <= 2
        assert await redis.hget(keys.context("acme", "c"), "tier") == b"hot"
        # Nothing is due of a context that rests.
        await until(lambda: _unscheduled(redis, "a:{b}%"))


async def _unscheduled(redis: Any, context_id: str) -> bool:
    return await redis.zscore(keys.due("acme"), context_id) is None


async def test_what_nobody_scheduled_is_found(
    open_house: Any, valkey: Any, cold: Any, make: Any, redis: Any
) -> None:
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as house:
        await house.append(make("e1"))
    await redis.delete(keys.due("acme"), keys.SWEEP)
    settings = lifecycle(hot_duration=MOMENT)
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings):
        await until(lambda: _is(redis, b"warm"))


async def _is(redis: Any, tier: bytes) -> bool:
    return bool(await redis.hget(keys.context("acme", ISSUE), "tier") == tier)


async def test_memory_pressure_moves_down_first_what_is_oldest(
    open_house: Any, valkey: Any, cold: Any, make: Any, redis: Any
) -> None:
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as house:
        for first in range(0, 120, 20):
            made = [make("e", f"c{n:03d}", payload=os.urandom(50_000)) for n in range(first, first + 20)]
            await house.append(*made)
        used = int((await redis.info("memory"))["used_memory"])
    settings = lifecycle(memory_limit=int(used * 0.9), pressure_high_ratio=0.9, pressure_low_ratio=0.85)
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        await until(lambda: _is_low(redis, used))
        # What is random can't be made smaller: warm was not enough, and a part had to go farther.
        assert (await house.get("c000", max_events=-1)).tier == COLD
        assert (await house.get("c119", max_events=-1)).tier == WARM


async def _is_low(redis: Any, used: int) -> bool:
    return bool(int((await redis.info("memory"))["used_memory"]) < used * 0.9 * 0.85)


async def test_what_is_replaced_stays_for_a_while(
    open_house: Any, valkey: Any, *, cold: Any, make: Any, payload: Any, redis: Any
) -> None:
    settings = lifecycle(grace_duration=timedelta(hours=1), check_interval=timedelta(hours=1))
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        before = await known(house, make, payload)
        await house.move("WARM", ISSUE)
        at_hand = await full(house)
        assert (at_hand.served_tier, at_hand.context.tier) == (HOT, WARM)
        await house.append(make("late", at=99))
        await house.move("HOT", ISSUE)
        risen = (await full(house)).context
        assert [event.event_id for event in risen.events][-2:] == ["e11", "late"]
        await house.move("WARM", ISSUE)
        await redis.hset(keys.context("acme", ISSUE), "source_until", 0)
        await house.move("COLD", ISSUE)
        for path in objects(cold):
            path.unlink()
        # Its pack is in Redis still, the same bytes.
        at_hand = await full(house)
        assert (at_hand.context.tier, at_hand.context.event_count) == (COLD, 13)
        assert list(at_hand.context.events)[:12] == list(before.context.events)


async def test_two_who_move_the_same(tiered: Any, make: Any, payload: Any) -> None:
    before = await known(tiered, make, payload)
    for _ in range(5):
        told = await asyncio.gather(
            *(tiered.move(tier, ISSUE) for tier in ("WARM", "COLD", "COLD", "WARM", "HOT"))
        )
        reasons = {one.status.reason for (first, *_) in told for one in first.transitions}
        assert reasons <= {"", "TRANSITION_UNDER_WAY"}
        assert without_place((await full(tiered)).context) == without_place(before.context)


async def test_stats(tiered: Any, make: Any, payload: Any) -> None:
    for n in range(6):
        await tiered.append(make(f"e{n}", f"c{n}", payload=payload() + payload()))
    await tiered.move("WARM", "c0")
    await tiered.move("COLD", "c1")
    answer = await tiered.admin.GetStats(GetStatsRequest(tenant="acme"))
    (stats,) = answer.tenants
    by_tier = {one.tier: one for one in stats.tiers}
    assert [by_tier[tier].context_count for tier in (HOT, WARM, COLD)] == [4, 1, 1]
    assert by_tier[COLD].content_bytes > by_tier[COLD].stored_bytes > 0
    assert by_tier[HOT].stored_bytes > 4 * by_tier[WARM].stored_bytes * 0.8
    assert answer.redis_used_bytes > 0
    assert abs(stats.oldest_update_time.ToMilliseconds() - time.time() * 1000) < 60_000


@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
async def test_all_codecs_stay_readable(
    open_house: Any, valkey: Any, *, cold: Any, make: Any, payload: Any, redis: Any, codec: str
) -> None:
    settings = lifecycle(compression_type=codec)
    async with open_house(valkey, cold_storage=cold, context_lifecycle=settings) as house:
        before = await known(house, make, payload)
        await house.move("WARM", ISSUE)
        assert await redis.hget(keys.context("acme", ISSUE), "codec") == codec.encode()
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as house:
        assert without_place((await full(house)).context) == without_place(before.context)


async def test_nothing_readable_leaves_the_process(tiered: Any, make: Any, cold: Any, redis: Any) -> None:
    await tiered.append(make("e1", text="planted-needle", payload=b"planted-needle"))
    await tiered.move("WARM", ISSUE)
    (warm,) = await redis.hvals(keys.packs("acme", ISSUE))
    await tiered.move("COLD", ISSUE)
    (path,) = objects(cold)
    for stored in (warm, path.read_bytes(), str(path).encode()):
        assert b"planted" not in stored
        assert b"octo" not in stored
