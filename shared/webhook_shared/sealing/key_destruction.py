"""The end of a tenant's keys: from here on nothing that they sealed opens, wherever it lies."""

from __future__ import annotations

from webhook_shared.redis import Client, Script
from webhook_shared.sealing.envelope import KEY_TABLE_AGE_S

NOTICED_AFTER_S = KEY_TABLE_AGE_S + 1.0
"""By then every process that Redis answers has noticed, and seals nothing more with what it remembers."""

_DESTROY = Script.load("webhook_shared", "tenant_key_destroy")


async def destroy_keys(client: Client, tenant: str) -> int:
    """Destroy the keys in the table; how many there were, -1 where that had been done before.

    Copies in the cold store are destroyed apart: `KeyCopies.destroy`.

    Raises:
        REDIS_TROUBLE: They may be destroyed; to be repeated.
    """
    return int(await _DESTROY(client, [_table(tenant)]))


async def keys_destroyed(client: Client, tenant: str) -> bool:
    """Whether they were."""
    return bool(await client.hexists(_table(tenant), "destroyed"))


async def has_key_table(client: Client, tenant: str) -> bool:
    """Whether the tenant ever had keys."""
    return bool(await client.exists(_table(tenant)))


def _table(tenant: str) -> str:
    # As the keyring has it.
    return f"tenantkey:{{{tenant}}}"
