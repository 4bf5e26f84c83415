"""From the settings of failures to what the workers do."""

from __future__ import annotations

from webhook_consumer.entry import Failure
from webhook_consumer.failures.breaker import BreakerPolicy
from webhook_consumer.failures.retry import RetryBudget, RetryPolicy, RetryTerms
from webhook_consumer.failures.settings import AwaySection, RateLimitedSection
from webhook_consumer.settings import ConsumerSection

# What changes faster than it is understood is looked at again once it may have come to rest.
CONTENDED_BASE_S, CONTENDED_CAP_S = 0.5, 5.0


def retry_policy(consumer: ConsumerSection) -> RetryPolicy:
    """What each kind of failure leads to."""
    return RetryPolicy(
        max_retries=consumer.max_retries,
        base_s=consumer.retry_backoff_base.total_seconds(),
        cap_s=consumer.retry_backoff_cap.total_seconds(),
        terms={
            Failure.RATE_LIMITED: _terms(consumer.rate_limited),
            Failure.AWAY: _terms(consumer.away),
            Failure.CONTENDED: RetryTerms(consumer.max_retries, CONTENDED_BASE_S, CONTENDED_CAP_S),
        },
    )


def _terms(section: RateLimitedSection | AwaySection) -> RetryTerms:
    base_s, cap_s = section.backoff_base.total_seconds(), section.backoff_cap.total_seconds()
    return RetryTerms(section.max_retries, base_s, cap_s)


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
