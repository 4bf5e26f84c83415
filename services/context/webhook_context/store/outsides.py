"""What of a context can be told without opening it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from webhook.context.v1.context_pb2 import Tier

from webhook_context.domain.lifecycle import TIERS

OUTSIDE_FIELDS = (
    "tool",
    "kind",
    "importance",
    "dirty",
    "deleted",
    "tier",
    "bytes",
    "stored",
    "content",
    "updated",
)


class Outside(NamedTuple):
    """What of a context can be told without opening it.

    Attributes:
        lies_bytes: Its events and payloads, as they lie.
        content_bytes: Of a packed context, before compression.
    """

    tool: str
    kind: str
    importance: float
    dirty: bool
    has_vector: bool
    deleted: bool
    tier: Tier.ValueType
    lies_bytes: int
    content_bytes: int
    update_ms: int


def outside(fields: Sequence[bytes | None], has_vector: bool) -> Outside:
    """From the values of OUTSIDE_FIELDS."""
    tool, kind, importance, dirty, deleted, tier, hot_bytes, stored, content, updated = fields
    return Outside(
        tool=(tool or b"").decode(),
        kind=(kind or b"").decode(),
        importance=float(importance or 0),
        dirty=dirty is not None,
        has_vector=has_vector,
        deleted=deleted is not None,
        tier=TIERS[(tier or b"hot").decode()],
        lies_bytes=int(hot_bytes or 0) + int(stored or 0),
        content_bytes=int(content or 0),
        update_ms=int(updated or 0),
    )
