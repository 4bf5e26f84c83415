"""Subjects that were erased: events from before then that name them are refused, however late they come.

Only keyed digests of the names are kept. What is received after the erasure is another matter: whoever is
named there is known anew.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from typing import Any

from webhook.context.v1.context_service_pb2 import Append
from webhook_shared.mentions import Digests, Name
from webhook_shared.redis import Client

from webhook_context.domain.contexts import Entry
from webhook_context.store import keys

FRESH_S = 2.0
"""How soon every replica notices another name."""
NOTICED_AFTER_S = FRESH_S + 1.0
_SEPARATOR = "\x1f"
_NONE: frozenset[int] = frozenset()


class ErasedNames:
    """The names, in Redis, and as this process last read them.

    Args:
        client: Where they are.
        key: For their digests.
        fresh_s: For how long what was read holds.
    """

    def __init__(self, client: Client, key: bytes, *, fresh_s: float = FRESH_S) -> None:
        self._client = client
        self._key = hmac.digest(key, b"subjects", "sha256")
        self._fresh_s = fresh_s
        self._until = 0.0
        self._known: dict[str, dict[str, int]] = {}

    async def note(self, tenant: str, name: Name, now_ms: int) -> None:
        """What a tenant has received until now and names somebody is taken no more.

        Raises:
            REDIS_TROUBLE: It may be noted.
        """
        field = _SEPARATOR.join((tenant, name.digest(self._key, tenant)))
        await self._client.hset(keys.ERASED_NAMES, field, str(now_ms))
        self._until = 0.0

    async def among(self, entries: Sequence[Entry]) -> frozenset[int]:
        """The places of those entries that are to be refused; nearly always none.

        Raises:
            REDIS_TROUBLE: It is not known.
        """
        if time.monotonic() >= self._until:
            await self._read()
        if not self._known:
            return _NONE
        return frozenset(at for at, entry in enumerate(entries) if self._is_erased(entry))

    async def _read(self) -> None:
        until = time.monotonic() + self._fresh_s
        held: Any = await self._client.hgetall(keys.ERASED_NAMES)
        known: dict[str, dict[str, int]] = {}
        for field, when in held.items():
            tenant, _, digest = field.decode().rpartition(_SEPARATOR)
            known.setdefault(tenant, {})[digest] = int(when)
        self._known, self._until = known, until

    def _is_erased(self, entry: Entry) -> bool:
        names = self._known.get(entry.tenant)
        if names is None:
            return False
        # When it happened, or when it came to us where it claims to be from later than that.
        as_of_ms = entry.as_of.time_us // 1000
        older = [digest for digest, when_ms in names.items() if as_of_ms <= when_ms]
        if not older:
            return False
        said = said_in(Append.FromString(entry.record))
        return bool(Digests(self._key, entry.tenant, older).found_in([entry.payload], said))


def said_in(append: Append) -> list[str]:
    """Every text of an event and of what it says of its context, the payload apart."""
    event = append.event
    return [
        *(append.title, append.url, append.state, *append.labels),
        *(link.context_id for link in append.links),
        *(event.type, event.action, event.actor, event.text, event.url),
    ]
