"""What whoever keeps events asks of a queue, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from webhook_gateway.outcome import Publication, Published, Unavailable
from webhook_gateway.publishing.stream import MISSING, RETRY_AFTER_S

MISSING_SQS = Unavailable("sqs", RETRY_AFTER_S)
"""SQS could not be reached, or takes nothing now."""


class EventPublisher(Protocol):
    """Puts sealed events into a queue, once each."""

    @property
    def gave_up(self) -> bool:
        """Whether the queue has been missed for longer than its patience, and not been seen since."""
        ...

    def assume_missing(self) -> None:
        """The queue has not been there since we began: nobody waits for it until `probe` has seen it."""

    async def probe(self) -> None:
        """See whether the queue is back."""

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, or say that it could not be kept; in order."""
        ...

    async def attempt(self, publications: Sequence[Publication]) -> list[Published]:
        """Publish each, once; in order."""
        ...


def is_missing(result: Published) -> bool:
    """Whether its queue could not be reached, so that the event may wait for it elsewhere."""
    return result is MISSING or result is MISSING_SQS
