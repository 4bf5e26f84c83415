"""Forgetting what the feed of accepted events tells, and telling what the spool still holds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
from webhook_shared.redis import Client

from webhook_gateway.feed import ROWS, STREAM
from webhook_gateway.publishing.spool import Spool

FEED, SPOOL = "feed", "spool"
SPOOLED = "SPOOLED"
"""Events wait for Redis on this machine's disk, sealed; nobody here can tell what they are about."""
PAGE = 100
_EVENT_ID, _TENANT = 0, 1


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of one place; `left` is part of `found`, and `reason` says why."""

    place: str
    found: int
    erased: int
    left: int = 0
    reason: str = ""


class Forgetting:
    """Forgets when told to.

    Args:
        client: Where the feed is.
        spool: Of this gateway; None where it has none.
    """

    def __init__(self, client: Client, spool: Spool | None) -> None:
        self._client = client
        self._spool = spool

    async def carry_out(
        self, tenant: str, event_ids: Collection[str] | None, *, dry_run: bool
    ) -> list[Forgotten]:
        """Forget events of a tenant: these, or with None all.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        waiting = self._spool.events if self._spool else 0
        return [
            await self._of_feed(tenant, event_ids, dry_run=dry_run),
            Forgotten(SPOOL, waiting, 0, waiting, SPOOLED if waiting else ""),
        ]

    async def _of_feed(self, tenant: str, event_ids: Collection[str] | None, *, dry_run: bool) -> Forgotten:
        found, after = 0, "-"
        while True:
            entries: Any = await self._client.xrange(STREAM, min=after, count=PAGE)
            if not entries:
                return Forgotten(FEED, found, 0 if dry_run else found)
            after = f"({entries[-1][0].decode()}"
            for name, fields in entries:
                rows = orjson.loads(fields.get(ROWS, b"[]"))
                mine = sum(
                    row[_TENANT] == tenant and (event_ids is None or row[_EVENT_ID] in event_ids)
                    for row in rows
                )
                found += mine
                if mine and not dry_run:
                    # With its neighbours: it is a feed for those who look on, not a record.
                    await self._client.xdel(STREAM, name)
