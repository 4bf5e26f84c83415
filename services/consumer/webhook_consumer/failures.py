"""From the settings of failures to what the workers do."""

from __future__ import annotations

from webhook_consumer.breaker import BreakerPolicy
from webhook_consumer.entry import Failure
from webhook_consumer.retry import RetryBudget, RetryPolicy, RetryTerms
from webhook_consumer.settings import ConsumerSection


def retry_policy(consumer: ConsumerSection) -> RetryPolicy:
    """What each kind of failure leads to."""
    limited = consumer.rate_limited
    return RetryPolicy(
        max_retries=consumer.max_retries,
        base_s=consumer.retry_backoff_base.total_seconds(),
        cap_s=consumer.retry_backoff_cap.total_seconds(),
        terms={
            Failure.RATE_LIMITED: RetryTerms(
                limited.max_retries,
                limited.backoff_base.total_seconds(),
                limited.backoff_cap.total_seconds(),
            )
        },
    )


def retry_budget(consumer: ConsumerSection) -> RetryBudget:
    """How much of a tool's work may be retries."""
    budget = consumer.retry_budget
    return RetryBudget(budget.share, budget.reserve, budget.window.total_seconds())


def breaker_policy(consumer: ConsumerSection) -> BreakerPolicy:
    """When a breaker opens, and for how long."""
    breaker = consumer.circuit_breaker
    return BreakerPolicy(
        failures=breaker.failure_count,
        share=breaker.failure_share,
        window_s=breaker.window.total_seconds(),
        open_s=breaker.open_time.total_seconds(),
        longest_open_s=breaker.open_time_cap.total_seconds(),
        probes=breaker.probe_count,
        probe_lease_s=breaker.probe_lease.total_seconds(),
    )
