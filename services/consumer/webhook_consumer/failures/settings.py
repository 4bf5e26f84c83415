"""The settings of what becomes of failures."""

from __future__ import annotations

from datetime import timedelta

from webhook_shared.settings import Duration, Section, setting


class RateLimitedSection(Section):
    """`webhook.consumer.rate_limited`: retries where the other side has had enough for now."""

    max_retries: int = setting(20, ge=0, le=1000, description="Tries after the first one.")
    backoff_base: Duration = setting(
        timedelta(seconds=2),
        ge=timedelta(milliseconds=1),
        description="Ceiling of the first delay; the time that the other side names stands above it.",
    )
    backoff_cap: Duration = setting(
        timedelta(minutes=5), ge=timedelta(milliseconds=1), description="Highest ceiling of a delay."
    )


class AwaySection(Section):
    """`webhook.consumer.away`: retries where what some events need can't be reached.

    Where nothing gets through the stage pauses, and no try is counted. This is for when some do: a shard of
    the store fails over, say. Their turn comes soon after it is back, and they outlast it.
    """

    max_retries: int = setting(500, ge=0, le=100_000, description="Tries after the first one.")
    backoff_base: Duration = setting(
        timedelta(milliseconds=500),
        ge=timedelta(milliseconds=1),
        description="Ceiling of the first delay; the time that the other side names stands above it.",
    )
    backoff_cap: Duration = setting(
        timedelta(seconds=5), ge=timedelta(milliseconds=1), description="Highest ceiling of a delay."
    )


class RetryBudgetSection(Section):
    """`webhook.consumer.retry_budget`: how much of a tool's work may be retries."""

    share: float = setting(
        0.2, ge=0, le=1, description="Most retries per event worked on lately; further ones wait longest."
    )
    reserve: int = setting(50, ge=0, description="Retries of a tool that are allowed in any case.")
    window: Duration = setting(
        timedelta(seconds=30), ge=timedelta(seconds=1), description="What counts as lately."
    )


class BreakerSection(Section):
    """`webhook.consumer.circuit_breaker`: when a tool that keeps failing is left alone, and how long."""

    failure_count: int = setting(10, ge=1, description="It opens when at least so many failed lately...")
    failure_share: float = setting(
        0.5, gt=0, le=1, description="...and at least this share of what was worked on."
    )
    window: Duration = setting(
        timedelta(seconds=30), ge=timedelta(seconds=1), description="What counts as lately."
    )
    open_time: Duration = setting(
        timedelta(seconds=10),
        ge=timedelta(milliseconds=10),
        description="How long it is open; doubles each time that a probe fails.",
    )
    open_time_cap: Duration = setting(
        timedelta(minutes=5), ge=timedelta(milliseconds=10), description="How long it is open at most."
    )
    probe_count: int = setting(
        3, ge=1, le=1000, description="How many events are let through at once then, and must go well."
    )
    probe_lease: Duration = setting(
        timedelta(minutes=1),
        ge=timedelta(milliseconds=10),
        description="When a probe of which nobody has heard is given to another event.",
    )
