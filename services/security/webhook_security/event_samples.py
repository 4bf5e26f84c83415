"""Events as samples for compression dictionaries."""

from __future__ import annotations

from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_shared.dictionaries.scrubbing import Walk


def rewritten(sample: bytes, walk: Walk) -> bytes:
    """A serialised event, its fields and the JSON of its payload gone through."""
    event = WebhookEvent.FromString(sample)
    walk.message(event)
    return event.SerializeToString()
