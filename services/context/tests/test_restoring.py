"""Redis is lost; the bucket and the master key bring back what was cold."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_pb2, context_service_pb2
from webhook_context.packs.cold_names import ColdNames
from webhook_context.recovery import restoring
from webhook_context.store import keys
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.sealing.key_copies import KeyCopies

from conftest import keys_of
from services.context.tests.conftest import MASTER_KEY
from services.context.tests.test_tiers import ISSUE, full, known, lifecycle, objects, until, without_place
from shared.tests.s3_server import make_bucket, moto_server, section_of

RESTORED, JOINED = admin_pb2.RESTORE_OUTCOME_RESTORED, admin_pb2.RESTORE_OUTCOME_JOINED
FAILED = admin_pb2.RESTORE_OUTCOME_FAILED


@pytest.fixture
def cold(tmp_path: Path) -> ObjectStorageSection:
    return ObjectStorageSection(directory=tmp_path / "cold")


@pytest.fixture
async def house(open_house: Any, valkey: Any, cold: ObjectStorageSection) -> AsyncIterator[Any]:
    async with open_house(valkey, cold_storage=cold, context_lifecycle=lifecycle()) as up:
        yield up


async def restore(house: Any, **asked: Any) -> list[Any]:
    return [told async for told in house.admin.Restore(admin_pb2.RestoreRequest(**asked))]


def counts(told: list[Any]) -> dict[str, int]:
    assert told[-1].done
    return {field.name: value for field, value in told[-1].counts.ListFields() if field.name != "bytes"}


def outcomes(told: list[Any]) -> list[Any]:
    return [one for message in told for one in message.restorations]


def packs(cold: ObjectStorageSection) -> list[Path]:
    return sorted(path for path in objects(cold) if path.suffix == ".pack")


async def dump(redis: Any) -> dict[bytes, bytes]:
    """All of Redis but what a search index or a loop notes."""
    found = await keys_of(redis, "*") - {b"ctxsweep", b"ctxorphansturn"}
    return {key: await redis.dump(key) for key in sorted(found)}


async def several(house: Any, make: Any, count: int) -> list[str]:
    ids = [f"github:octo/hello:issue:{n}" for n in range(100, 100 + count)]
    await house.append(*(make(f"e-{one}", context_id=one, text=f"words of {one}") for one in ids))
    for one in ids:
        await house.move("COLD", one)
    return ids


async def test_everything_cold_comes_back(
    open_house: Any, valkey: Any, cold: Any, *, make: Any, payload: Any, redis: Any
) -> None:
    sections: Any = {"cold_storage": cold, "context_lifecycle": lifecycle()}
    async with open_house(valkey, **sections) as house:
        await known(house, make, payload)
        patch = '{"attributes": {"team": "blue"}, "title": "said by hand"}'
        await house.contexts.PatchContext(
            context_service_pb2.PatchContextRequest(context_id=ISSUE, tenant="acme", merge_patch_json=patch)
        )
        before = await full(house)
        await house.move("COLD", ISSUE)
    await redis.flushall()
    # A process that was not there before: it knows nothing but the directory and the master key.
    async with open_house(valkey, **sections) as house:
        told = await restore(house)
        assert counts(told) == {"restored": 1}
        (one,) = outcomes(told)
        assert (one.outcome, one.tenant, one.context_id, one.event_count) == (RESTORED, "acme", ISSUE, 12)
        after = await full(house)
        assert after.served_tier == context_pb2.TIER_COLD
        assert without_place(after.context) == without_place(before.context)
        assert np.allclose(after.context.enrichment.vector, [0.6, 0.8], atol=1e-3)
        assert [found.context_id for found in (await house.list()).contexts] == [ISSUE]
        for asked in ({"query": "payment"}, {"query": "said by hand"}):
            assert [match.context.context_id for match in (await house.search(**asked)).matches] == [ISSUE]
        revisions = await house.contexts.ListRevisions(
            context_service_pb2.ListRevisionsRequest(context_id=ISSUE, tenant="acme")
        )
        assert set(revisions.revisions[0].changed) == {"title", "attributes"}
        # Events that it has are known, new ones are taken, and it goes on through the tiers.
        await house.append(make("e3", at=3), make("new", at=90))
        await house.move("HOT", ISSUE)
        assert (await full(house)).context.event_count == 13


async def test_again_and_dry_run_change_nothing(house: Any, make: Any, redis: Any, cold: Any) -> None:
    ids = await several(house, make, 3)
    await redis.flushall()
    told = await restore(house, dry_run=True)
    assert counts(told) == {"restored": 3}
    assert {one.context_id for one in outcomes(told)} == set(ids)
    assert {key for key in await dump(redis) if b"ctx" in key} == set()
    assert counts(await restore(house)) == {"restored": 3}
    lies, held = packs(cold), await dump(redis)
    assert counts(await restore(house)) == {"present": 3}
    assert counts(await restore(house, dry_run=True)) == {"present": 3}
    assert (packs(cold), await dump(redis)) == (lies, held)


async def test_an_interrupted_restore_goes_on(
    house: Any, make: Any, redis: Any, monkeypatch: pytest.MonkeyPatch, refused: Any
) -> None:
    monkeypatch.setattr(restoring, "RESTORED_AT_ONCE", 2)
    await several(house, make, 5)
    await redis.flushall()
    call = house.admin.Restore(admin_pb2.RestoreRequest())
    first = await call.read()
    call.cancel()
    assert (first.counts.restored, first.done) == (2, False)
    rest = await restore(house, resume_token=first.resume_token)
    assert sum(counts(rest).values()) == 3
    assert (await house.admin.GetStats(admin_pb2.GetStatsRequest())).tenants[0].context_count == 5
    assert counts(await restore(house, resume_token=rest[-1].resume_token)) == {}
    token = admin_pb2.RestoreRequest(tenant="acme", resume_token="archive/v1/x")
    await refused(house.admin.Restore(token).read(), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_what_redis_has_newer_is_joined_not_replaced(
    house: Any, make: Any, *, payload: Any, redis: Any
) -> None:
    before = (await known(house, make, payload)).context
    await house.move("COLD", ISSUE)
    await redis.flushall()
    # It went on before anybody restored: one event that the object has as well, one that it has not.
    await house.append(make("e3", at=3, text="text 3"), make("later", at=500, title="newer"))
    assert counts(await restore(house, dry_run=True)) == {"joined": 1}
    assert (await house.get(ISSUE)).event_count == 2
    assert counts(await restore(house)) == {"joined": 1}
    after = (await full(house)).context
    assert (after.event_count, after.title) == (13, "newer")
    assert {event.event_id: event.payload for event in before.events if event.event_id != "e3"}.items() <= {
        event.event_id: event.payload for event in after.events
    }.items()
    assert after.enrichment.summary == "a payment problem"
    assert counts(await restore(house)) == {"present": 1}


async def _is_dropped(redis: Any) -> bool:
    return not await redis.hexists(keys.context("acme", ISSUE), "dropping")


async def test_a_newer_hot_context_stays_as_it_is(
    house: Any, make: Any, *, payload: Any, redis: Any, cold: Any, tmp_path: Path
) -> None:
    await known(house, make, payload)
    await house.move("COLD", ISSUE)
    shutil.copytree(cold.directory, tmp_path / "backup")
    await house.append(make("newer", at=700))
    await house.move("HOT", ISSUE)
    # Whatever else was to be done about it is done, and a copy of the bucket comes back beside it.
    await until(lambda: _is_dropped(redis))
    shutil.copytree(tmp_path / "backup", cold.directory, dirs_exist_ok=True)
    before = await full(house)
    held = await redis.hgetall(keys.context("acme", ISSUE))
    assert counts(await restore(house)) == {"present": 1}
    assert await full(house) == before
    assert (await redis.hgetall(keys.context("acme", ISSUE))).keys() == held.keys()


async def test_damaged_and_foreign_objects_are_told_by_name(
    house: Any, make: Any, redis: Any, cold: Any
) -> None:
    await several(house, make, 4)
    damaged, moved, garbage, good = packs(cold)
    damaged.write_bytes(damaged.read_bytes()[:-40] + bytes(40))
    stranger = moved.parent.with_name("f" * 32) / moved.name
    stranger.parent.mkdir()
    moved.rename(stranger)
    garbage.write_bytes(b"not ours")
    elsewhere = cold.directory / ColdNames(MASTER_KEY).prefix("acme", "x") / "readme.txt"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_bytes(b"WHP1\x00\x04nobo")
    await redis.flushall()
    told = await restore(house)
    assert counts(told) == {"restored": 1, "failed": 4}
    reasons = {
        cold.directory / one.object_name: one.reason for one in outcomes(told) if one.outcome == FAILED
    }
    assert reasons == {
        damaged: "DAMAGED",
        stranger: "NAME_DIFFERS",
        garbage: "NOT_A_PACK",
        elsewhere: "NAME_DIFFERS",
    }
    assert good in packs(cold)
    assert len((await house.list()).contexts) == 1


async def test_a_damaged_object_falls_back_to_the_one_before(
    house: Any, make: Any, *, redis: Any, cold: Any, tmp_path: Path
) -> None:
    (one,) = await several(house, make, 1)
    shutil.copytree(cold.directory, tmp_path / "before")
    await house.append(make("second", context_id=one, at=5))
    await house.move("HOT", one)
    await house.move("COLD", one)
    (newest,) = packs(cold)[-1:]
    shutil.copytree(tmp_path / "before", cold.directory, dirs_exist_ok=True)
    await redis.flushall()
    assert counts(await restore(house, dry_run=True)) == {"restored": 1, "present": 1}
    assert counts(await restore(house)) == {"restored": 1, "present": 1}
    assert (await house.get(one)).event_count == 2
    await redis.flushall()
    newest.write_bytes(newest.read_bytes()[:-1])
    assert counts(await restore(house)) == {"restored": 1, "failed": 1}
    assert (await house.get(one)).event_count == 1


async def test_the_deleted_stay_deleted(
    house: Any, make: Any, *, redis: Any, cold: Any, tmp_path: Path, refused: Any
) -> None:
    (one,) = await several(house, make, 1)
    shutil.copytree(cold.directory, tmp_path / "backup")
    await house.delete(one)
    shutil.copytree(tmp_path / "backup", cold.directory, dirs_exist_ok=True)
    assert counts(await restore(house)) == {"deleted": 1}
    await refused(house.get(one), "NOT_FOUND", "CONTEXT_NOT_FOUND")


async def test_one_tenant_and_whose_keys_are_gone(
    house: Any, make: Any, redis: Any, cold: Any, refused: Any
) -> None:
    await several(house, make, 1)
    await house.append(make("other", tenant="umbrella"))
    await house.move("COLD", ISSUE, tenant="umbrella")
    await redis.flushall()
    assert counts(await restore(house, tenant="umbrella")) == {"restored": 1}
    assert (await house.get(ISSUE, tenant="umbrella")).event_count == 1
    assert not (await house.list()).contexts
    await KeyCopies(DirectoryObjectStore(cold.directory), MASTER_KEY).destroy("acme")
    told = await restore(house)
    assert counts(told) == {"present": 1, "failed": 1}
    assert outcomes(told)[0].reason == "TENANT_KEYS_DESTROYED"
    shutil.move(cold.directory, cold.directory.with_name("away"))
    await refused(
        house.admin.Restore(admin_pb2.RestoreRequest()).read(), "UNAVAILABLE", "COLD_STORE_UNREACHABLE"
    )


async def test_dirty_contexts_ask_for_enrichment(house: Any, make: Any, redis: Any) -> None:
    (one,) = await several(house, make, 1)
    await redis.flushall()
    await restore(house)
    ((_, entry),) = await redis.xrange(keys.ENRICHMENT)
    assert entry[b"context_id"].decode() == one
    held = await redis.hmget(keys.context("acme", one), "dirty", "queued")
    assert held[0] == held[1] is not None


async def test_a_bucket_brings_back_as_much(open_house: Any, valkey: Any, make: Any, redis: Any) -> None:
    with moto_server() as url:
        section = section_of(url, make_bucket(url))
        sections: Any = {"cold_storage": section, "context_lifecycle": lifecycle()}
        async with open_house(valkey, **sections) as house:
            ids = await several(house, make, 3)
        await redis.flushall()
        async with open_house(valkey, **sections) as house:
            assert counts(await restore(house)) == {"restored": 3}
            assert {(await house.get(one)).event_count for one in ids} == {1}
