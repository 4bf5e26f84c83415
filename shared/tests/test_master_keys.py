"""Master keys come and go; what they sealed stays, and nobody starts without one that is still needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic import SecretStr
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import UnusableKey
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKeyMissing, MasterKeys, Purpose
from webhook_shared.settings import EncryptionSection, FromEnvironment

FIRST, SECOND, THIRD = (
    SecretStr(f"{name}-0123456789-abcdefghijklmnopqrstuvwxyz") for name in ("1", "2", "3")
)


class Place(NamedTuple):
    redis: Client
    objects: DirectoryObjectStore

    async def settled(self, newest: SecretStr, *previous: SecretStr) -> MasterKeys:
        keys = MasterKeys(newest, previous)
        await master_key_record.settle(self.redis, keys, self.objects)
        return keys

    async def turned_over(self, keys: MasterKeys) -> None:
        """What a rotation does at its two ends."""
        await master_key_record.change_over(self.redis, keys, self.objects, keys.newest)
        await master_key_record.retire(self.redis, self.objects, keys.newest.id)


@pytest.fixture
async def place(redis: Client, tmp_path: Path) -> Place:
    objects = DirectoryObjectStore(tmp_path)
    await objects.put("anything", b"")
    return Place(redis, objects)


async def test_names_outlive_the_key_that_made_them(place: Place) -> None:
    names = (await place.settled(FIRST)).names(Purpose.COLD_NAMES)
    await place.turned_over(await place.settled(SECOND, FIRST))
    await place.turned_over(await place.settled(THIRD, SECOND))
    third = await place.settled(THIRD)
    assert third.names(Purpose.COLD_NAMES) == names
    first, second = (MasterKeys(key).newest for key in (FIRST, SECOND))
    assert third.subkey(first.id, Purpose.ARCHIVE) == first.subkey(Purpose.ARCHIVE)
    assert third.subkey(second.id, Purpose.ARCHIVE) == second.subkey(Purpose.ARCHIVE)
    # The keys themselves are not inherited.
    with pytest.raises(MasterKeyMissing):
        third.subkey(first.id, Purpose.TENANT_KEYS)


async def test_the_objects_alone_tell_who_inherited(place: Place) -> None:
    names = (await place.settled(FIRST)).names(Purpose.COLD_NAMES)
    await place.turned_over(await place.settled(SECOND, FIRST))
    await place.redis.flushall()
    second = await place.settled(SECOND)
    assert second.names(Purpose.COLD_NAMES) == names
    assert second.sealing.id == second.newest.id
    await place.redis.flushall()
    with pytest.raises(ValueError, match="which is not here"):
        await place.settled(THIRD)


async def test_nobody_starts_without_a_key_that_is_needed(place: Place) -> None:
    first = await place.settled(FIRST)
    with pytest.raises(ValueError, match=f"master key {first.newest.id} is still needed") as refused:
        await place.settled(SECOND)
    assert "\n" not in str(refused.value)
    assert SECOND.get_secret_value() not in str(refused.value)
    # The next one alone seals nothing until a rotation says so.
    both = await place.settled(SECOND, FIRST)
    assert both.sealing.id == first.newest.id
    await place.turned_over(both)
    assert both.sealing.id == both.newest.id
    with pytest.raises(ValueError, match="still needed"):
        await place.settled(FIRST)
    await place.settled(SECOND)


async def test_before_there_is_a_record_the_tables_tell(redis: Client, tmp_path: Path) -> None:
    """There are no objects yet, so it is not known whether a record was lost."""
    place = Place(redis, DirectoryObjectStore(tmp_path / "none"))
    first = await place.settled(FIRST)
    assert await master_key_record.read(redis) == {}
    await Keyring(redis, first).prepare(["acme"])
    with pytest.raises(ValueError, match=f"wrapped under master key {first.newest.id}"):
        await place.settled(SECOND)
    assert (await place.settled(SECOND, FIRST)).sealing.id == first.newest.id
    await place.objects.put("anything", b"")
    assert await master_key_record.begin(redis, first, place.objects)
    assert master_key_record.needed(await master_key_record.read(redis)) == [first.newest.id]


async def test_a_process_follows_and_one_without_the_key_seals_nothing(place: Place) -> None:
    keys = await place.settled(SECOND, FIRST)
    lagging = Keyring(place.redis, await place.settled(FIRST))
    await master_key_record.change_over(place.redis, keys, place.objects, keys.newest)
    with pytest.raises(UnusableKey, match="ENCRYPTION_PREVIOUS_MASTER_KEYS"):
        await lagging.prepare(["acme"])
    keyring = Keyring(place.redis, keys)
    await keyring.prepare(["acme"])
    assert all(entry.startswith(keys.newest.id) for entry in keyring.entries("acme").values())


async def test_keys_that_follow_from_a_salt_still_open(redis: Client) -> None:
    """As versions before this one made them."""
    keys = MasterKeys(FIRST)
    salt, key_id = bytes(range(32)), bytes(8)
    await redis.hset("tenantkey:{acme}", mapping={"current": key_id.hex(), key_id.hex(): salt.hex()})
    old, new = Keyring(redis, keys), Keyring(redis, MasterKeys(SECOND, [FIRST]))
    await asyncio.gather(old.prepare(["acme"]), new.prepare(["acme"]))
    assert new.open("acme", old.seal("acme", b"content", "event", "1"), "event", "1") == b"content"


async def test_a_tampered_entry_is_told_and_spoils_nothing_else(redis: Client) -> None:
    keyring = Keyring(redis, MasterKeys(FIRST))
    await keyring.prepare(["acme"])
    sealed = keyring.seal("acme", b"content", "event", "1")
    (key_id,) = keyring.entries("acme")
    entry = keyring.entries("acme")[key_id]
    changed = entry[:-1] + ("0" if entry[-1] != "0" else "1")
    await redis.hset("tenantkey:{acme}", key_id.hex(), changed)
    late = Keyring(redis, MasterKeys(FIRST))
    with pytest.raises(UnusableKey, match=f"{key_id.hex()} was changed in the key table"):
        await late.prepare(["acme"])
    with pytest.raises(UnusableKey):
        late.open("acme", sealed, "event", "1")
    await late.prepare(["umbrella"])
    # Another tenant's entry is as good as a changed one.
    table = await redis.hgetall("tenantkey:{umbrella}")
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", mapping=table)
    with pytest.raises(UnusableKey):
        await Keyring(redis, MasterKeys(FIRST)).prepare(["acme"])


async def test_copies_follow_and_the_last_ones_go(place: Place, tmp_path: Path) -> None:
    first = await place.settled(FIRST)
    await KeyCopies(place.objects, first).ensure("acme", Keyring(place.redis, first))
    both = await place.settled(SECOND, FIRST)
    await master_key_record.change_over(place.redis, both, place.objects, both.newest)
    copies = KeyCopies(place.objects, both)
    await copies.ensure("acme", Keyring(place.redis, both))
    assert sorted([one async for one in copies.master_keys()]) == sorted(both.ids)
    await copies.drop_others("acme", both.newest.id)
    assert [one async for one in copies.master_keys()] == [both.newest.id]


def test_several_previous_keys_come_from_one_variable() -> None:
    both = FromEnvironment(f"{SECOND.get_secret_value()}, {FIRST.get_secret_value()}")
    section = EncryptionSection.model_validate({"previous_master_keys": both})
    assert section.previous_master_keys == (SECOND, FIRST)
    assert FIRST.get_secret_value() not in repr(section) + section.model_dump_json()
