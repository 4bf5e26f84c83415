"""What the archive counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

skipped = Counter("webhook_archive_skipped", "Events that were processed and not kept: there was no room.")
written = Counter("webhook_archive_written", "Events written into segments by this process.")
written_bytes = Counter("webhook_archive_written_bytes", "Sealed bytes of these events.")
failures = Counter("webhook_archive_failures", "Times that a segment could not be written or swept.")
expired = Counter("webhook_archive_expired", "Events deleted after their retention by this process.")
forgotten = Counter("webhook_archive_forgotten", "Events deleted on demand by this process.")
replayed = Counter("webhook_archive_replayed", "Events queued again by this process.")
events = Gauge("webhook_archive_events", "Events in segments, as last counted.")
size = Gauge("webhook_archive_bytes", "Sealed bytes in segments, as last counted.")
oldest_age = Gauge("webhook_archive_oldest_age_seconds", "Age of the oldest segment, as last counted.")
waiting = Gauge("webhook_archive_waiting_events", "Processed events that wait to be written into a segment.")
waiting_bytes = Gauge("webhook_archive_waiting_bytes", "Bytes of Redis that these take.")
lag = Gauge("webhook_archive_lag_seconds", "How long the oldest of them has waited.")
