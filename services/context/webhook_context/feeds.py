"""What others learn of a write: the change stream of the replicas, the enrichment stream of the consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from webhook_shared.redis import Client, Script

from webhook_context import keys

KEPT_CHANGES = 100_000
_ALL = 0
DELETED = "deleted"


class Touched(NamedTuple):
    """A context that changed.

    Attributes:
        what: Empty where its content did; DELETED; or the tier that it has moved to.
    """

    tenant: str
    context_id: str
    version: int
    what: str = ""


class Asked(NamedTuple):
    """A context that wants enrichment, and the trace it came with; may be empty."""

    tenant: str
    context_id: str
    traceparent: str


class Feeds:
    """Writes both streams, a batch of entries per call.

    Args:
        client: Of the Redis that has them.
        kept_changes: About how many changes of all tenants stay to be read.
    """

    def __init__(self, client: Client, kept_changes: int = KEPT_CHANGES) -> None:
        self._client = client
        self._kept_changes = kept_changes
        self._announce = Script.load("webhook_context", "announce")

    async def publish(self, touched: Sequence[Touched], asked: Sequence[Asked] = ()) -> None:
        """Announce changes and ask for enrichment; all entries are durable on return.

        Raises:
            REDIS_TROUBLE: Some entries may be there; publishing them again does no harm.
        """
        calls = [([keys.CHANGES], [self._kept_changes, ",".join(Touched._fields), *_flat(touched)])]
        if asked:
            calls.append(([keys.ENRICHMENT], [_ALL, ",".join(Asked._fields), *_flat(asked)]))
        for reply in await self._announce.batch(self._client, calls):
            if isinstance(reply, Exception):
                raise reply


def _flat(entries: Sequence[Touched] | Sequence[Asked]) -> list[str | int]:
    return [value for entry in entries for value in entry]
