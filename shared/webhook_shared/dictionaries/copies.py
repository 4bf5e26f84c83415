"""Second copies of the tenants' dictionaries, beside what they compressed: the bucket opens without Redis.

Objects lie at `dictionaries/v1/<tenant>/<id>`, sealed as in Redis; the tenant is a keyed digest, since names
appear in logs and inventories.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable

import structlog
from pydantic import SecretStr

from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import Backoff
from webhook_shared.sealing.master_keys import MasterKeys, Purpose

log = structlog.get_logger()

COPY_S = 60.0
"""How often to look for dictionaries that have no copy."""


class Copies:
    """The copies in a store of objects.

    Args:
        objects: Where they lie.
        master_key: Names them; one, or all that there are.
    """

    def __init__(self, objects: ObjectStore, master_key: MasterKeys | SecretStr) -> None:
        self._objects = objects
        self._key = MasterKeys.of(master_key).names(Purpose.DICTIONARY_NAMES)

    async def put(self, tenant: str, one: str, sealed: bytes) -> None:
        """Make a copy durable.

        Raises:
            ObjectTrouble: It may be there or not.
        """
        await self._objects.put(self._name(tenant, one), sealed)

    async def get(self, tenant: str, one: str) -> bytes | None:
        """A copy; None where there is none or it can't be had now."""
        try:
            return await self._objects.get(self._name(tenant, one))
        except ObjectMissing:
            return None
        except ObjectTrouble as error:
            log.warning("dictionary.copy_unreachable", error=str(error))
            return None

    async def all(self, tenant: str) -> list[str]:
        """The ids of a tenant's copies; of many more than there ever are, the first.

        Raises:
            ObjectTrouble: It is not known.
        """
        return [name.rpartition("/")[2] for name in await self._objects.names(self._name(tenant, ""))]

    async def delete(self, tenant: str, one: str) -> None:
        """Let there be no copy.

        Raises:
            ObjectTrouble: It may still be there.
        """
        await self._objects.delete(self._name(tenant, one))

    def _name(self, tenant: str, one: str) -> str:
        owner = hashlib.blake2b(tenant.encode(), digest_size=16, key=self._key).hexdigest()
        return f"dictionaries/v1/{owner}/{one}"


async def keep_copied(
    dictionaries: Dictionaries, tenants: Callable[[], Awaitable[Iterable[str]]], every_s: float = COPY_S
) -> None:
    """Copy what others train, for ever and through every outage."""
    backoff = Backoff()
    while True:
        try:
            for tenant in await tenants():
                await dictionaries.copy(tenant)
            backoff.reset()
            await asyncio.sleep(every_s)
        except Exception as error:  # noqa: BLE001  # whatever it is, the copying goes on
            log.warning("dictionary.not_copied", error=type(error).__name__)
            await backoff.wait()
