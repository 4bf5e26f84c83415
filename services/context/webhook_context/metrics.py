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
SEARCH_SECONDS = Histogram(
    "webhook_context_search_duration_seconds",
    "Time to rank one search, without reading its page.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
