"""Keeps what a stage has worked on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from webhook_shared.coalesce import Coalescer
from webhook_shared.redis import ResponseError
from webhook_shared.telemetry import log

from webhook_consumer.archive import metrics
from webhook_consumer.archive.events import Chunk
from webhook_consumer.archive.waiting import Waiting
from webhook_consumer.entry import Done, Entry, Handler, Outage, Outcome
from webhook_consumer.queue.redis import QUEUE_TROUBLE
from webhook_consumer.queue.slot import is_full

REPLAY = b"replay"
"""The field of an entry that a replay has queued: it came out of the archive and need not go back."""
# One chunk is one value in Redis: of smaller ones the overhead shows, larger ones take fresh memory each.
MOST_PORTIONS, MOST_BYTES = 64, 2**18

_Fields = Mapping[bytes, bytes]


class _Portion(NamedTuple):
    """Events that are kept together, and their sealed bytes."""

    events: Sequence[_Fields]
    size: int


class ArchivedStage:
    """A stage whose events are kept for the archiver between their effect and their acknowledgement.

    So whatever is acknowledged is in the archive, on every queue. An event whose acknowledgement is lost
    is kept twice; readers look at ids. Where there is no room an event is done all the same, and counted.

    Args:
        handler: The stage's work.
        waiting: Where its events wait.
    """

    def __init__(self, handler: Handler, waiting: Waiting) -> None:
        self._handler = handler
        self._waiting = waiting
        self._full = False
        self._portions: Coalescer[_Portion, None] = Coalescer(
            self._keep, max_items=MOST_PORTIONS, max_weight=MOST_BYTES, weigh=lambda portion: portion.size
        )

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """See `Handler`.

        Raises:
            Outage: Of the stage; or the archive's Redis is away.
        """
        outcomes = await self._handler.handle(entries)
        done = [
            entry.fields
            for entry, outcome in zip(entries, outcomes, strict=True)
            if type(outcome) is Done and REPLAY not in entry.fields
        ]
        if done:
            try:
                await asyncio.gather(*map(self._portions.submit, _portions(done)))
            except QUEUE_TROUBLE as error:
                raise Outage(f"events can't be archived ({type(error).__name__})") from error
        return outcomes

    async def _keep(self, portions: list[_Portion]) -> list[None]:
        events = [fields for portion in portions for fields in portion.events]
        if not await self._added(Chunk.of(events)):
            metrics.skipped.inc(len(events))
        return [None] * len(portions)

    async def _added(self, chunk: Chunk) -> bool:
        try:
            added = await self._waiting.add(chunk)
        except ResponseError as error:
            if not is_full(error):
                raise
            # A full server must be emptied, and acknowledging does that.
            added = False
        if added == self._full:
            self._full = not added
            log.warning("archive.full" if self._full else "archive.has_room")
        return added


def _portions(events: Sequence[_Fields]) -> list[_Portion]:
    """A batch as it is, or in parts where it is large."""
    sizes = [len(fields[b"sealed"]) for fields in events]
    if (whole := sum(sizes)) <= MOST_BYTES:
        return [_Portion(events, whole)]
    portions: list[_Portion] = []
    for fields, size in zip(events, sizes, strict=True):
        if not portions or portions[-1].size + size > MOST_BYTES:
            portions.append(_Portion([], 0))
        last = portions.pop()
        portions.append(_Portion([*last.events, fields], last.size + size))
    return portions
