"""What the search index reads of a context's events; of a packed context it is kept beside the pack."""

from __future__ import annotations

from collections.abc import Sequence

from webhook.context.v1.context_pb2 import ContextEvent

RECENT_EVENTS = 8
LONGEST_TEXT_CHARS = 2000


def excerpt(events: Sequence[ContextEvent]) -> list[str]:
    """The texts of the newest events, oldest first, each cut where it gets long."""
    return [event.text[:LONGEST_TEXT_CHARS] for event in events[-RECENT_EVENTS:]]
