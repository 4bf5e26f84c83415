"""Redis is lost, or some of it: segments bring back what they hold, and nothing that was forgotten."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from webhook.context.v1.context_admin_service_pb2 import RestoreRequest
from webhook.context.v1.context_pb2 import Tier
from webhook_context.packs.cold_names import home_of, segment_id_of
from webhook_context.parts.tiers import tiering
from webhook_context.recovery.orphans import Verdict
from webhook_context.segments.registry_redis import Origin
from webhook_context.segments.settings import ContextSegmentsSection
from webhook_context.store import keys
from webhook_shared import redis as servers
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection

from services.context.tests.test_restoring import counts, outcomes, restore
from services.context.tests.test_segments import Recorded, Yard, lies, members, webhook
from services.context.tests.test_tiers import full, lifecycle, without_place

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def cold(tmp_path: Path) -> ObjectStorageSection:
    return ObjectStorageSection(directory=tmp_path / "cold")


@pytest.fixture
async def house(open_house: Any, valkey: Any, cold: ObjectStorageSection) -> AsyncIterator[Any]:
    sections: Any = {
        "cold_storage": cold,
        "context_lifecycle": lifecycle(),
        "context_segments": ContextSegmentsSection(min_contexts=2, forget_interval="0s"),
    }
    async with open_house(valkey, **sections) as up:
        yield up


async def several(house: Any, make: Any, count: int) -> list[str]:
    ids = [f"github:octo/hello:issue:{n}" for n in range(count)]
    await house.append(*(make(f"e-{one}", context_id=one, payload=one.encode()) for one in ids))
    (*_, done) = await house.move("COLD")
    assert done.moved_count == count
    return ids


def segments(cold: ObjectStorageSection) -> list[Path]:
    return sorted(cold.directory.rglob("*.seg"))


async def test_everything_in_segments_comes_back(house: Any, make: Any, redis: Any, cold: Any) -> None:
    ids = await several(house, make, 6)
    before = {one: await full(house, one) for one in ids}
    assert len(segments(cold)) == 1
    await house.delete(ids[0])
    # Changed since: what it was is still in the segment, and is not what it is.
    await house.append(make("later", context_id=ids[1]))
    await house.move("HOT", ids[1])
    await redis.flushall()
    assert counts(await restore(house, dry_run=True)) == counts(await restore(house))
    for one in ids[2:]:
        assert without_place((await full(house, one)).context) == without_place(before[one].context)
    listed = {found.context_id for found in (await house.list()).contexts}
    assert ids[0] not in listed
    assert listed >= set(ids[2:])
    # It is looked after again: what leaves it is forgotten, and the last one takes it along.
    assert counts(await restore(house)).keys() == {"present"}
    for one in listed:
        await house.delete(one)
    assert segments(cold) == []


async def test_what_of_a_segment_cannot_be_used_is_named(
    house: Any, make: Any, redis: Any, cold: Any
) -> None:
    ids = await several(house, make, 3)
    pointer = (await redis.hget(keys.context("acme", ids[0]), "pointer")).decode()
    found = lies(pointer)
    path = cold.directory / found.segment
    whole = path.read_bytes()
    harmed = bytearray(whole)
    harmed[found.offset] ^= 1
    path.write_bytes(harmed)
    await redis.flushall()
    told = await restore(house)
    assert counts(told) == {"restored": 2, "failed": 1}
    (failed,) = [one for one in outcomes(told) if one.reason]
    assert (failed.object_name, failed.reason) == (str(found), "DAMAGED")
    assert found.key.hex() not in str(told)
    path.write_bytes(whole)
    assert counts(await restore(house)) == {"restored": 1, "present": 2}
    (beside,) = path.parent.glob("*.keys")
    beside.unlink()
    await redis.flushall()
    (failed,) = outcomes(await restore(house))
    assert failed.reason == "SEGMENT_KEYS_MISSING"


async def test_an_interrupted_restore_goes_on_behind_a_segment(house: Any, make: Any, redis: Any) -> None:
    await several(house, make, 3)
    await house.append(*(make(f"more-{n}", context_id=f"more-{n}") for n in range(3)))
    await house.move("COLD")
    await redis.flushall()
    call = house.admin.Restore(RestoreRequest())
    first = await call.read()
    call.cancel()
    assert first.counts.restored == 3
    rest = await restore(house, resume_token=first.resume_token)
    # Before it heard of the end it may have come farther than was told.
    assert sum(counts(rest).values()) == 3


@pytest.fixture
async def yard(valkey: Any, tmp_path: Path) -> AsyncIterator[Yard]:
    client = servers.connect(valkey)
    cold = Recorded(DirectoryObjectStore(tmp_path / "cold"))
    yield Yard(tiering(client, cold, webhook(valkey)), cold, client, {})
    await client.aclose()


async def a_day_later(yard: Yard) -> dict[Verdict, int]:
    await yard.parts.orphans.sweep()
    for name, noted_ms in await yard.client.zrange(keys.ORPHANS, 0, -1, withscores=True):
        await yard.client.zadd(keys.ORPHANS, {name: noted_ms - DAY_MS})
    return dict(await yard.parts.orphans.sweep())


async def test_an_orphaned_segment_goes_when_nothing_in_it_is_needed(
    yard: Yard, make: Any, tmp_path: Path
) -> None:
    ids = await yard.fill(make, 4)
    await yard.move(ids)
    root, backup = tmp_path / "cold", tmp_path / "backup"
    shutil.copytree(root, backup)
    assert await a_day_later(yard) == {}
    await yard.move(ids[:3], Tier.TIER_HOT)
    await yard.parts.store.delete("acme", ids[3], "")
    for one in ids:
        await yard.parts.transitions.drop("acme", one)
    assert not list(root.rglob("*.seg"))
    shutil.copytree(backup, root, dirs_exist_ok=True)
    # All of it is in Redis, or deleted.
    assert await a_day_later(yard) == {Verdict.DROPPED: 1}
    assert not [path for path in root.rglob("*.*") if "segments" in path.parts and path.is_file()]
    # One of them is not.
    shutil.copytree(backup, root, dirs_exist_ok=True)
    await yard.client.delete(keys.context("acme", ids[0]))
    assert await a_day_later(yard) == {Verdict.UNRESTORED: 1}
    assert len(list(root.rglob("*.seg"))) == 1


async def test_a_segment_that_contexts_point_to_is_no_orphan(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 4)
    await yard.move(ids)
    name = lies((await yard.pointers(ids))[0]).segment
    await yard.parts.small.known.remove("acme", segment_id_of(home_of(name)))
    assert await a_day_later(yard) == {}
    # Not even listed, as after a crash: Redis points to it all the same.
    await yard.client.delete(keys.index("acme"))
    assert await a_day_later(yard) == {Verdict.NEEDED: 1}
    await yard.holds(ids)


async def test_what_came_back_is_looked_after(house: Any, make: Any, redis: Any, yard: Yard) -> None:
    ids = await several(house, make, 4)
    await redis.flushall()
    await restore(house)
    name = lies((await yard.pointers(ids))[0]).segment
    state = await yard.parts.small.known.state("acme", segment_id_of(home_of(name)))
    assert state is not None
    assert (state.origin, state.outcome, state.live) == (Origin.RESTORED, "complete", state.size)
    assert await members(yard, name) == ids
