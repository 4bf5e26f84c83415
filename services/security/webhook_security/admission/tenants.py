"""Keeps the tenants' keys at hand, so that no delivery waits for Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import structlog
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError

log = structlog.get_logger()

RENEW_S = 3.0
LONGEST_WAIT_S = 0.5
"""How long a batch may wait for the key of a tenant that is new here; its neighbours wait with it."""

_MOST_GUESTS = 1024
_NO_KEY: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, EnvelopeError)


class TenantKeys:
    """The keys of the tenants that we serve, kept fresh while `keep` runs.

    Tenants that only producers write for join when they first come.

    Args:
        keyring: Where they are held.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._served: set[str] = set()
        self._guests: set[str] = set()
        self._held: set[str] = set()

    async def serve(self, tenants: Iterable[str]) -> None:
        """Have the keys of these at hand, who have a route from now on, as far as that can be done."""
        self._served = set(tenants)
        await self.hold(self._served)

    async def hold(self, tenants: Iterable[str]) -> None:
        """Have these tenants' keys at hand as far as that can be done; free for those that we hold.

        Only for names from our own configuration or from a credential: it makes keys where there are none.
        """
        for tenant in set(tenants) - self._held:
            try:
                async with asyncio.timeout(LONGEST_WAIT_S):
                    await self._keyring.prepare([tenant])
            except _NO_KEY as error:
                log.warning("tenant.key_unavailable", tenant=tenant, error=type(error).__name__)
                continue
            self._held.add(tenant)
            if tenant not in self._served and len(self._guests) < _MOST_GUESTS:
                self._guests.add(tenant)

    async def keep(self) -> None:
        """Renew for ever. While Redis is away the keys that we have go on working."""
        while True:
            await asyncio.sleep(RENEW_S)
            for tenant in self._served | self._guests:
                try:
                    await self._keyring.prepare([tenant])
                except EnvelopeError as error:
                    self._held.discard(tenant)
                    log.warning("tenant.key_unavailable", tenant=tenant, error=type(error).__name__)
                except REDIS_TROUBLE:
                    continue
                else:
                    self._held.add(tenant)

    async def check(self) -> None:
        """Whether every tenant that has a route can be served.

        Raises:
            LookupError: Some can't.
        """
        missing = self._served - self._held
        if missing:
            raise LookupError(f"no key for {', '.join(sorted(missing))}")
