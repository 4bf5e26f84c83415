"""Puts sealed events into SQS, ten to a call, and bodies that are too large for it beside it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import structlog
from webhook_shared.claims import Claim
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.partitions import Partitions
from webhook_shared.sqs.client import MESSAGE_BYTES, Sqs, SqsTrouble, batches, side_by_side
from webhook_shared.sqs.message import OBJECT_PREFIX, Message, Stored, encode

from webhook_gateway import metrics
from webhook_gateway.outcome import Publication
from webhook_gateway.publishing.stream import dedup_name

log = structlog.get_logger()

# Calls at once; each carries ten messages.
AT_ONCE = 8
# A sealed body grows by a third as text, and there is more in a message than that.
LARGE_BYTES = (MESSAGE_BYTES - 8_192) * 3 // 4


class Sent(NamedTuple):
    """What became of an event on its way into the queue.

    Attributes:
        fault: Empty: it is in the queue. Else a code of SQS's or of the store of objects.
        final: It is not in the queue and never will be; otherwise it may be.
    """

    fault: str = ""
    final: bool = False


SENT = Sent()
TOO_LARGE = Sent("TooLarge", final=True)


class _Outgoing(NamedTuple):
    at: int
    entry: dict[str, str]
    stored: Stored | None


class Sender:
    """Sends to one queue.

    Args:
        sqs: The queue.
        objects: For bodies of more than LARGE_BYTES; None: such events are not taken.
        partitions: The streams whose duplicates are recognised here.
    """

    def __init__(self, sqs: Sqs, objects: ObjectStore | None, partitions: Partitions) -> None:
        self._sqs = sqs
        self._objects = objects
        self._partitions = partitions

    def takes(self, publication: Publication) -> bool:
        """Whether an event of this size can go this way."""
        return self._objects is not None or len(publication.sealed) <= LARGE_BYTES

    async def send(self, publications: Sequence[Publication]) -> list[Sent]:
        """Send each, once; what became of it, in order."""
        results = [SENT] * len(publications)
        outgoing = []
        for at, publication in enumerate(publications):
            stored = await self._stored(publication)
            if isinstance(stored, Sent):
                results[at] = stored
                continue
            outgoing.append(_Outgoing(at, self._entry(publication, stored), stored))
        portions = list(batches(outgoing, lambda each: len(each.entry["MessageBody"])))
        calls = [partial(self._sqs.send, [each.entry for each in portion]) for portion in portions]
        for portion, faults in zip(portions, await side_by_side(calls, AT_ONCE), strict=True):
            if isinstance(faults, SqsTrouble):
                metrics.sqs_faults.labels(faults.code).inc()
                for each in portion:
                    results[each.at] = Sent(faults.code)
                continue
            for each, fault in zip(portion, faults, strict=True):
                if fault is None:
                    continue
                metrics.sqs_faults.labels(fault.code).inc()
                results[each.at] = Sent(fault.code, fault.ours)
                if fault.ours and each.stored:
                    await self._discard(each.stored)
        return results

    async def _stored(self, publication: Publication) -> Stored | Sent | None:
        """Put a large body where its message will say that it is: before the message, never after."""
        if len(publication.sealed) <= LARGE_BYTES:
            return None
        if self._objects is None:
            return TOO_LARGE
        # Each message has an object of its own, which goes with it. Whatever is left over, as we died in
        # between, is for the bucket's own rule to remove.
        name = f"{OBJECT_PREFIX}{publication.event_id}-{secrets.token_hex(8)}"
        try:
            await self._objects.put(name, publication.sealed)
        except ObjectTrouble as error:
            log.warning("body.not_stored", why=str(error), tool=publication.tool)
            return Sent(str(error))
        return Stored.of(name, publication.sealed)

    async def _discard(self, stored: Stored) -> None:
        if self._objects is None:
            return
        try:
            await self._objects.delete(stored.name)
        except ObjectTrouble as error:
            log.info("body.left_over", why=str(error))

    def _entry(self, publication: Publication, stored: Stored | None) -> dict[str, str]:
        message = _message(publication, claim_of(publication, self._partitions), stored)
        entry = {"MessageBody": encode(message)}
        if self._sqs.is_fifo:
            entry["MessageGroupId"] = message.group
            entry["MessageDeduplicationId"] = message.id
        return entry


def claim_of(publication: Publication, partitions: Partitions) -> Claim:
    """What an event has in common with its other deliveries, whichever queue they go through."""
    stream = partitions.stream_of(publication.tenant, publication.tool)
    return Claim(
        record=dedup_name(publication.dedup_key, stream),
        occurrences=publication.occurrences_allowed,
        window_ms=publication.window_ms,
        digest=publication.body_digest,
        echo=dedup_name(publication.replay_key, stream) if publication.replay_key else "",
        echo_window_ms=publication.replay_window_ms,
    )


def _message(publication: Publication, claim: Claim, stored: Stored | None) -> Message:
    return Message(
        id=publication.event_id,
        tenant=publication.tenant,
        tool=publication.tool,
        type=publication.type,
        received_ms=publication.received_ms,
        schema=publication.schema,
        traceparent=publication.traceparent,
        claim=claim,
        sealed=b"" if stored else publication.sealed,
        stored=stored,
    )
