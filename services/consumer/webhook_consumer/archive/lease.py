"""One process at a time: whoever holds the lease does the archive's work."""

from __future__ import annotations

import os
import secrets

from webhook_shared.redis import Client, ResponseError, Script

from webhook_consumer.queue.slot import is_dead, is_full, machine

KEY = "archive:{webhook-archive}:lease"


class Lease:
    """A lease in Redis. That two hold it for a moment must do no harm, and does none.

    Args:
        client: Where it is.
        ttl_ms: How long it outlives its last renewal.
    """

    def __init__(self, client: Client, *, ttl_ms: int) -> None:
        self._client = client
        self._ttl_ms = ttl_ms
        self._token = f"{machine()}/{os.getpid()}/{secrets.token_hex(8)}"
        self._hold = Script.load("webhook_consumer", "hold")
        self._let_go = Script.load("webhook_consumer", "let_go")

    async def hold(self) -> bool:
        """Take or renew it; False where somebody else has it."""
        try:
            holder = await self._held()
        except ResponseError as error:
            if not is_full(error):
                raise
            # Nobody has it, and nobody can take it: what makes room must go on.
            return True
        if holder != self._token and is_dead(holder):
            # It need not run out: nobody will come back for it.
            holder = await self._held(instead_of=holder)
        return holder == self._token

    async def let_go(self) -> None:
        """Free it at once, where it is ours."""
        await self._let_go(self._client, [KEY], [self._token])

    async def _held(self, *, instead_of: str = "") -> str:
        holder = await self._hold(self._client, [KEY], [self._token, instead_of, self._ttl_ms])
        return bytes(holder).decode()
