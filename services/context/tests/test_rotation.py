"""From one master key to the next while everything goes on; afterwards the last one may be forgotten.

By default it is killed at some of the steps; with WEBHOOK_TEST_CRASHES set at every one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_service_pb2
from webhook.security.v1 import audit_pb2
from webhook_context.master_keys import administration
from webhook_context.master_keys.key_tables import KeyTables
from webhook_context.master_keys.rotation import Phase, Rotation, Timing
from webhook_shared import redis as store
from webhook_shared.audit.chain import AuditChain, Seal
from webhook_shared.objects import opening as object_store
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection, ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, RedisError
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import KeysDestroyed
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKeys
from webhook_shared.settings import EncryptionSection, RedisSection

from conftest import on_cluster
from services.context.tests.conftest import MASTER_KEY
from services.context.tests.doom import WAYS, Doom, DoomedStore, doomed_redis
from services.context.tests.test_tiers import lifecycle
from shared.tests.s3_server import make_bucket, moto_server, section_of

NEXT_KEY = SecretStr("the-next-one-0123456789-abcdefghijklmnopqrstuvwxyz")
AT_ONCE = Timing(poll_s=0.01, lease_ms=1, settled_ms=0)
STRIDE = 1 if "WEBHOOK_TEST_CRASHES" in os.environ else 5
TENANTS = ("acme", "umbrella", "initech")
_DEATH: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError, ObjectTrouble)


async def nothing() -> None:
    """Where there is no audit chain."""


def rotation_of(client: Any, objects: Any, keys: MasterKeys) -> Rotation:
    copies = KeyCopies(objects, keys)
    tables = KeyTables(client, keys, copies)
    return Rotation(client, keys, tables, copies, objects, reseal=nothing, timing=AT_ONCE)


async def done(rotation: Rotation) -> Any:
    async with asyncio.timeout(30):
        while (state := await rotation.state()) is None or state.phase != Phase.DONE:
            await rotation.advance()
            await asyncio.sleep(0.002)
    return state


async def settled(client: Any, objects: Any, newest: SecretStr, *previous: SecretStr) -> MasterKeys:
    keys = MasterKeys(newest, previous)
    await master_key_record.settle(client, keys, objects)
    return keys


async def sealed_by(
    client: Any, objects: Any, keys: MasterKeys, tenants: Sequence[str] = TENANTS
) -> dict[str, bytes]:
    keyring, copies = Keyring(client, keys), KeyCopies(objects, keys)
    for tenant in tenants:
        await copies.ensure(tenant, keyring)
    return {tenant: keyring.seal(tenant, b"content", "event", "1") for tenant in tenants}


async def test_killed_at_every_step_it_comes_to_its_end(
    valkey: RedisSection, redis: store.Client, tmp_path: Path
) -> None:
    port, doom = int(valkey.addresses[0].rpartition(":")[2]), Doom()
    async with doomed_redis(port, doom) as reached:
        for step, way in zip(count(step=STRIDE), cycle(WAYS), strict=False):
            doom.revive()
            await redis.flushall()
            objects = DirectoryObjectStore(tmp_path / str(step))
            await objects.put("anything", b"")
            first = await settled(redis, objects, MASTER_KEY)
            sealed = await sealed_by(redis, objects, first, TENANTS[:2])
            keys = await settled(redis, objects, NEXT_KEY, MASTER_KEY)
            await rotation_of(redis, objects, keys).order(per_second=100_000)
            dying = store.connect(RedisSection(addresses=(f"127.0.0.1:{reached}",)))
            doom.revive(at=step, way=way)
            try:
                await done(rotation_of(dying, DoomedStore(objects, doom), keys))
                survived = True
            except _DEATH:
                survived = False
            await dying.aclose()
            # Whoever takes over has both keys; whoever starts later only the next one.
            state = await done(
                rotation_of(redis, objects, await settled(redis, objects, NEXT_KEY, MASTER_KEY))
            )
            assert (state.damaged, state.stale_copies) == (0, 0)
            late = Keyring(redis, await settled(redis, objects, NEXT_KEY))
            await late.prepare(sealed)
            assert {late.open(tenant, sealed[tenant], "event", "1") for tenant in sealed} == {b"content"}
            if survived:
                # A Cluster tells where it is: fewer commands pass by what kills.
                assert step > (25 if on_cluster() else 30)
                return


async def test_what_is_damaged_comes_from_its_copy_or_holds_up_the_end(
    redis: store.Client, tmp_path: Path
) -> None:
    objects = DirectoryObjectStore(tmp_path)
    await objects.put("anything", b"")
    sealed = await sealed_by(redis, objects, await settled(redis, objects, MASTER_KEY))
    for tenant in TENANTS:
        table = f"tenantkey:{{{tenant}}}"
        (key_id,) = [name for name in await redis.hkeys(table) if name != b"current"]
        await redis.hset(table, key_id, b"00" * 10)
    keys = await settled(redis, objects, NEXT_KEY, MASTER_KEY)
    rotation = rotation_of(redis, objects, keys)
    await rotation.order(per_second=100_000)
    state = await done(rotation)
    assert (state.rewrapped, state.damaged) == (3, 0)
    late = Keyring(redis, await settled(redis, objects, NEXT_KEY))
    await late.prepare(TENANTS)
    assert late.open("acme", sealed["acme"], "event", "1") == b"content"


async def test_keys_that_redis_has_lost_hold_up_the_end(redis: store.Client, tmp_path: Path) -> None:
    objects = DirectoryObjectStore(tmp_path)
    await objects.put("anything", b"")
    await sealed_by(redis, objects, await settled(redis, objects, MASTER_KEY))
    await redis.delete("tenantkey:{umbrella}")
    await redis.delete("tenantkey:{initech}")
    await redis.hset("tenantkey:{initech}", "destroyed", "1")
    keys = await settled(redis, objects, NEXT_KEY, MASTER_KEY)
    rotation = rotation_of(redis, objects, keys)
    await rotation.order(per_second=100_000)
    for _ in range(5):
        await rotation.advance()
    state = await rotation.state()
    assert state is not None
    assert (state.phase, state.stale_copies) == (Phase.SETTLING, 1)
    with pytest.raises(ValueError, match="still needed"):
        await settled(redis, objects, NEXT_KEY)
    with pytest.raises(KeysDestroyed):
        await KeyCopies(objects, keys).entries("initech")
    # As a restore does.
    keyring = Keyring(redis, keys)
    keyring.learn("umbrella", await KeyCopies(objects, keys).entries("umbrella"))
    await keyring.prepare(["umbrella"])
    assert (await done(rotation)).retired == (MasterKeys(MASTER_KEY).newest.id,)


class Door:
    """A context store with its keys, on one bucket."""

    def __init__(self, open_house: Any, valkey: RedisSection, cold: ObjectStorageSection) -> None:
        self._open, self._valkey, self._cold = open_house, valkey, cold

    def open(self, newest: SecretStr, *previous: SecretStr) -> Any:
        encryption = EncryptionSection(master_key=newest, previous_master_keys=previous)
        return self._open(
            self._valkey, cold_storage=self._cold, context_lifecycle=lifecycle(), encryption=encryption
        )


@pytest.fixture
def door(open_house: Any, valkey: RedisSection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(administration, "TIMING", AT_ONCE)
    return Door(open_house, valkey, ObjectStorageSection(directory=tmp_path / "cold"))


async def test_a_bucket_alone_knows_the_next_key(redis: store.Client) -> None:
    with moto_server() as url:
        async with object_store.opened(section_of(url, make_bucket(url))) as objects:
            first = await settled(redis, objects, MASTER_KEY)
            sealed = await sealed_by(redis, objects, first, ["acme"])
            rotation = rotation_of(redis, objects, await settled(redis, objects, NEXT_KEY, MASTER_KEY))
            await rotation.order(per_second=100_000)
            await done(rotation)
            await redis.flushall()
            keys = await settled(redis, objects, NEXT_KEY)
            late = Keyring(redis, keys)
            late.learn("acme", await KeyCopies(objects, keys).entries("acme"))
            assert late.open("acme", sealed["acme"], "event", "1") == b"content"


async def rotated(house: Any) -> admin_pb2.GetKeysResponse:
    await house.admin.RotateKeys(admin_pb2.RotateKeysRequest(max_per_second=1000))
    async with asyncio.timeout(60):
        while True:
            told: admin_pb2.GetKeysResponse = await house.admin.GetKeys(admin_pb2.GetKeysRequest())
            if told.rotation.phase == admin_pb2.KEY_ROTATION_PHASE_DONE:
                return told
            await asyncio.sleep(0.01)


async def test_with_writers_at_work_nothing_is_lost_and_the_last_key_can_go(
    door: Door, make: Any, payload: Any, redis: store.Client
) -> None:
    ids = ["github:a/b:issue:1", "github:a/b:issue:2", "github:a/b:issue:3"]
    bodies: dict[str, bytes] = {}

    async def write(house: Any, one: str, number: int) -> None:
        event_id = f"{one}-{number}"
        bodies[event_id] = payload()
        (result,) = await house.append(make(event_id, one, payload=bodies[event_id], at=number))
        assert not result.HasField("status") or not result.status.code

    async with door.open(MASTER_KEY) as house:
        for one in ids:
            await write(house, one, 0)
        await house.move("WARM", ids[1])
        await house.move("COLD", ids[2])
        context = await house.get(ids[0])
        context.title = "by hand"
        await house.update(context, "title")

    async with door.open(NEXT_KEY, MASTER_KEY) as house:
        old, new = MasterKeys(MASTER_KEY).newest.id, MasterKeys(NEXT_KEY).newest.id
        foreseen = await house.admin.RotateKeys(admin_pb2.RotateKeysRequest(dry_run=True))
        assert (foreseen.rotation.rewrapped_count, foreseen.rotation.target_master_key_id) == (1, new)
        before = await house.admin.GetKeys(admin_pb2.GetKeysRequest())
        assert {one.master_key_id: one.sealing for one in before.master_keys} == {new: False, old: True}
        rotating = asyncio.create_task(rotated(house))
        for number in range(1, 4):
            await asyncio.gather(*(write(house, one, number) for one in ids))
        told = await rotating
        assert list(told.rotation.retired_master_key_ids) == [old]
        counted = {
            one.master_key_id: (one.sealing, one.needed, one.tenant_key_count, one.key_copy_count)
            for one in told.master_keys
        }
        assert counted == {new: (True, True, 2, 2), old: (False, False, 0, 0)}
        await write(house, ids[0], 4)

    async def everything_opens(house: Any, *, cold_alone: bool = False) -> None:
        for one in ids[2:] if cold_alone else ids:
            found = await house.get(one, max_events=100, include_payloads=True)
            got = {event.event_id: event.payload for event in found.events}
            assert got == {event_id: body for event_id, body in bodies.items() if event_id.startswith(one)}

    async with door.open(NEXT_KEY) as house:
        await everything_opens(house)
        revisions = await house.contexts.ListRevisions(
            context_service_pb2.ListRevisionsRequest(tenant="acme", context_id=ids[0])
        )
        assert len(revisions.revisions) == 1
        await house.move("COLD", ids[2])
    seal = Seal(MasterKeys(NEXT_KEY))
    chain = AuditChain(redis, seal, most=1000, contract=audit_pb2)
    assert await chain.head() is not None
    calls = [entry.record.admin_call for entry in await chain.entries(after=0, most=100)]
    assert [call.outcome for call in calls if call.method.endswith("/RotateKeys")] == ["OK", "OK"]

    await redis.flushall()
    async with door.open(NEXT_KEY) as house:
        restored = [told async for told in house.admin.Restore(admin_pb2.RestoreRequest())]
        assert restored[-1].counts.failed == 0
        await everything_opens(house, cold_alone=True)
