"""What the service counts. Labels come from the configuration, never from a request."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

UNKNOWN = "unknown"
"""The tool of a request that no configured source stands behind."""

violations = Counter(
    "webhook_security_violations_total", "Deliveries that were not let in, by cause.", ["violation_type"]
)
admissions = Counter(
    "webhook_security_admissions_total", "Deliveries judged, by tool and outcome.", ["tool", "outcome"]
)
duplicates_looked_up = Counter(
    "webhook_security_duplicates_looked_up_total",
    "Deliveries that the filter took for seen, looked up before sealing: known duplicates; or unknown, where "
    "the filter was wrong, the window is over, or the first one is still on its way.",
    ["result"],
)
duplicates_known = duplicates_looked_up.labels("known")
duplicates_unknown = duplicates_looked_up.labels("unknown")
secret_uses = Counter(
    "webhook_security_secret_uses_total",
    "Deliveries that a secret verified; when an old one no longer counts up, it can be retired.",
    ["tenant", "tool", "key_id"],
)
secret_last_use = Gauge(
    "webhook_security_secret_last_use_timestamp_seconds",
    "When a secret last verified a delivery here, Unix time; absent until it does.",
    ["tenant", "tool", "key_id"],
)
over_limit = Counter(
    "webhook_security_over_limit_total",
    "Believed deliveries over a rate, by tool, the limit (global, tool, tenant) and what was done.",
    ["tool", "limit", "action"],
)
limits_blind = Counter(
    "webhook_security_limits_unavailable_total",
    "Batches that were let in uncounted because Redis could not be asked.",
)
address_verdicts = Counter(
    "webhook_security_address_verdicts_total",
    "Deliveries held against an allow-list of addresses, by tool and verdict.",
    ["tool", "verdict"],
)
address_list_loaded = Gauge(
    "webhook_security_address_list_loaded_timestamp_seconds",
    "When a list of addresses was last read well, Unix time; 0 if never.",
    ["origin"],
)
clock_skew = Histogram(
    "webhook_security_clock_skew_seconds",
    "Our clock minus the signed time of verified deliveries. All tools off to one side: look at our clock.",
    ["tool"],
    buckets=(-300, -60, -10, -1, 0, 1, 10, 60, 300),
)
registry_read = Gauge(
    "webhook_security_registry_read_timestamp_seconds",
    "When a registry of sources last said which there are, Unix time; 0 if never.",
    ["registry"],
)
registry_entries = Gauge(
    "webhook_security_registry_entries",
    "Entries of a registry of sources: taken, switched off, skipped because they are of no use, or hidden by "
    "a source of the configuration.",
    ["registry", "state"],
)
rejections_kept = Counter(
    "webhook_security_rejections_kept_total", "Refused deliveries that were kept as evidence."
)
rejections_dropped = Counter(
    "webhook_security_rejections_dropped_total",
    "Refused deliveries that were to be kept and were not: Redis was away for too long.",
)
sources_without_secret = Gauge(
    "webhook_security_sources_without_secret", "Sources that refuse everything for want of a usable secret."
)
