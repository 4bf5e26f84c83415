"""The operator key of a dev system: minted once, kept in `var/operator.key`, put back if Redis lost it."""

from __future__ import annotations

from pathlib import Path

from webhook_shared.redis import connect
from webhook_shared.rpc.identity import ALL_TENANTS, ApiKeys, Role
from webhook_shared.settings import RedisSection

from webhook_ops.dev.secrets import kept_operator_key, operator_key_file, write_private

_NAME = "dev operator"
_ROLES = (Role.READER, Role.WRITER, Role.OPERATOR)


async def operator_key(var: Path, redis: RedisSection) -> str:
    """A key that the system takes, with every role for every tenant."""
    client = connect(redis)
    try:
        keys = ApiKeys(client)
        if kept := kept_operator_key(var):
            if await keys.find(kept) is None:
                await keys.store(kept, _NAME, [ALL_TENANTS], _ROLES)
            return kept
        _, secret = await keys.mint(_NAME, [ALL_TENANTS], _ROLES)
        write_private(operator_key_file(var), f"{secret}\n")
        return secret
    finally:
        await client.aclose()
