"""What the gateway counts. A tool that is not a known source is labelled "unknown"."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

UNKNOWN_TOOL = "unknown"

events_received = Counter(
    "webhook_events_received_total", "Deliveries read whole, whatever became of them.", ["tool"]
)
events_failed = Counter(
    "webhook_deliveries_failed_total", "Deliveries that we could not take through our own fault.", ["tool"]
)
duplicates_detected = Counter(
    "webhook_duplicates_detected_total", "Deliveries that had been accepted before.", ["tool"]
)
refusals = Counter(
    "webhook_refusals_total",
    "Deliveries that were not let in, by cause, at the edge or by security.",
    ["tool", "cause"],
)
request_duration = Histogram(
    "webhook_request_duration_seconds",
    "From the last byte of a delivery's body to its answer.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
batch_size = Histogram(
    "webhook_admit_batch_size",
    "Deliveries that were judged in one call.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
publish_repeats = Counter("webhook_publish_repeats_total", "Publishing that had to be tried again.")
policy_age = Gauge(
    "webhook_edge_policies_age_seconds", "Since when the sources' limits could not be asked of security."
)
