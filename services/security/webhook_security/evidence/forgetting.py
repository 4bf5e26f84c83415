"""Forgetting refused deliveries: all of a tenant, or those that name somebody.

What is about a context has been let in; nothing refused ever became part of one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from webhook_shared.mentions import Name
from webhook_shared.redis import Client, Script
from webhook_shared.redis.scanning import keys_like, literal

from webhook_security.evidence.rejection_store import Found, Refused, RejectionStore, Room, keys_of

REJECTIONS = "rejections"
OPENED_AT_ONCE = 32


@dataclass(slots=True)
class Forgotten:
    """How many refused deliveries were found, and how many of these are gone; 0 in a dry run."""

    found: int = 0
    erased: int = 0


class Forgetting:
    """Forgets when told to.

    Args:
        client: Where the deliveries are.
        store: Reads them.
    """

    def __init__(self, client: Client, store: RejectionStore) -> None:
        self._client = client
        self._store = store
        self._drop = Script.load("webhook_security", "rejections_drop")

    async def all(self, tenant: str, *, dry_run: bool) -> Forgotten:
        """Forget all that a tenant has, also of sources that are no more.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        told = Forgotten()
        async for keys in keys_like(self._client, f"rejections:{{{literal(tenant)}/*"):
            for key in keys:
                if key.endswith((b"}", b":proved")):
                    told.found += int(await self._client.zcard(key))
                if not dry_run:
                    await self._client.unlink(key)
        told.erased = 0 if dry_run else told.found
        return told

    async def naming(self, tenant: str, name: Name, *, dry_run: bool) -> Forgotten:
        """Forget those of a tenant that name somebody; what does not open names nobody.

        Raises:
            REDIS_TROUBLE: Some may be left; to be repeated.
        """
        told = Forgotten()
        for room in self._store.rooms():
            if room.tenant != tenant:
                continue
            async for found in self._named(room, name):
                told.found += len(found)
                members = [f"{place.rejection_id} {place.cause}" for place in found]
                if members and not dry_run:
                    told.erased += int(await self._drop(self._client, keys_of(room), members))
        return told

    async def _named(self, room: Room, name: Name) -> AsyncIterator[list[Found]]:
        found = await self._store.find([room])
        for start in range(0, len(found), OPENED_AT_ONCE):
            portion = found[start : start + OPENED_AT_ONCE]
            read = await self._store.deliveries([room], [place.rejection_id for place in portion])
            named = {one for one, refused in read.items() if _names(name, refused)}
            yield [place for place in portion if place.rejection_id in named]


def _names(name: Name, refused: Refused) -> bool:
    delivery = refused.delivery
    if name.is_in(refused.rejection.SerializeToString()):
        return True
    return delivery is not None and (
        name.is_in(delivery.body) or any(name.is_in(header.value) for header in delivery.headers)
    )
