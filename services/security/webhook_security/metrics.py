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
secret_uses = Counter(
    "webhook_security_secret_uses_total",
    "Deliveries that a secret verified; when an old one no longer counts up, it can be retired.",
    ["tenant", "tool", "key_id"],
)
clock_skew = Histogram(
    "webhook_security_clock_skew_seconds",
    "Our clock minus the signed time of verified deliveries. All tools off to one side: look at our clock.",
    ["tool"],
    buckets=(-300, -60, -10, -1, 0, 1, 10, 60, 300),
)
sources_without_secret = Gauge(
    "webhook_security_sources_without_secret", "Sources that refuse everything for want of a usable secret."
)
