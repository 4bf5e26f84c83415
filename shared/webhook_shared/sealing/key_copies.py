"""Second copies of the tenants' key tables, beside what the keys have sealed: bucket and master key suffice.

Without its entry in the key table (`tenant_keys`) nothing opens that a tenant's key has sealed. Objects lie
at `keys/v1/<tenant>/<key id>.<master key id>`, one for each entry, sealed once more under that master key and
bound to their names; the tenant is a keyed digest, since names appear in logs and inventories. In a rotation
the copy under the next master key is there before the one under the last is gone.

Layout: magic 4 | nonce 12 | ciphertext | tag 16. Content: Unix milliseconds 8, big-endian | entry. A copy of
a key that follows from a salt has no master key's id in its name and the 32 bytes of the salt as its entry.

Whoever destroys a tenant's keys must destroy the copies as well, and old versions of them where the bucket
keeps versions. A mark stays, so that nobody wonders why nothing opens.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple

import structlog
from pydantic import SecretStr

from webhook_shared.objects.protocol import MOST_NAMES, ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import Backoff
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import KeysDestroyed, UnknownKey
from webhook_shared.sealing.master_keys import MasterKeys, Purpose
from webhook_shared.sealing.tenant_keys import wrapped_under

log = structlog.get_logger()

ROOT = "keys/v1/"
MAGIC = b"WHK2"
MAGIC_OF_A_SALT = b"WHK1"
COPY_S = 60.0
"""How often to look for keys that have no copy, and for copies that are to go."""
DESTROYED = "destroyed"
_MADE_BYTES = 8
_SALT_BYTES = 32
_NAME = re.compile(r"(?P<key>[0-9a-f]{16})(?:\.(?P<master>[0-9a-f]{16}))?")


class _Copy(NamedTuple):
    made_ms: int
    entry: str


class KeyCopies:
    """The copies in a store of objects.

    Args:
        objects: Where they lie.
        master_key: Names and seals them; one, or all that there are.
    """

    def __init__(self, objects: ObjectStore, master_key: MasterKeys | SecretStr) -> None:
        self._objects = objects
        self._master_keys = MasterKeys.of(master_key)
        self._key = self._master_keys.names(Purpose.KEY_COPY_NAMES)
        self._copied: set[tuple[str, str]] = set()
        self._made_ms = 0

    async def ensure(self, tenant: str, keyring: Keyring) -> None:
        """Let every key of a tenant have a copy that opens. Free once it is known to.

        Raises:
            KeysDestroyed: There are none any more.
            ObjectTrouble: Some may have none.
        """
        await keyring.prepare([tenant])
        await self.keep(tenant, keyring.entries(tenant))

    async def keep(self, tenant: str, entries: Mapping[bytes, str]) -> None:
        """Let each of these entries of a tenant's key table have a copy, by key id; the newest comes last.

        Raises:
            ObjectTrouble: Some may have none.
        """
        for key_id, entry in entries.items():
            one = key_id.hex()
            if wrapped_under(entry):
                one += f".{wrapped_under(entry)}"
            if (tenant, one) in self._copied:
                continue
            name = self._name(tenant, one)
            try:
                held = await self._copy(name)
            except ObjectTrouble:
                # A directory comes to be with its first object; what is away says so again.
                held = None
            if held is None or not _is_of(held.entry, entry):
                await self._put(name, entry)
            self._copied.add((tenant, one))

    async def drop_others(self, tenant: str, master_key_id: str) -> None:
        """Drop what copies of a tenant's keys are under other master keys, where one is under this.

        Raises:
            ObjectTrouble: Some may be left.
        """
        copies = [
            (name, match)
            for name in await self._objects.names(self._name(tenant, ""))
            if (match := _NAME.fullmatch(name.rpartition("/")[2]))
        ]
        replaced = {match["key"] for _, match in copies if match["master"] == master_key_id}
        for name, match in copies:
            if match["key"] in replaced and match["master"] != master_key_id:
                await self._objects.delete(name)

    async def entries(self, tenant: str) -> dict[bytes, str]:
        """A tenant's keys as the key table has them, by key id, the newest key first.

        Raises:
            KeysDestroyed: They were, on purpose.
            ObjectTrouble: It is not known.
        """
        beginning = self._name(tenant, "")
        names = [name.removeprefix(beginning) for name in await self._objects.names(beginning)]
        if DESTROYED in names:
            raise KeysDestroyed
        found: dict[bytes, _Copy] = {}
        for match in filter(None, map(_NAME.fullmatch, names)):
            copy = await self._copy(beginning + match[0])
            if copy is not None:
                found[bytes.fromhex(match["key"])] = copy
        newest_first = sorted(found.items(), key=lambda one: one[1].made_ms, reverse=True)
        return {key_id: copy.entry for key_id, copy in newest_first}

    async def master_keys(self) -> AsyncIterator[str]:
        """The master key's id of every copy there is, one by one.

        Raises:
            ObjectTrouble: The rest is not known.
        """
        after = ""
        while True:
            names = await self._objects.names(ROOT, after=after)
            for name in names:
                match = _NAME.fullmatch(name.rpartition("/")[2])
                if match:
                    yield match["master"] or self._master_keys.origin
            if len(names) < MOST_NAMES:
                return
            after = names[-1]

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

    async def _put(self, name: str, entry: str) -> None:
        sealed = self._sealed(name, entry)
        await self._objects.put(name, sealed)
        if await self._has(name, entry):
            return
        # Something damaged lies there, which no write replaces.
        await self._objects.delete(name)
        await self._objects.put(name, sealed)
        if not await self._has(name, entry):
            raise ObjectTrouble("NotAsWritten")

    async def _has(self, name: str, entry: str) -> bool:
        copy = await self._copy(name)
        return copy is not None and _is_of(copy.entry, entry)

    def _sealed(self, name: str, entry: str) -> bytes:
        # No two at once, so that it is known which is the newest.
        self._made_ms = max(time.time_ns() // 1_000_000, self._made_ms + 1)
        made = self._made_ms.to_bytes(_MADE_BYTES, "big")
        under = wrapped_under(entry)
        content = made + (entry.encode() if under else bytes.fromhex(entry))
        master_key = self._master_keys.key(under or self._master_keys.origin)
        magic = MAGIC if under else MAGIC_OF_A_SALT
        return magic + master_key.seal(Purpose.KEY_COPIES, content, name.encode())

    async def _copy(self, name: str) -> _Copy | None:
        try:
            sealed = await self._objects.get(name)
        except ObjectMissing:
            return None
        under = _master_key_in(name)
        key_id = under or self._master_keys.origin
        if not self._master_keys.has(key_id):
            log.error("keys.copy_unreadable", name=name, needs_master_key=key_id)
            return None
        magic, body = sealed[: len(MAGIC)], sealed[len(MAGIC) :]
        content = self._master_keys.key(key_id).open(Purpose.KEY_COPIES, body, name.encode()) or b""
        made, entry = content[:_MADE_BYTES], content[_MADE_BYTES:]
        fits = magic == MAGIC if under else magic == MAGIC_OF_A_SALT and len(entry) == _SALT_BYTES
        if not fits or not entry:
            log.error("keys.copy_unreadable", name=name)
            return None
        return _Copy(int.from_bytes(made, "big"), entry.decode() if under else entry.hex())

    def _name(self, tenant: str, one: str) -> str:
        owner = hashlib.blake2b(tenant.encode(), digest_size=16, key=self._key).hexdigest()
        return f"{ROOT}{owner}/{one}"


def _master_key_in(name: str) -> str:
    match = _NAME.fullmatch(name.rpartition("/")[2])
    return (match["master"] or "") if match else ""


def _is_of(copied: str, entry: str) -> bool:
    # The same key is wrapped with another nonce by each process that finds it under the master key before.
    return wrapped_under(copied) == wrapped_under(entry) and (copied == entry or bool(wrapped_under(entry)))


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
                    if keyring.entries(tenant):
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
