"""The tenants' key tables, as a rotation sees them: all of them, and each put under another master key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from webhook_shared.redis import Client, Script
from webhook_shared.redis.scanning import keys_like
from webhook_shared.sealing import tenant_keys
from webhook_shared.sealing.envelope import KEY_TABLES, table
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKey, MasterKeyMissing, MasterKeys
from webhook_shared.sealing.tenant_keys import KeyDamaged, TenantKey, wrapped_under

log = structlog.get_logger()

_BEGINNING, _END = table("x").split("x")
_ATTEMPTS = 10
_READ_AT_ONCE = 200
DESTROYED = b"destroyed"


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What became of a tenant's table.

    Attributes:
        entries: Its keys as it has them now, the one that seals last.
        count: How many of them changed.
        damaged: How many could not be read, and stay as they are.
        destroyed: There are none, on purpose.
    """

    entries: Mapping[bytes, str]
    count: int = 0
    damaged: int = 0
    destroyed: bool = False


class KeyTables:
    """Reads and rewraps.

    Args:
        client: Has them.
        master_keys: Read them.
        copies: Have what is damaged.
    """

    def __init__(self, client: Client, master_keys: MasterKeys, copies: KeyCopies) -> None:
        self._client = client
        self._master_keys = master_keys
        self._copies = copies
        self._script = Script.load("webhook_context", "keys_rewrap")

    async def tenants(self) -> list[str]:
        """Every tenant that is known to have a table."""
        found: Any = await self._client.smembers(KEY_TABLES)
        return sorted(tenant.decode() for tenant in found)

    async def discover(self) -> None:
        """Make known all tables there are, whichever version made them: looks through the whole of Redis."""
        async for found in keys_like(self._client, table("*")):
            tenants = [name.decode().removeprefix(_BEGINNING).removesuffix(_END) for name in found]
            await self._client.sadd(KEY_TABLES, *tenants)

    async def counted(self) -> Counter[str]:
        """How many tenants' keys are under which master key, by its id."""
        counts: Counter[str] = Counter()
        tenants = await self.tenants()
        for start in range(0, len(tenants), _READ_AT_ONCE):
            async with self._client.pipeline(transaction=False) as pipeline:
                for tenant in tenants[start : start + _READ_AT_ONCE]:
                    pipeline.hgetall(table(tenant))
                for held in await pipeline.execute():
                    counts.update(self._under(entry) for entry in _entries(held).values())
        return counts

    def _under(self, entry: str) -> str:
        return wrapped_under(entry) or self._master_keys.origin

    async def rewrap(self, tenant: str, target: MasterKey) -> Rewrapped:
        """Put a tenant's keys under a master key, and let a new one of it seal if the old ones were not.

        Raises:
            ObjectTrouble: A copy is needed and can't be had.
            REDIS_TROUBLE: It was done or not; to be repeated.
        """
        for _ in range(_ATTEMPTS):
            held: Any = await self._client.hgetall(table(tenant))
            if DESTROYED in held:
                return Rewrapped({}, destroyed=True)
            entries, current = _entries(held), held.get(b"current", b"").decode()
            stale = {one: entry for one, entry in entries.items() if self._under(entry) != target.id}
            if not stale or not current:
                return Rewrapped(_current_last(entries, current))
            renewed = await self._renewed(tenant, stale, target)
            successor = tenant_keys.made(target, tenant) if bytes.fromhex(current) in stale else None
            arguments = [
                successor.id.hex() if successor else "",
                successor.entry if successor else "",
                current,
            ]
            for key_id, key in renewed.items():
                arguments += [key_id.hex(), entries[key_id], key.entry]
            outcome = await self._script(self._client, [table(tenant)], arguments)
            if outcome == -1:
                return Rewrapped({}, destroyed=True)
            if outcome == 1:
                entries |= {key_id: key.entry for key_id, key in renewed.items()}
                if successor:
                    entries[successor.id] = successor.entry
                    current = successor.id.hex()
                return Rewrapped(
                    _current_last(entries, current), count=len(renewed), damaged=len(stale) - len(renewed)
                )
        # Somebody else changes it all the time; the next pass sees what became of it.
        return Rewrapped({}, damaged=1)

    async def _renewed(
        self, tenant: str, stale: Mapping[bytes, str], target: MasterKey
    ) -> dict[bytes, TenantKey]:
        renewed = {}
        for key_id, entry in stale.items():
            key = self._read(tenant, key_id, entry)
            if key is None:
                copied = (await self._copies.entries(tenant)).get(key_id)
                key = self._read(tenant, key_id, copied) if copied else None
            if key is not None:
                renewed[key_id] = tenant_keys.rewrapped(target, tenant, key)
        return renewed

    def _read(self, tenant: str, key_id: bytes, entry: str) -> TenantKey | None:
        try:
            return tenant_keys.read(self._master_keys, tenant, key_id, entry)
        except (KeyDamaged, MasterKeyMissing) as error:
            log.error("rotation.key_unusable", tenant=tenant, key=key_id.hex(), reason=str(error))
            return None


def _entries(held: Mapping[bytes, bytes]) -> dict[bytes, str]:
    if DESTROYED in held:
        return {}
    return {
        bytes.fromhex(name.decode()): entry.decode() for name, entry in held.items() if name != b"current"
    }


def _current_last(entries: Mapping[bytes, str], current: str) -> dict[bytes, str]:
    return dict(sorted(entries.items(), key=lambda one: one[0].hex() == current))
