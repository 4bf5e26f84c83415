"""Writes down which events have come to an end, and through which queue, while two queues are compared."""

from __future__ import annotations

from collections.abc import Sequence

from webhook_shared.sqs.parity import Ledger
from webhook_shared.telemetry import log

from webhook_consumer.entry import Entry, Handler, Outcome, Retry
from webhook_consumer.queue.redis import QUEUE_TROUBLE


class Witness:
    """A stage that is watched.

    Args:
        stage: Does the work.
        ledger: Of the queue that the entries come through.
    """

    def __init__(self, stage: Handler, ledger: Ledger) -> None:
        self._stage = stage
        self._ledger = ledger

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """As the stage does; what it is done with, or gave up, is written down."""
        outcomes = await self._stage.handle(entries)
        try:
            await self._ledger.note(
                (entry.text(b"id"), int(received))
                for entry, outcome in zip(entries, outcomes, strict=True)
                if not isinstance(outcome, Retry)
                and (received := entry.fields.get(b"received", b"")).isdigit()
                and len(received) <= 14
            )
        except QUEUE_TROUBLE as error:
            # A comparison will name them as missing: it errs on the loud side.
            log.warning("parity.not_noted", error=type(error).__name__, events=len(entries))
        return outcomes
