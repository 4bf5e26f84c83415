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
QUOTA_REFUSALS = Counter(
    "webhook_context_quota_refusals_total", "Events that a tenant had no room for, by the limit.", ["reason"]
)
KEYS_REWRAPPED = Counter(
    "webhook_context_keys_rewrapped_total", "Tenants' keys that a rotation has put under the next master key."
)
ROTATION_REMAINING = Gauge(
    "webhook_context_rotation_remaining_tenants", "Tenants that the rotation under way has yet to see to."
)
DUE = Gauge("webhook_context_due", "Contexts whose time to move has come, as last looked at.")
DUE_AGE = Gauge("webhook_context_due_age_seconds", "How long the oldest of them has waited.")
MEMORY_RATIO = Gauge(
    "webhook_context_redis_memory_ratio", "Share of its memory that Redis uses; 0 where it has no limit."
)
PREWARM_REPORTS = Counter(
    "webhook_context_prewarm_reports_total",
    "Reads by what became of their report to intelligence: reported, or dropped.",
    ["result"],
)
PREWARM_READS = Counter(
    "webhook_context_prewarm_reads_total",
    "Reads by what pre-warming had to do with them: hit (it was near anyway), saved (it was brought near for "
    "this), missed (it was read from the cold store).",
    ["effect"],
)
PREWARM_PROMOTIONS = Counter(
    "webhook_context_prewarm_promotions_total",
    "Predicted contexts that lay far away: promoted, shadow (would be), full, budget, resting (the rule has "
    "not paid), failed.",
    ["rule", "outcome"],
)
PREWARM_SETTLED = Counter(
    "webhook_context_prewarm_settled_total",
    "Predicted contexts that waited, in shadow mode too: used in time, or unused.",
    ["rule", "outcome"],
)
PREWARM_BYTES = Counter(
    "webhook_context_prewarm_bytes_total",
    "Bytes of contexts that were brought near, by whether that was of use; what was not is pollution.",
    ["outcome"],
)
PREWARM_WAITING = Gauge(
    "webhook_context_prewarm_waiting", "Contexts that wait for their predicted use, of all tenants."
)
SEGMENTS = Counter(
    "webhook_context_segments_total", "Segments of small contexts, by what was done with them.", ["done"]
)
SEGMENT_MEMBERS = Counter("webhook_context_segment_members_total", "Contexts written into segments.")
MEMBERS_FORGOTTEN = Counter(
    "webhook_context_segment_members_forgotten_total",
    "Contexts in segments whose keys were dropped, so that nobody can read them there any more.",
)
SEGMENT_DEAD_BYTES = Gauge(
    "webhook_context_segment_dead_bytes", "Bytes in segments that nobody needs, as last looked at."
)
ERASURES = Counter(
    "webhook_context_erasures_total",
    "Runs of erasures that came to their end, by what was to be erased and whether all of it is.",
    ["scope", "outcome"],
)
ERASED = Counter("webhook_context_erased_total", "What erasures have erased, by place.", ["place"])
EXPIRED = Counter(
    "webhook_context_expired_total", "Contexts that were erased because they had been kept for long enough."
)
RETENTION_OVERDUE = Gauge(
    "webhook_context_retention_overdue",
    "Contexts that should have been erased by now and could not be, as of the latest sweep.",
)
