"""`webhook.context_prewarming`: what foresight may cost the context store."""

from __future__ import annotations

from datetime import timedelta

from webhook_shared.settings import ByteCount, Duration, Section, setting


class ContextPrewarmingSection(Section):
    """`webhook.context_prewarming`; whether predictions are acted on says `webhook.ai.prewarming.mode`."""

    enabled: bool = setting(
        True,
        env="CONTEXT_PREWARMING",
        description="Report which contexts are read to intelligence, and ask it what is needed next.",
    )
    report_interval: Duration = setting(
        timedelta(milliseconds=250), description="How often that is done, where anything was used."
    )
    max_waiting: int = setting(
        256, ge=0, description="Contexts of a tenant that were brought near and have not been used yet."
    )
    waiting_duration: Duration = setting(
        timedelta(minutes=15), description="How long such a context waits for its use before it goes back."
    )
    hot_confidence_threshold: float = setting(
        0.6, ge=0, le=1, description="From this confidence on it becomes hot; below, a cold one becomes warm."
    )
    cold_reads_per_minute: int = setting(
        120, ge=0, description="Reads of the cold store for predictions, of one process; 0: none."
    )
    bytes_per_minute: ByteCount = setting(
        64 * 2**20, ge=0, description="Bytes of contexts moved for predictions, of one process; 0: none."
    )
    break_even: float = setting(
        0.15,
        ge=0,
        le=1,
        description="Share of a rule's contexts that must be used; below it, beyond doubt, it rests.",
    )
