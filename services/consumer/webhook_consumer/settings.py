"""The consumer's settings."""

from __future__ import annotations

from datetime import timedelta

from webhook_shared.audit.settings import AuditedSection
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.retention import RetentionSection
from webhook_shared.settings import (
    Duration,
    EncryptionSection,
    QueueSection,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)
from webhook_shared.sqs.migration import MigrationSection

from webhook_consumer.archive.settings import ArchiveSection
from webhook_consumer.failures.settings import (
    AwaySection,
    BreakerSection,
    RateLimitedSection,
    RetryBudgetSection,
)


class EnrichmentSection(Section):
    """`webhook.consumer.enrichment`: stage two, from a changed context to one that is understood."""

    stream: str = setting(
        "webhook-enrichment", min_length=1, description="Where the context store queues changed contexts."
    )
    consumer_group: str = setting(
        "webhook-enrichers", min_length=1, description="The group that reads that stream."
    )
    num_workers: int = setting(
        4, ge=1, le=256, env="WEBHOOK_ENRICHMENT_WORKERS", description="Batches at once in one process."
    )
    batch_size: int = setting(16, ge=1, le=256, description="Most contexts of one call to intelligence.")
    prefetch_count: int = setting(256, ge=1, le=100_000, description="Most contexts held by one process.")
    settle_delay: Duration = setting(
        timedelta(milliseconds=500),
        description="How long after it was queued a context is read, so that what happens to it in a row is "
        "understood at once; 0s reads it immediately.",
    )


class ConsumerSection(QueueSection):
    """`webhook.consumer`: how the queue is worked off."""

    consumer_group: str = setting(
        "webhook-processors", min_length=1, description="The group that reads that stream."
    )
    num_workers: int = setting(
        10, ge=1, le=1024, env="WEBHOOK_CONSUMER_WORKERS", description="Batches at once in one process."
    )
    batch_size: int = setting(100, ge=1, le=1000, description="Most events of one batch.")
    block_timeout: Duration = setting(
        timedelta(seconds=5),
        ge=timedelta(milliseconds=1),
        le=timedelta(minutes=5),
        description="How long a read waits for the first event.",
    )
    max_retries: int = setting(3, ge=0, le=1000, description="Tries after the first one.")
    dead_letter_stream: str = setting(
        "webhook-events-dlq", min_length=1, description="Where events go that are given up."
    )
    prefetch_count: int = setting(
        1000, ge=1, le=100_000, description="Most events read or running in one process."
    )
    claim_idle_time: Duration = setting(
        timedelta(seconds=30),
        ge=timedelta(milliseconds=100),
        description="How long a process may be silent before another takes over what it held.",
    )
    retry_backoff_base: Duration = setting(
        timedelta(seconds=1),
        ge=timedelta(milliseconds=1),
        description="Ceiling of the first retry's delay, which is random; doubles with each failure.",
    )
    retry_backoff_cap: Duration = setting(
        timedelta(minutes=1), ge=timedelta(milliseconds=1), description="Highest ceiling of a delay."
    )
    rate_limited: RateLimitedSection = RateLimitedSection()
    away: AwaySection = AwaySection()
    retry_budget: RetryBudgetSection = RetryBudgetSection()
    circuit_breaker: BreakerSection = BreakerSection()
    handler_timeout: Duration = setting(
        timedelta(minutes=5),
        ge=timedelta(milliseconds=100),
        description="How long a batch may be worked on; then each of its events is tried alone.",
    )
    watchdog_timeout: Duration = setting(
        timedelta(minutes=1),
        ge=timedelta(seconds=1),
        description="How long the process may stand still; then it ends, and others take over what it held.",
    )
    quarantine_stream: str = setting(
        "webhook-quarantine",
        min_length=1,
        description="Where the gateway keeps what was verified but can't be parsed; counted in the metrics.",
    )
    enrichment: EnrichmentSection = EnrichmentSection()


class ConsumerWebhook(ServiceGroup):
    """`webhook`, as far as the consumer reads it."""

    encryption: EncryptionSection = EncryptionSection()
    security: AuditedSection = AuditedSection()
    consumer: ConsumerSection = ConsumerSection()
    archive: ArchiveSection = ArchiveSection()
    cold_storage: ObjectStorageSection = ObjectStorageSection()
    retention: RetentionSection = RetentionSection()
    migration: MigrationSection = MigrationSection()


class ConsumerSettings(ServiceSettings):
    """All of it."""

    webhook: ConsumerWebhook = ConsumerWebhook()
