"""What a replay would change, told without writing anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import grpc
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.errors import ServiceError

from webhook_consumer.append import Append
from webhook_consumer.archive.events import Archived
from webhook_consumer.context_client import Addition, ContextClient, Prospect
from webhook_consumer.entry import Entry
from webhook_consumer.normalize import NormalizeError
from webhook_consumer.opener import Opener


class Change(IntEnum):
    """What would become of one context; numbers as in the contract."""

    APPEND = 1
    CREATE = 2
    REVIVE = 3
    PRESENT = 4
    PRESENT_DIFFERENT = 5
    REFUSED = 6
    UNREADABLE = 7


_CHANGES = {
    Prospect.APPENDED: Change.APPEND,
    Prospect.CREATED: Change.CREATE,
    Prospect.REVIVED: Change.REVIVE,
    Prospect.DUPLICATE: Change.PRESENT,
    Prospect.DIFFERENT: Change.PRESENT_DIFFERENT,
}


@dataclass(frozen=True, slots=True)
class Effect:
    """What one event would do to one context; `error` says why it would be refused or can't be told."""

    event: Archived
    context_id: str
    change: Change
    error: ServiceError | None = None


class Rehearsal:
    """Opens and normalises events as stage one does, and asks the context store what would follow.

    Args:
        opener: Opens what security sealed.
        normalize: Today's rules.
        contexts: The context store.
    """

    def __init__(
        self, opener: Opener, normalize: Callable[[WebhookEvent], list[Append]], contexts: ContextClient
    ) -> None:
        self._opener = opener
        self._normalize = normalize
        self._contexts = contexts

    async def foresee(self, replay_id: str, events: Sequence[Archived]) -> list[Effect]:
        """The effects of events, each as if it came alone; one per context that an event is about.

        Raises:
            Outage: The tenants' keys can't be read.
            ServiceError: The context store can't be reached.
        """
        effects: list[Effect] = []
        owners: list[Archived] = []
        additions: list[Addition] = []
        opened = await self._opener.open([entry_of(event) for event in events])
        for event, content in zip(events, opened, strict=True):
            if not isinstance(content, WebhookEvent):
                effects.append(_unreadable(event, "EVENT_UNREADABLE", content.detail))
                continue
            try:
                said = self._normalize(content)
            except NormalizeError as error:
                effects.append(_unreadable(event, "EVENT_NOT_NORMALIZED", str(error)))
                continue
            except Exception as error:  # noqa: BLE001  # a rule's mistake is what is being looked for
                effects.append(_unreadable(event, "EVENT_NOT_NORMALIZED", type(error).__name__))
                continue
            additions += [Addition(content, append, "", replay_id) for append in said]
            owners += [event] * len(said)
        prospects = await self._contexts.foresee(additions) if additions else []
        for event, addition, prospect in zip(owners, additions, prospects, strict=True):
            effects.append(_effect(event, addition.append.context_id, prospect))
        return effects


def entry_of(event: Archived) -> Entry:
    """An archived event as an entry of the stream."""
    fields = {
        name.encode(): value if isinstance(value, bytes) else value.encode()
        for name, value in event.fields().items()
    }
    return Entry(b"", fields)


def _effect(event: Archived, context_id: str, prospect: Prospect | ServiceError) -> Effect:
    if isinstance(prospect, ServiceError):
        return Effect(event, context_id, Change.REFUSED, prospect)
    return Effect(event, context_id, _CHANGES[prospect])


def _unreadable(event: Archived, reason: str, detail: str) -> Effect:
    error = ServiceError(grpc.StatusCode.DATA_LOSS, reason, detail)
    return Effect(event, "", Change.UNREADABLE, error)
