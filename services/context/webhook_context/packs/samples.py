"""Packs as samples for compression dictionaries."""

from __future__ import annotations

from webhook.context.v1.context_service_pb2 import Append
from webhook.context.v1.pack_pb2 import Pack
from webhook_shared.dictionaries.scrubbing import Walk


def rewritten(sample: bytes, walk: Walk) -> bytes:
    """A serialised pack, what its events say and the JSON of their payloads gone through."""
    pack = Pack.FromString(sample)
    records = [Append.FromString(event.record) for event in pack.events]
    # Numbers without a pattern, and what is seldom there.
    for name in ("vector_f16", "revisions"):
        pack.ClearField(name)
    walk.message(pack)
    for event, record in zip(pack.events, records, strict=True):
        walk.message(record)
        event.record = record.SerializeToString()
    return pack.SerializeToString()
