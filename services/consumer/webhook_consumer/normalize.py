"""Turns a verified webhook into what it says of the contexts it concerns."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import parse_qs

import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.event.v1.event_pb2 import WebhookEvent

from webhook_consumer.append import Append, Link
from webhook_consumer.rules.loading import load
from webhook_consumer.rules.paths import Scope
from webhook_consumer.rules.rulebook import Rulebook
from webhook_consumer.rules.values import key_part

__all__ = ["Append", "Link", "NormalizeError", "Normalizer", "normalize"]

_FORM = "application/x-www-form-urlencoded"
_FORM_FIELDS_LIMIT = 100
# Clocks differ, time zones are forgotten; more than a day is no clock.
_FUTURE_LIMIT = timedelta(days=1)
# The rulebook for senders that nobody described; its last words always fit.
_GENERIC = "generic"


class NormalizeError(ValueError):
    """The payload can't be parsed as its content type says. Trying again would not help."""


class Normalizer:
    """Knows the rules of all tools. Immutable; safe to share."""

    def __init__(self, rulebooks: Mapping[str, Rulebook], *, jira_site: str = "") -> None:
        """Takes the rules.

        Args:
            rulebooks: By tool; `generic` must be among them.
            jira_site: The host whose issues are meant where other tools' texts say "PROJ-12"; empty means
                that only whole addresses of issues become links.
        """
        self._rulebooks = rulebooks
        self._generic = rulebooks[_GENERIC]
        self._recognised = [(book.recognised_by, book) for book in rulebooks.values() if book.recognised_by]
        self._jira_site = jira_site

    @classmethod
    def load(cls, folder: Traversable | None = None, *, jira_site: str = "") -> "Normalizer":
        """Reads the rule files of a folder, by default our own; raises RuleError naming file and key."""
        return cls(load(folder or files("webhook_consumer") / "normalizers"), jira_site=jira_site)

    def normalize(self, event: WebhookEvent) -> list[Append]:
        """What the webhook says: one append per context it concerns, at least one. Raises NormalizeError."""
        envelope = {
            "tool": key_part(event.tool),
            "type": event.type,
            "action": event.action,
            "jira_site": self._jira_site,
        }
        scope = Scope(_payload(event), envelope)
        appends = self._rulebook(event).appends(scope) or self._generic.appends(scope)
        return [_timed(append, event) for append in appends]

    def _rulebook(self, event: WebhookEvent) -> Rulebook:
        known = self._rulebooks.get(event.tool)
        if known is not None:
            return known
        for header, book in self._recognised:
            if header in event.headers:
                return book
        return self._generic


def normalize(event: WebhookEvent) -> list[Append]:
    """What the webhook says, by the rules that we ship. Raises NormalizeError."""
    return _shipped().normalize(event)


@cache
def _shipped() -> Normalizer:
    return Normalizer.load()


def _payload(event: WebhookEvent) -> object:
    body: bytes | str = event.payload
    try:
        if event.content_type == _FORM:
            fields = parse_qs(event.payload.decode(), strict_parsing=True, max_num_fields=_FORM_FIELDS_LIMIT)
            body = fields["payload"][0]
        return orjson.loads(body)
    except (ValueError, KeyError) as error:
        # The error's own text quotes the payload; only its kind may be told.
        kind = type(error).__name__
        raise NormalizeError(f"not parsable as {event.content_type or 'JSON'}: {kind}") from None


def _timed(append: Append, event: WebhookEvent) -> Append:
    """The append with a time that can be believed: the rule's, else the envelope's, else none.

    A context keeps what the latest event says: a time from the future would silence all that follow.
    """
    latest = _latest(event)
    if append.occurred is not None and (latest is None or append.occurred <= latest):
        return append
    said = _utc(event.occurred_time) if event.HasField("occurred_time") else None
    return append._replace(occurred=None if said is None or (latest and said > latest) else said)


def _latest(event: WebhookEvent) -> datetime | None:
    """The latest time that can be believed; None where nobody says when the event was received."""
    received = _utc(event.received_time) if event.HasField("received_time") else None
    try:
        return received and received + _FUTURE_LIMIT
    except OverflowError:
        # A clock at the end of all years.
        return received


def _utc(time: Timestamp) -> datetime | None:
    try:
        return time.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None
