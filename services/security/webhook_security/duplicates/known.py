"""Duplicates that need not be sealed: they are in their stream already, and the records there say so.

A filter in memory tells which deliveries can't have been here before; that is nearly all, and they go on at
once. The others are looked up, those of a batch together, if they are enough to be worth it. What is found is
answered as the duplicate that it is. All else is sealed and left to the script that publishes it, which alone
decides: a filter never does.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from webhook.security.v1.admission_pb2 import Verdict
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client, RedisError

from webhook_security import metrics
from webhook_security.duplicates.seen import Seen

log = structlog.get_logger()

LONGEST_WAIT_S = 0.5
WORTH = 4
"""Fewer deliveries of a batch are sealed and left to the script: one look-up costs what four of them save."""
BREATHER_S = 1.0
"""For so long after a failure nothing is looked up."""

_LISTED = re.compile(rb"([^,:]+):?([^,]*)")
_OWNER_CHARACTERS = 7


class KnownDuplicates:
    """Recognises what a stream has already.

    Args:
        client: The Redis of the streams.
        partitions: The streams.
        seen: The filter.
        worth: How many deliveries of a batch it takes to be looked up.
        clock: Seconds, monotonic; for the breather.
    """

    def __init__(
        self,
        client: Client,
        partitions: Partitions,
        seen: Seen,
        *,
        worth: int = WORTH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worth = worth
        self._client, self._partitions, self._seen, self._clock = client, partitions, seen, clock
        self._blind_until_s = float("-inf")

    def may_know(self, verdict: Verdict) -> bool:
        """Whether it is worth asking `look_up`."""
        # A repetition has the same signature, under whatever id: one of the two is enough.
        return self._seen.note(verdict.replay_key or verdict.dedup_key) and self._sees()

    def _sees(self) -> bool:
        return self._clock() >= self._blind_until_s

    async def look_up(self, asked: Sequence[tuple[str, str, Verdict]]) -> list[str]:
        """By tenant, tool and verdict: the event that a delivery repeats; empty where it may be a new one."""
        names = [
            f"dedup:{{{self._partitions.stream_of(tenant, tool)}}}:{key}"
            for tenant, tool, verdict in asked
            for key in (verdict.dedup_key, verdict.replay_key or verdict.dedup_key)
        ]
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                records: list[Any] = await self._client.mget(names)
        except (RedisError, OSError, TimeoutError) as error:
            self._blind_until_s = self._clock() + BREATHER_S
            log.warning("duplicates.not_looked_up", error=type(error).__name__)
            return [""] * len(asked)
        pairs = zip(records[::2], records[1::2], strict=True)
        found = [first_of(verdict, *pair) for (_, _, verdict), pair in zip(asked, pairs, strict=True)]
        known = sum(1 for first in found if first)
        metrics.duplicates_known.inc(known)
        metrics.duplicates_unknown.inc(len(found) - known)
        return found


def first_of(verdict: Verdict, record: bytes | None, echo: bytes | None) -> str:
    """The event that a delivery repeats, by the rule of the gateway's `publish.lua`; empty where it is none.

    Args:
        verdict: Of the delivery.
        record: Of its dedup_key: "id:digest,id:digest".
        echo: Of its replay_key, where it has one: "id:owner".
    """
    digest = verdict.body_digest.encode()
    listed = _LISTED.findall(record or b"")
    twins = [event_id for event_id, body in listed if not (digest and body) or body == digest]
    if len(listed) >= max(1, verdict.occurrences_allowed):
        return str(twins[0].decode()) if twins else ""
    if echo and verdict.replay_key:
        event_id, _, owner = echo.partition(b":")
        if owner.decode() != verdict.dedup_key[:_OWNER_CHARACTERS]:
            return event_id.decode()
    return ""
