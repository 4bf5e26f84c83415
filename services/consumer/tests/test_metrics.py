"""What /metrics shows."""

from prometheus_client import CollectorRegistry, generate_latest
from webhook_consumer.metrics import Distribution

PROMISED = (
    "webhook_consumer_lag_messages",
    "webhook_events_processed_total",
    "webhook_events_failed_total",
    "webhook_events_retried_total",
    "webhook_events_dead_lettered_total",
    "webhook_event_processing_duration_seconds_bucket",
    "webhook_event_dwell_seconds_count",
    "webhook_queue_inflight",
    "webhook_queue_delayed",
    "webhook_queue_dlq",
    "webhook_queue_oldest_age_seconds",
    "webhook_stream_lost_total",
    "webhook_ack_fenced_total",
    "webhook_lease_renewed_total",
    "webhook_lease_lost_total",
    "webhook_redis_reconnects_total",
    "webhook_loop_lag_seconds",
    "webhook_circuit_breaker_state",
    "webhook_queue_parked",
)


def test_a_distribution_counts_as_a_histogram_does():
    registry = CollectorRegistry()
    distribution = Distribution("seconds", "of something", registry)
    for seconds in (0.0005, 0.001, 0.3, 4000):
        distribution.observe(seconds, 1)
    distribution.observe(0.02, 10)
    value = registry.get_sample_value
    assert value("seconds_count") == 14
    assert value("seconds_sum") == 0.0005 + 0.001 + 0.3 + 4000 + 0.02 * 10
    assert value("seconds_bucket", {"le": "0.001"}) == 2
    assert value("seconds_bucket", {"le": "0.025"}) == 12
    assert value("seconds_bucket", {"le": "1800"}) == 13
    assert value("seconds_bucket", {"le": "+Inf"}) == 14


async def test_the_promised_metrics_are_there_and_true(town):
    async with town.context_store(), town.understanding(), town.consumer():
        for number in range(3):
            await town.send(number)
        await town.send(4, payload=b"{")
        # Of a version that nobody knows any more: it is tried again before it is given up.
        await town.send(5, fields={"schema": "0"})
        await town.until(town.is_empty)
        await town.until(lambda: 'webhook_queue_dlq{stage="events"} 2.0' in generate_latest().decode())
    page = generate_latest().decode()
    missing = [name for name in PROMISED if f"\n{name}" not in page]
    assert missing == []
    assert 'webhook_events_processed_total{tool="github"}' in page
    assert 'webhook_events_dead_lettered_total{cause="permanent",tool="github"}' in page
    assert 'webhook_events_retried_total{tool="github"}' in page
    assert 'webhook_circuit_breaker_state{stage="events",tool_id="github"} 0.0' in page
    assert 'webhook_consumer_lag_messages{stage="events"} 0.0' in page
