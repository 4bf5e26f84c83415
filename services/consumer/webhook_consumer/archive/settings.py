"""`webhook.archive`: how long processed events are kept, and in what portions."""

from __future__ import annotations

from datetime import timedelta

from webhook_shared.settings import ByteCount, Duration, Section, setting


class ArchiveSection(Section):
    """`webhook.archive`: processed events, kept sealed beside the cold contexts."""

    enabled: bool = setting(
        True, description="Whether processed events are kept, so that they can be found and replayed."
    )
    retention: Duration = setting(
        timedelta(days=7), ge=timedelta(minutes=1), description="How long an event is kept."
    )
    segment_bytes: ByteCount = setting(
        8 * 2**20,
        ge=64 * 2**10,
        le=64 * 2**20,
        description="Events of so many bytes are written into one object.",
    )
    segment_age: Duration = setting(
        timedelta(minutes=5),
        ge=timedelta(milliseconds=100),
        description="How long an event waits in Redis at most for others to be written with.",
    )
    waiting_limit: ByteCount = setting(
        256 * 2**20,
        ge=2**20,
        description="Bytes of events that may wait in Redis; beyond it events are processed and not kept.",
    )
    sweep_interval: Duration = setting(
        timedelta(minutes=10),
        ge=timedelta(milliseconds=100),
        description="How often to look for what has been kept for long enough.",
    )
