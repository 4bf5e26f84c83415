"""What this service counts, under the names that dashboards and alerts know."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Distribution(Collector):
    """A histogram that takes many values at once: a batch costs about what one value costs otherwise.

    Args:
        name: The metric's name.
        description: Its help text.
        registry: Where it is exported.
    """

    def __init__(self, name: str, description: str, registry: CollectorRegistry = REGISTRY) -> None:
        self._name = name
        self._description = description
        self._counts = [0] * (len(SECONDS_BOUNDS) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, value: float, times: int) -> None:
        """Count one value, seconds, as often as that."""
        self._counts[bisect_left(SECONDS_BOUNDS, value)] += times
        self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        total = 0
        buckets = []
        for bound, count in zip((*map(str, SECONDS_BOUNDS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        yield HistogramMetricFamily(self._name, self._description, buckets=buckets, sum_value=self._sum)


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """What one stage counts."""

    stage: str
    processed: Counter
    failed: Counter
    retried: Counter
    dead_lettered: Counter
    duration: Distribution
    dwell: Distribution

    @classmethod
    def named(cls, stage: str, noun: str) -> StageMetrics:
        """Metrics called webhook_<noun>s_..._total and webhook_<noun>_..._seconds."""
        return cls(
            stage,
            Counter(f"webhook_{noun}s_processed", "Worked on, effect durable, acknowledged.", ["tool"]),
            Counter(f"webhook_{noun}s_failed", "Attempts that failed, for whatever reason.", ["tool"]),
            Counter(f"webhook_{noun}s_retried", "Put aside for another try.", ["tool"]),
            Counter(f"webhook_{noun}s_dead_lettered", "Given up.", ["tool", "cause"]),
            Distribution(
                f"webhook_{noun}_processing_duration_seconds", "From start to effect, of its batch."
            ),
            Distribution(
                f"webhook_{noun}_dwell_seconds",
                "From being queued to being started, of the oldest of its batch.",
            ),
        )


breaker_state = Gauge(
    "webhook_circuit_breaker_state",
    "0: closed, 1: open, the tool's events are put aside, 2: half open, a few are tried.",
    ["tool_id", "stage"],
)
tool_paused = Gauge("webhook_tool_paused", "1 while an operator has paused the tool.", ["tool_id"])
parked = Gauge("webhook_queue_parked", "Put aside: paused, breaker open, or beyond their share.", ["stage"])
parkings = Counter("webhook_events_parked", "Times that an entry was put aside.", ["stage", "why"])
over_budget = Counter(
    "webhook_retry_budget_exhausted",
    "Retries put off to the longest delay: too many of the tool's lately.",
    ["tool", "stage"],
)
lag = Gauge("webhook_consumer_lag_messages", "Waiting in the stream, or delayed and due.", ["stage"])
in_flight = Gauge("webhook_queue_inflight", "Handed to a worker, not acknowledged.", ["stage"])
delayed = Gauge(
    "webhook_queue_delayed", "Failed and waiting for another try, or put aside for another reason.", ["stage"]
)
dead = Gauge("webhook_queue_dlq", "Dead letters.", ["stage"])
oldest_age = Gauge(
    "webhook_queue_oldest_age_seconds", "Age of the oldest that is waiting, in flight or delayed.", ["stage"]
)
quarantined = Gauge("webhook_queue_quarantined", "Verified deliveries kept because they can't be parsed.")
paused = Gauge("webhook_stage_paused", "Batches that wait for something that the stage needs.", ["stage"])
giving_way = Gauge("webhook_enrichment_giving_way", "Batches of contexts that wait while events are late.")
stream_lost = Counter(
    "webhook_stream_lost",
    "Times that a stream, its group or an entry's body was gone: data may be lost.",
    ["stage"],
)
ack_fenced = Counter(
    "webhook_ack_fenced",
    "Entries that somebody else had taken over by the time they were settled.",
    ["stage"],
)
reclaimed = Counter("webhook_events_reclaimed", "Entries taken over from workers that went away.", ["stage"])
redis_reconnects = Counter(
    "webhook_redis_reconnects", "Times that a reader had to begin anew with its connection.", ["stage"]
)
lease_renewed = Counter("webhook_lease_renewed", "Entries whose lease was renewed.", ["stage"])
lease_lost = Counter("webhook_lease_lost", "Entries or names that were taken over while in use.", ["stage"])
context_deleted = Counter(
    "webhook_events_context_deleted", "Events dropped because their context had been deleted.", ["tool"]
)

superseded = Counter(
    "webhook_events_superseded",
    "Messages of SQS dropped because another delivery of the same event counts.",
    ["tool"],
)

EVENTS = StageMetrics.named("events", "event")
ENRICHMENTS = StageMetrics.named("enrichment", "enrichment")

for _counter in (stream_lost, ack_fenced, reclaimed, redis_reconnects, lease_renewed, lease_lost):
    for _metrics in (EVENTS, ENRICHMENTS):
        # Shown from the start: an increase from nothing is invisible to rate().
        _counter.labels(_metrics.stage)
letters_expired = Counter(
    "webhook_dead_letters_expired_total",
    "Dead letters that were dropped because they had been kept for long enough.",
    ["tool"],
)
