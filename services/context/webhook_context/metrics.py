"""What the context store counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

APPENDS = Counter(
    "webhook_context_appends_total", "Events that came to be appended, by what became of them.", ["outcome"]
)
APPEND_SECONDS = Histogram(
    "webhook_context_append_batch_duration_seconds",
    "Time to make one batch of events durable.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
ENRICHMENTS_ASKED = Counter(
    "webhook_context_enrichments_asked_total", "Contexts handed to the enrichment stream."
)
FOLD_FAILURES = Counter(
    "webhook_context_fold_failures_total", "Snapshots that could not be brought up to date; reads get slower."
)
INDEXED = Gauge("webhook_context_indexed_contexts", "Contexts in this process's search index.")
INDEX_WAITING = Gauge("webhook_context_index_waiting", "Changed contexts that the index has yet to read.")
INDEX_MISSED = Counter(
    "webhook_context_index_resyncs_total", "Times that the index compared itself with the whole store."
)
INDEX_INCOMPLETE = Gauge(
    "webhook_context_index_incomplete_tenants", "Tenants whose index lacks contexts that it has yet to read."
)
WATCHES = Gauge("webhook_context_watches", "Streams of changes that are open here.")
WATCH_REREADS = Counter(
    "webhook_context_watch_rereads_total",
    "Pages of changes that were read from Redis for a watch that was behind.",
)
WINDOW_SECONDS = Histogram(
    "webhook_context_window_duration_seconds",
    "Time to assemble one window.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
SEARCH_SECONDS = Histogram(
    "webhook_context_search_duration_seconds",
    "Time to rank one search, without reading its page.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
TRANSITIONS = Counter(
    "webhook_context_transitions_total",
    "Contexts moved to another tier, or not.",
    ["source", "target", "outcome"],
)
TRANSITION_SECONDS = Histogram(
    "webhook_context_transition_duration_seconds",
    "Time to move one context.",
    ["target"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
SERVED = Counter(
    "webhook_context_served_total", "Contexts given to callers, by where they were read.", ["tier"]
)
COLD_GET_SECONDS = Histogram(
    "webhook_context_cold_get_duration_seconds",
    "Time of the cold store to give one pack.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60),
)
COLD_DELETES = Counter("webhook_context_cold_deletes_total", "Objects dropped from the cold store.")
RESTORED = Counter(
    "webhook_context_restored_objects_total",
    "Objects of the cold store that a restore has looked at, by what became of them.",
    ["outcome"],
)
UNKNOWN_OBJECTS = Gauge(
    "webhook_context_unknown_objects",
    "Objects of the cold store that nothing in Redis points to, as last listed; many where Redis lost data.",
)
ORPHANS = Counter(
    "webhook_context_orphans_total",
    "Objects that nothing pointed to for the whole grace, by what became of them.",
    ["outcome"],
)
DUE = Gauge("webhook_context_due", "Contexts whose time to move has come, as last looked at.")
DUE_AGE = Gauge("webhook_context_due_age_seconds", "How long the oldest of them has waited.")
MEMORY_RATIO = Gauge(
    "webhook_context_redis_memory_ratio", "Share of its memory that Redis uses; 0 where it has no limit."
)
