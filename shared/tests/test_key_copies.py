"""The bucket has a second copy of each tenant's keys, and it goes when the keys go."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import KeysDestroyed, UnknownKey
from webhook_shared.sealing.key_copies import DESTROYED, KeyCopies, keep_keys_copied

MASTER_KEY = SecretStr(secrets.token_urlsafe(48))


@pytest.fixture
def copies(tmp_path: Path) -> KeyCopies:
    return KeyCopies(DirectoryObjectStore(tmp_path), MASTER_KEY)


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def _destroyed(redis: Client) -> None:
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")


async def test_keys_come_back_from_their_copies(redis: Client, copies: KeyCopies, tmp_path: Path) -> None:
    keyring = Keyring(redis, MASTER_KEY)
    await copies.ensure("acme", keyring)
    sealed = keyring.seal("acme", b"content", "event", "1")
    table = await redis.hgetall("tenantkey:{acme}")
    await redis.flushall()

    late = Keyring(redis, MASTER_KEY)
    late.learn("acme", await copies.entries("acme"))
    assert late.open("acme", sealed, "event", "1") == b"content"
    assert await redis.keys("tenantkey:*") == []
    await late.prepare(["acme"])
    assert await redis.hgetall("tenantkey:{acme}") == table
    (path,) = _files(tmp_path)
    (entry,) = late.entries("acme").values()
    assert entry.encode() not in path.read_bytes()
    assert "acme" not in str(path.relative_to(tmp_path))


async def test_no_key_is_made_by_looking(redis: Client, copies: KeyCopies) -> None:
    keyring = Keyring(redis, MASTER_KEY)
    await keyring.look("acme")
    assert keyring.entries("acme") == {}
    assert await redis.keys("*") == []
    with pytest.raises(UnknownKey):
        keyring.seal("acme", b"content", "event", "1")


async def test_every_key_of_a_tenant_and_the_newest_seals(redis: Client, copies: KeyCopies) -> None:
    keyring = Keyring(redis, MASTER_KEY)
    await copies.ensure("acme", keyring)
    await redis.flushall()
    await asyncio.sleep(0.002)
    rotated = Keyring(redis, MASTER_KEY)
    await copies.ensure("acme", rotated)
    entries = await copies.entries("acme")
    assert entries == {**rotated.entries("acme"), **keyring.entries("acme")}
    assert next(iter(entries)) == next(iter(rotated.entries("acme")))


async def test_a_damaged_copy_is_made_anew(redis: Client, copies: KeyCopies, tmp_path: Path) -> None:
    keyring = Keyring(redis, MASTER_KEY)
    await copies.ensure("acme", keyring)
    (path,) = _files(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert await copies.entries("acme") == {}
    await KeyCopies(DirectoryObjectStore(tmp_path), MASTER_KEY).ensure("acme", keyring)
    assert await copies.entries("acme") == keyring.entries("acme")
    # Under another tenant's name, or with another master key, it opens nothing.
    path.replace(path.with_name("0" * 16))
    assert await copies.entries("acme") == {}


async def test_where_no_copy_can_be_made_it_is_said(redis: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    away = KeyCopies(DirectoryObjectStore(tmp_path / "file" / "cold"), MASTER_KEY)
    with pytest.raises(ObjectTrouble):
        await away.ensure("acme", Keyring(redis, MASTER_KEY))


async def test_copies_are_destroyed_with_the_keys(redis: Client, copies: KeyCopies, tmp_path: Path) -> None:
    keyring = Keyring(redis, MASTER_KEY)
    await keyring.prepare(["acme", "umbrella"])

    async def tenants() -> list[str]:
        return ["acme", "umbrella", "nobody"]

    def files() -> list[str]:
        return [path.name for path in _files(tmp_path)]

    keeping = asyncio.create_task(keep_keys_copied(copies, keyring, tenants, every_s=0.01))
    async with asyncio.timeout(5):
        while len(files()) < 2:
            await asyncio.sleep(0.01)
        await _destroyed(redis)
        while DESTROYED not in files() or len(files()) > 2:
            await asyncio.sleep(0.01)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
    with pytest.raises(KeysDestroyed):
        await copies.entries("acme")
    assert len(await copies.entries("umbrella")) == 1
    assert await redis.keys("tenantkey:{nobody}") == []
