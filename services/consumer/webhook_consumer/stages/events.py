"""Stage one: from a sealed event to its contexts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.errors import ServiceError
from webhook_shared.telemetry import log

from webhook_consumer.append import Append
from webhook_consumer.archive.forgotten import Forgotten
from webhook_consumer.archive.stage import REPLAY
from webhook_consumer.context_client import (
    BYTE_QUOTA_EXCEEDED,
    CONTEXT_DELETED,
    CONTEXT_QUOTA_EXCEEDED,
    EVENT_ERASED,
    Addition,
    ContextClient,
)
from webhook_consumer.entry import DONE, Cause, Dead, Done, Entry, Outcome, Retry
from webhook_consumer.failures import blame
from webhook_consumer.metrics import context_deleted
from webhook_consumer.normalize import NormalizeError
from webhook_consumer.opener import Opened, Opener
from webhook_consumer.stages.spans import spans


class EventStage:
    """Opens, normalises and appends the events of a batch, with one call for all of them.

    Args:
        opener: Opens what security sealed.
        normalize: What an event says of which contexts; raises NormalizeError.
        contexts: Where that is kept.
        forgotten: Hears of events that name somebody who was erased; None where nothing is archived.
    """

    def __init__(
        self,
        opener: Opener,
        normalize: Callable[[WebhookEvent], list[Append]],
        contexts: ContextClient,
        forgotten: Forgotten | None = None,
    ) -> None:
        self._opener = opener
        self._normalize = normalize
        self._contexts = contexts
        self._forgotten = forgotten

    async def handle(self, entries: Sequence[Entry]) -> Sequence[Outcome]:
        """One outcome per entry, in order.

        Raises:
            Outage: The keys or the context store are away.
        """
        outcomes: list[Outcome] = [DONE] * len(entries)
        additions: list[Addition] = []
        owners: list[int] = []
        with spans("webhook.process", entries) as parents:

            def take(at: int, opened: Opened) -> None:
                said = self._said(opened) if isinstance(opened, WebhookEvent) else opened
                if isinstance(opened, WebhookEvent) and isinstance(said, list):
                    replay_id = entries[at].text(REPLAY) if REPLAY in entries[at].fields else ""
                    additions.extend(Addition(opened, append, parents[at], replay_id) for append in said)
                    owners.extend([at] * len(said))
                elif not isinstance(said, list):
                    outcomes[at] = said

            await self._opener.each(entries, take)
            results = await blame.each(self._contexts.append, additions)
            blame.raise_if_away(results)
            await self._forget(additions, results)
        for at, addition, result in zip(owners, additions, results, strict=True):
            outcomes[at] = _worse(outcomes[at], _outcome(addition, result))
        return outcomes

    async def _forget(self, additions: Sequence[Addition], results: Sequence[ServiceError | None]) -> None:
        """Keep out of the archive what the context store refuses because somebody was erased; rare."""
        for addition, result in zip(additions, results, strict=True):
            if result is not None and result.reason == EVENT_ERASED and self._forgotten is not None:
                await self._forgotten.note(addition.event.tenant, [addition.event.id])

    def _said(self, event: WebhookEvent) -> list[Append] | Outcome:
        try:
            return self._normalize(event)
        except NormalizeError as error:
            return Dead(Cause.PERMANENT, str(error))
        except Exception as error:  # noqa: BLE001  # a rule's mistake costs its event, not the batch
            log.error("event.not_normalized", event_id=event.id, tool=event.tool, exc_info=True)
            return Retry(f"the normaliser failed with {type(error).__name__}")


def _outcome(addition: Addition, result: ServiceError | None) -> Outcome:
    if result is None:
        return DONE
    if result.reason in {CONTEXT_DELETED, EVENT_ERASED}:
        # Whoever deleted it wants to hear no more of it.
        context_deleted.labels(addition.event.tool).inc()
        return DONE
    if result.reason in {CONTEXT_QUOTA_EXCEEDED, BYTE_QUOTA_EXCEEDED}:
        # Nobody is at fault, and waiting makes no room: it is kept where operators see it.
        return Dead(Cause.QUOTA, blame.detail_of(result))
    return blame.failure(result)


def _worse(one: Outcome, other: Outcome) -> Outcome:
    # A retry before a dead letter: what can still be stored shall be.
    rank = {Done: 0, Dead: 1, Retry: 2}
    return max(one, other, key=lambda outcome: rank[type(outcome)])
