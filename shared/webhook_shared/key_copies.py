"""Second copies of the tenants' key tables, beside what the keys have sealed: bucket and master key suffice.

A tenant's key is made of the master key and a random salt; without the salt nothing of that tenant opens.
Objects lie at `keys/v1/<tenant>/<key id>`, one for each salt, sealed under the master key and bound to their
names; the tenant is a keyed digest, since names appear in logs and inventories.

Layout: magic 4 | nonce 12 | ciphertext | tag 16. Content: Unix milliseconds 8, big-endian | salt 32.

Whoever destroys a tenant's keys must destroy the copies as well, and old versions of them where the bucket
keeps versions. A mark stays, so that nobody wonders why nothing opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from webhook_shared.envelope import Keyring, KeysDestroyed, UnknownKey
from webhook_shared.objects import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import Backoff

log = structlog.get_logger()

MAGIC = b"WHK1"
COPY_S = 60.0
"""How often to look for keys that have no copy, and for copies that are to go."""
DESTROYED = "destroyed"
_NONCE_BYTES = 12
_MADE_BYTES = 8
_SALT_BYTES = 32
_KEY_ID = re.compile(r"[0-9a-f]{16}")


class _Copy(NamedTuple):
    made_ms: int
    salt: bytes


class KeyCopies:
    """The copies in a store of objects.

    Args:
        objects: Where they lie.
        master_key: Names and seals them.
    """

    def __init__(self, objects: ObjectStore, master_key: SecretStr) -> None:
        self._objects = objects
        secret = master_key.get_secret_value().encode()
        self._key = hmac.digest(secret, b"webhook key copy names 1", "sha256")
        self._cipher = AESGCM(HKDF(SHA512(), 32, None, b"webhook key copies 1").derive(secret))
        self._copied: set[tuple[str, bytes]] = set()

    async def ensure(self, tenant: str, keyring: Keyring) -> None:
        """Let every key of a tenant have a copy that opens. Free once it is known to.

        Raises:
            KeysDestroyed: There are none any more.
            ObjectTrouble: Some may have none.
        """
        await keyring.prepare([tenant])
        for key_id, salt in keyring.salts(tenant).items():
            if (tenant, key_id) in self._copied:
                continue
            name = self._name(tenant, key_id.hex())
            try:
                held = await self._salt(name)
            except ObjectTrouble:
                # A directory comes to be with its first object; what is away says so again.
                held = None
            if held != salt:
                await self._put(name, salt)
            self._copied.add((tenant, key_id))

    async def salts(self, tenant: str) -> dict[bytes, bytes]:
        """The salts of a tenant's keys, by key id, the newest key first.

        Raises:
            KeysDestroyed: They were, on purpose.
            ObjectTrouble: It is not known.
        """
        beginning = self._name(tenant, "")
        ids = [name.removeprefix(beginning) for name in await self._objects.names(beginning)]
        if DESTROYED in ids:
            raise KeysDestroyed
        found: dict[bytes, _Copy] = {}
        for key_id in filter(_KEY_ID.fullmatch, ids):
            copy = await self._copy(beginning + key_id)
            if copy is not None:
                found[bytes.fromhex(key_id)] = copy
        newest_first = sorted(found.items(), key=lambda one: one[1].made_ms, reverse=True)
        return {key_id: copy.salt for key_id, copy in newest_first}

    async def destroy(self, tenant: str) -> None:
        """Leave nothing of a tenant's keys but the mark that they were destroyed.

        Raises:
            ObjectTrouble: Some may be left; to be repeated.
        """
        mark = self._name(tenant, DESTROYED)
        # First of all: from here on nobody takes what is left for keys that are in use.
        await self._objects.put(mark, b"")
        for name in await self._objects.names(self._name(tenant, "")):
            if name != mark:
                await self._objects.delete(name)
        self._copied = {one for one in self._copied if one[0] != tenant}

    async def _put(self, name: str, salt: bytes) -> None:
        nonce = os.urandom(_NONCE_BYTES)
        content = (time.time_ns() // 1_000_000).to_bytes(_MADE_BYTES, "big") + salt
        sealed = MAGIC + nonce + self._cipher.encrypt(nonce, content, name.encode())
        await self._objects.put(name, sealed)
        if await self._salt(name) == salt:
            return
        # Something damaged lies there, which no write replaces.
        await self._objects.delete(name)
        await self._objects.put(name, sealed)
        if await self._salt(name) != salt:
            raise ObjectTrouble("NotAsWritten")

    async def _salt(self, name: str) -> bytes | None:
        copy = await self._copy(name)
        return copy.salt if copy else None

    async def _copy(self, name: str) -> _Copy | None:
        try:
            sealed = await self._objects.get(name)
        except ObjectMissing:
            return None
        nonce, body = sealed[len(MAGIC) :][:_NONCE_BYTES], sealed[len(MAGIC) + _NONCE_BYTES :]
        try:
            content = self._cipher.decrypt(nonce, body, name.encode())
        except (InvalidTag, ValueError):
            content = b""
        if sealed[: len(MAGIC)] != MAGIC or len(content) != _MADE_BYTES + _SALT_BYTES:
            log.error("keys.copy_unreadable", name=name)
            return None
        return _Copy(int.from_bytes(content[:_MADE_BYTES], "big"), content[_MADE_BYTES:])

    def _name(self, tenant: str, one: str) -> str:
        owner = hashlib.blake2b(tenant.encode(), digest_size=16, key=self._key).hexdigest()
        return f"keys/v1/{owner}/{one}"


async def keep_keys_copied(
    copies: KeyCopies,
    keyring: Keyring,
    tenants: Callable[[], Awaitable[Iterable[str]]],
    every_s: float = COPY_S,
) -> None:
    """Copy keys that others make, and destroy the copies of those that are destroyed, for ever."""
    backoff = Backoff()
    destroyed: set[str] = set()
    while True:
        try:
            # What needs a copy makes sure of it by itself; this is for all else.
            await asyncio.sleep(every_s)
            for tenant in await tenants():
                try:
                    await keyring.look(tenant)
                    if keyring.salts(tenant):
                        await copies.ensure(tenant, keyring)
                except KeysDestroyed:
                    if tenant not in destroyed:
                        await copies.destroy(tenant)
                        destroyed.add(tenant)
                except UnknownKey:
                    continue
            backoff.reset()
        except Exception as error:  # noqa: BLE001  # whatever it is, the copying goes on
            log.warning("keys.not_copied", error=type(error).__name__)
            await backoff.wait()
