"""Events on their way into a stream, for the tests of what publishes and keeps them."""

from __future__ import annotations

from typing import Any

from webhook_gateway.outcome import Publication


def publication(event_id: str, **changes: Any) -> Publication:
    """An event with this id; all of one key, unless told otherwise."""
    base = Publication(
        event_id=event_id,
        tenant="default",
        tool="github",
        type="push",
        received_ms=1_700_000_000_000,
        schema=1,
        sealed=b"\x00\xff sealed",
        traceparent="",
        dedup_key="k",
        window_ms=60_000,
        occurrences_allowed=1,
        quarantined=False,
    )
    return base._replace(**changes)


def apart(event_id: str, **changes: Any) -> Publication:
    """The same, of a key of its own."""
    return publication(event_id, **{"dedup_key": f"key of {event_id}", **changes})
