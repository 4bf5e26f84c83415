"""What an operator can set for the context store."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self

from pydantic import model_validator
from webhook_shared.audit.settings import AuditedSection
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.retention import RetentionSection
from webhook_shared.settings import (
    ByteCount,
    Duration,
    EncryptionSection,
    Section,
    ServiceGroup,
    ServiceSettings,
    setting,
)

from webhook_context.changes.feeds import KEPT_CHANGES
from webhook_context.erasing.settings import ErasureSection
from webhook_context.finding.vectors import EXACT_BELOW
from webhook_context.prewarming.settings import ContextPrewarmingSection
from webhook_context.segments.settings import ContextSegmentsSection
from webhook_context.writing.quota_settings import ContextQuotasSection

SHORTEST_ORPHAN_GRACE = timedelta(minutes=10)
"""Above the longest that anybody writes an object, and waits until it drops one that was given up."""


class ContextLifecycleSection(Section):
    """`webhook.context_lifecycle`: when a context moves to a cheaper place, and in what form."""

    hot_duration: Duration = setting(
        timedelta(minutes=30), description="How long an untouched context stays hot."
    )
    warm_duration: Duration = setting(
        timedelta(hours=24), description="How long an untouched context stays warm."
    )
    hot_importance_threshold: float = setting(
        0.8, ge=0, le=1, description="From this importance on a context stays hot."
    )
    warm_importance_threshold: float = setting(
        0.5, ge=0, le=1, description="From this importance on a context stays warm."
    )
    compression_type: Literal["zstd", "gzip", "none"] = setting(
        "zstd", description="How warm and cold contexts are compressed."
    )
    compression_level: int = setting(6, ge=1, le=22, description="Level of the compression; gzip ends at 9.")
    grace_duration: Duration = setting(
        timedelta(minutes=1),
        description="How long what a transition replaced stays, so that nothing is dropped while it is read.",
    )
    warm_from_size: ByteCount = setting(
        4 * 1024,
        description="Contexts with fewer bytes of events gain nothing by being warm; they skip it.",
    )
    promote_after_reads: int = setting(
        2, ge=1, description="So many reads since it came to its tier bring a context one tier up."
    )
    check_interval: Duration = setting(
        timedelta(seconds=5), description="How often to look for contexts whose time has come."
    )
    sweep_interval: Duration = setting(
        timedelta(hours=1), description="How often to look for contexts of whom no time is known."
    )
    orphan_check_interval: Duration = setting(
        timedelta(hours=6), description="How often to look for objects in the cold store that nobody needs."
    )
    orphan_grace_duration: Duration = setting(
        timedelta(hours=24),
        description="How long such an object stays after it was first seen, at least.",
    )
    memory_limit: ByteCount = setting(
        0, ge=0, description="Memory that Redis may use, bytes; 0 takes Redis' own maxmemory."
    )
    pressure_high_ratio: float = setting(
        0.85, gt=0, le=1, description="From this share of the memory on contexts go down before their time."
    )
    pressure_low_ratio: float = setting(
        0.75, gt=0, le=1, description="Down to this share of the memory they do."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not timedelta() < self.hot_duration <= self.warm_duration:
            raise ValueError("hot_duration must be above 0s and not above warm_duration")
        if self.warm_importance_threshold > self.hot_importance_threshold:
            raise ValueError("warm_importance_threshold must not be above hot_importance_threshold")
        if self.pressure_low_ratio >= self.pressure_high_ratio:
            raise ValueError("pressure_low_ratio must be below pressure_high_ratio")
        if self.check_interval <= timedelta():
            raise ValueError("check_interval must be above 0s")
        if self.orphan_check_interval <= timedelta():
            raise ValueError("orphan_check_interval must be above 0s")
        if self.orphan_grace_duration < SHORTEST_ORPHAN_GRACE:
            raise ValueError("orphan_grace_duration must be 10m or more")
        if self.compression_type == "gzip" and self.compression_level > 9:
            raise ValueError("compression_level of gzip is 1 to 9")
        return self


class ContextSearchSection(Section):
    """`webhook.context_search`: the search index that each replica has in its memory."""

    build_at_start: bool = setting(
        True, description="Index every tenant from the start, not only those that are asked about."
    )
    exact_below: int = setting(
        EXACT_BELOW,
        ge=1,
        description="From so many vectors of a tenant on, a graph finds the nearest.",
    )


class ContextWatchSection(Section):
    """`webhook.context_watch`: the stream of changes."""

    kept_changes: int = setting(
        KEPT_CHANGES,
        ge=1000,
        description="About how many changes of all tenants stay to be read by those who come back.",
    )
    heartbeat_interval: Duration = setting(
        timedelta(seconds=15), description="How often a watcher hears how far it is when nothing changes."
    )
    max_streams: int = setting(64, ge=1, description="Watches that may be open in one process.")


class ContextWebhook(ServiceGroup):
    """`webhook`, as far as the context store reads it."""

    encryption: EncryptionSection = EncryptionSection()
    security: AuditedSection = AuditedSection()
    dictionaries: DictionarySection = DictionarySection()
    context_lifecycle: ContextLifecycleSection = ContextLifecycleSection()
    context_segments: ContextSegmentsSection = ContextSegmentsSection()
    cold_storage: ObjectStorageSection = ObjectStorageSection()
    context_search: ContextSearchSection = ContextSearchSection()
    context_watch: ContextWatchSection = ContextWatchSection()
    context_quotas: ContextQuotasSection = ContextQuotasSection()
    context_prewarming: ContextPrewarmingSection = ContextPrewarmingSection()
    retention: RetentionSection = RetentionSection()
    erasure: ErasureSection = ErasureSection()


class ContextSettings(ServiceSettings):
    """All that one process of the context store reads."""

    webhook: ContextWebhook = ContextWebhook()
