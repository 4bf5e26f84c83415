"""What an event that came through SQS passes before stage one: is it ours, does it count, is it whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import orjson
from webhook_shared.claims import Claim, Claims
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.sqs.message import Stored

from webhook_consumer.entry import DONE, Cause, Dead, Entry, Handler, Outage, Outcome, Retry
from webhook_consumer.metrics import superseded
from webhook_consumer.queue.redis import QUEUE_TROUBLE
from webhook_consumer.sqs.queue import CLAIM, STORED, UNREADABLE

# Bodies in memory at once, of one batch: each may be as large as the largest webhook.
LARGE_AT_ONCE = 4


class SqsStage:
    """Stage one, for events that SQS brings.

    Args:
        stage: Stage one as it is.
        claims: Says which of several deliveries counts.
        objects: Where large bodies lie.
    """

    def __init__(self, stage: Handler, claims: Claims, objects: ObjectStore) -> None:
        self._stage = stage
        self._claims = claims
        self._objects = objects

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """One outcome per entry, in order.

        Raises:
            Outage: Redis, the keys or the context store are away.
        """
        outcomes: list[Outcome] = [DONE] * len(entries)
        ours = []
        for at, entry in enumerate(entries):
            if (why := entry.fields.get(UNREADABLE)) is not None:
                outcomes[at] = Dead(Cause.UNDECODABLE, why.decode())
            else:
                ours.append(at)
        counting = await self._counting(entries, ours)
        whole = [at for at in counting if STORED not in entries[at].fields]
        large = [at for at in counting if STORED in entries[at].fields]
        for portion in (
            whole,
            *(large[at : at + LARGE_AT_ONCE] for at in range(0, len(large), LARGE_AT_ONCE)),
        ):
            found = await asyncio.gather(*(self._whole(entries[at]) for at in portion))
            ready = [(at, each) for at, each in zip(portion, found, strict=True) if isinstance(each, Entry)]
            for at, each in zip(portion, found, strict=True):
                if not isinstance(each, Entry):
                    outcomes[at] = each
            results = await self._stage.handle([entry for _, entry in ready]) if ready else []
            for (at, _), outcome in zip(ready, results, strict=True):
                outcomes[at] = outcome
        return outcomes

    async def _counting(self, entries: Sequence[Entry], ours: Sequence[int]) -> list[int]:
        """Of these, those that count; the others repeat an event that does, and are done."""
        now_ms = time.time() * 1000
        claims: dict[int, tuple[str, Claim]] = {}
        for at in ours:
            claim = Claim(*orjson.loads(entries[at].fields[CLAIM]))
            # After its window an event's claim is gone, and another's may stand there that repeats nothing.
            if int(entries[at].fields[b"received"]) + claim.window_ms > now_ms:
                claims[at] = (entries[at].text(b"id"), claim)
        if not claims:
            return list(ours)
        try:
            standings = await self._claims.claim(list(claims.values()))
        except QUEUE_TROUBLE as error:
            raise Outage(f"which deliveries count can't be told ({type(error).__name__})") from error
        repeats = {at for at, standing in zip(claims, standings, strict=True) if standing.repeats}
        for at in repeats:
            superseded.labels(entries[at].tool).inc()
        return [at for at in ours if at not in repeats]

    async def _whole(self, entry: Entry) -> Entry | Outcome:
        reference = entry.fields.get(STORED)
        if reference is None:
            return entry
        stored = Stored(*orjson.loads(reference))
        try:
            sealed = await self._objects.get(stored.name)
        except ObjectMissing:
            return Retry(f"its body {stored.name} is missing from the store of objects")
        except ObjectTrouble as error:
            return Retry(f"its body can't be fetched ({error})", patient=True)
        if not stored.is_of(sealed):
            return Dead(Cause.UNDECODABLE, f"its body {stored.name} is not the one that was stored")
        return entry._replace(fields={**entry.fields, b"sealed": sealed})
