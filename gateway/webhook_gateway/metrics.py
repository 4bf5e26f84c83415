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
replays = Counter(
    "webhook_replays_detected_total",
    "Of these, deliveries that came again under another id: somebody sends again what was signed once.",
    ["tool"],
)
conflicts = Counter(
    "webhook_duplicate_conflicts_total",
    "Deliveries that came under the id of another one with another body; taken as events of their own.",
    ["tool"],
)
lost = Counter(
    "webhook_deliveries_lost_total",
    "Deliveries answered 429 or 503 whose sender never sends again: have them redelivered by hand.",
    ["tool"],
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
connections = Gauge("webhook_http_connections", "Open connections of senders.")
shed = Counter(
    "webhook_shed_total",
    "Turned away early: requests of a sender that nobody believes (sender), connections past the limit "
    "(connections) or past a sender's (sender_connections), bodies past the room for them (bodies).",
    ["limit"],
)
events_shaped = Counter(
    "webhook_events_shaped_total",
    "Deliveries over a rate that were taken all the same, since their sender never retries.",
    ["tool"],
)
feed_failures = Counter(
    "webhook_feed_failures_total", "Times that the feed of accepted events could not be reached."
)
policy_age = Gauge(
    "webhook_edge_policies_age_seconds", "Since when the sources' limits could not be asked of security."
)
durability_misses = Counter(
    "webhook_durability_misses_total",
    "Events that are in their stream, but were not as safe in time as their source asks; answered 503.",
    ["durability"],
)
quarantine_removed = Counter(
    "webhook_quarantine_removed_total",
    "The oldest events of the quarantine that had to go, by the bound that was reached: events, bytes, age.",
    ["bound"],
)
spool_events = Gauge("webhook_spool_events", "Events on the gateway's disk that Redis does not have yet.")
spool_bytes = Gauge("webhook_spool_bytes", "Their bytes, as the spool's bound counts them.")
spool_oldest_age = Gauge("webhook_spool_oldest_age_seconds", "How long ago the oldest of them was received.")
spool_kept = Counter("webhook_spool_kept_total", "Events that went to disk because Redis was away.")
spool_drained = Counter(
    "webhook_spool_drained_total",
    "Events that went from disk to Redis: accepted there, or duplicates of what it had by then.",
    ["outcome"],
)
spool_refused = Counter(
    "webhook_spool_refused_total", "Events that the disk could not take while Redis was away.", ["cause"]
)
sqs_faults = Counter(
    "webhook_sqs_faults_total", "Calls or messages that SQS did not take, by its code.", ["code"]
)
copies = Counter("webhook_dual_write_copied_total", "Events of Redis that are in SQS as well.")
copies_waiting = Gauge("webhook_dual_write_waiting", "Events that wait for their copy in SQS.")
copies_lost = Counter(
    "webhook_dual_write_lost_total",
    "Events that are in Redis and will not be copied to SQS: no room to wait (full), SQS refuses them for "
    "good (refused), or the process ended (shutdown).",
    ["cause"],
)
copy_lag = Histogram(
    "webhook_dual_write_lag_seconds",
    "From an event being in Redis to its copy being in SQS.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600),
)
parity_unnoted = Counter(
    "webhook_parity_unnoted_total", "Events that the comparison of the queues does not know of."
)
for _cause in ("full", "refused", "shutdown"):
    # Shown from the start: an increase from nothing is invisible to rate().
    copies_lost.labels(_cause)
