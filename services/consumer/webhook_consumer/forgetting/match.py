"""Which events are to be forgotten: by tenant, by who is named in them, by what they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.mentions import Name

from webhook_consumer.append import Append
from webhook_consumer.entry import Entry, Retry
from webhook_consumer.normalize import NormalizeError
from webhook_consumer.opener import Opener

Normalize = Callable[[WebhookEvent], Iterable[Append]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be forgotten of a tenant: all, or what is about one context or one subject.

    Attributes:
        context_id: Empty for none.
        subject: None for none.
        event_ids: Known to be part of it.
        since_ms: What was written before then and does not change was looked at before; 0: nothing was.
    """

    tenant: str
    context_id: str = ""
    subject: Name | None = None
    event_ids: frozenset[str] = frozenset()
    since_ms: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether all that the tenant has is to be forgotten."""
        return not self.context_id and self.subject is None


class Match(Enum):
    """How an event stands to what is to be forgotten."""

    NOT = "not"
    WHOLLY = "wholly"
    SHARED = "shared"
    """It is about other contexts, too, which have yet to get it."""
    UNREADABLE = "unreadable"
    """Its key is not here now."""
    UNDECODABLE = "undecodable"
    """Nobody can ever read it."""


class Matcher:
    """Opens events and says how they stand.

    Args:
        opener: Opens them.
        normalize: Says which contexts they are about.
        wanted: What is to be forgotten.
    """

    def __init__(self, opener: Opener, normalize: Normalize, wanted: Wanted) -> None:
        self._opener = opener
        self._normalize = normalize
        self._wanted = wanted

    async def of(self, entries: Sequence[Entry]) -> list[Match]:
        """How each stands; entries about contexts, which hold no event, by which context.

        Raises:
            Outage: The tenants' keys can't be read.
        """
        wanted, tenant = self._wanted, self._wanted.tenant.encode()
        matches = [Match.NOT] * len(entries)
        sealed = []
        for at, entry in enumerate(entries):
            if entry.fields.get(b"tenant") != tenant:
                continue
            if wanted.is_whole:
                matches[at] = Match.WHOLLY
            elif b"sealed" in entry.fields:
                sealed.append(at)
            elif wanted.context_id and entry.text(b"context_id") == wanted.context_id:
                matches[at] = Match.WHOLLY
        opened = await self._opener.open([entries[at] for at in sealed]) if sealed else []
        for at, event in zip(sealed, opened, strict=True):
            matches[at] = self._match(entries[at], event)
        return matches

    def _match(self, entry: Entry, event: object) -> Match:
        is_known = entry.text(b"id") in self._wanted.event_ids
        if not isinstance(event, WebhookEvent):
            # What nobody can read any more can still be dropped where it is known to be part of it.
            if is_known:
                return Match.WHOLLY
            return Match.UNREADABLE if isinstance(event, Retry) else Match.UNDECODABLE
        if self._wanted.subject is not None:
            return Match.WHOLLY if is_known or _names(self._wanted.subject, event) else Match.NOT
        about = self._about(event)
        if self._wanted.context_id not in about:
            return Match.WHOLLY if is_known and not about else Match.NOT
        return Match.WHOLLY if len(about) == 1 else Match.SHARED

    def _about(self, event: WebhookEvent) -> set[str]:
        try:
            return {said.context_id for said in self._normalize(event)}
        except NormalizeError:
            return set()


def _names(name: Name, event: WebhookEvent) -> bool:
    return name.is_in(event.payload) or any(map(name.is_in_text, event.headers.values()))
