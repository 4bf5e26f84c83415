"""What lies in the cold store, and what of it Redis knows."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client

from webhook_context.packs.cold_names import ColdNames, home_of
from webhook_context.packs.segment import place
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts

_IN_COLD = re.compile(rb"c\|([^@,]+)")


class KnownNames:
    """Names that Redis has: of objects, of members of segments, and what the names of segments begin with.

    8 bytes each. One in 10^19 others may pass for one of them.
    """

    def __init__(self, digests: Iterable[int]) -> None:
        self._digests: NDArray[np.uint64] = np.unique(np.fromiter(digests, dtype=np.uint64))

    def __contains__(self, name: str) -> bool:
        digest = np.uint64(_digest(name.encode()))
        at = int(np.searchsorted(self._digests, digest))
        return at < len(self._digests) and bool(self._digests[at] == digest)


class Inventory:
    """Both sides, in portions."""

    def __init__(self, client: Client, store: RedisContexts, cold: ObjectStore, names: ColdNames) -> None:
        self._client = client
        self._names = names
        self._store = store
        self._cold = cold

    async def groups(self, beginning: str, after: str = "") -> AsyncIterator[list[str]]:
        """The names of the objects of one context or segment after another, each in order; the oldest first.

        Args:
            beginning: What they begin with.
            after: Only those behind this one.

        Raises:
            ObjectTrouble: The rest is not known.
        """
        group: list[str] = []
        # A page may be short and not the last: only an empty one says so.
        while page := await self._cold.names(beginning, after=after):
            for name in page:
                if group and place_of(name) != place_of(group[0]):
                    yield group
                    group = []
                group.append(name)
            after = page[-1]
        if group:
            yield group

    async def known(self, tenants: Iterable[str]) -> KnownNames:
        """What the listed contexts point to, are writing or are about to drop, and all segments.

        Raises:
            REDIS_TROUBLE: It is not known.
        """
        digests: list[int] = []
        for tenant in tenants:
            segments: Any = await self._client.zrange(keys.segments(tenant), 0, -1)
            digests += [_digest(self._names.home(tenant, one.decode()).encode()) for one in segments]
            async for versions in self._store.versions(tenant):
                for name in await self._named(tenant, list(versions)):
                    digests += [_digest(one) for one in _known_as(name)]
        return KnownNames(digests)

    async def names_of(self, tenant: str, context_id: str) -> set[str]:
        """What one context points to, is writing or is about to drop: objects, and members of segments."""
        return {name.decode() for name in await self._named(tenant, [context_id])}

    async def _named(self, tenant: str, context_ids: list[str]) -> list[bytes]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for context_id in context_ids:
                key = keys.context(tenant, context_id)
                pipeline.hmget(key, "tier", "pointer", "copying", "dropping")
            replies = await pipeline.execute()
        names: list[bytes] = []
        for tier, pointer, copying, dropping in replies:
            if tier == b"cold" and pointer:
                names.append(pointer)
            names += _IN_COLD.findall((copying or b"") + b"," + (dropping or b""))
        return names


def place_of(name: str) -> str:
    """What the names of all objects of one context, or of one segment, begin with."""
    return name[: name.rfind("/") + 1]


def _known_as(pointer: bytes) -> list[bytes]:
    lies = place(pointer.decode())
    return [pointer] if lies is None else [str(lies).encode(), home_of(lies.segment).encode()]


def _digest(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
