"""What others learn of a write: the change stream of the replicas, the enrichment stream of the consumer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from webhook_shared.redis import Client
from webhook_shared.redis.connection import Command

from webhook_context.store import keys

KEPT_CHANGES = 100_000
DELETED = "deleted"
VECTORS = "vectors"


class Touched(NamedTuple):
    """A context that changed.

    Attributes:
        what: Empty where its content did; DELETED; VECTORS where only these did, which is no change to
            whoever reads it; or the tier that it has moved to.
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
    """Writes both streams, a batch of entries per round trip.

    Args:
        client: Of the Redis that has them.
        kept_changes: About how many changes of all tenants stay to be read.
    """

    def __init__(self, client: Client, kept_changes: int = KEPT_CHANGES) -> None:
        self._client = client
        self._kept_changes = kept_changes

    async def publish(
        self, touched: Sequence[Touched], asked: Sequence[Asked] = (), *, beside: Sequence[Command] = ()
    ) -> None:
        """Announce changes and ask for enrichment; all entries are durable on return.

        Args:
            touched: What changed.
            asked: What wants enrichment.
            beside: Commands that share the round trip; they may be repeated, too.

        Raises:
            REDIS_TROUBLE: Some entries may be there; publishing them again does no harm.
        """
        kept = ("MAXLEN", "~", self._kept_changes)
        commands: list[Command] = [
            *beside,
            *(("XADD", keys.CHANGES, *kept, "*", *_told(one)) for one in touched),
        ]
        commands += [("XADD", keys.ENRICHMENT, "*", *_told(one)) for one in asked]
        replies, _ = await self._client.run(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply


def _told(entry: Touched | Asked) -> list[str | int]:
    # What is empty is left out.
    fields: dict[str, str | int] = entry._asdict()
    return [part for field in fields.items() if field[1] != "" for part in field]
