"""Everything that pre-warming consists of, put together for one process."""

from __future__ import annotations

from webhook_shared.redis import Client

from webhook_context.intelligence_client import IntelligenceClient
from webhook_context.parts.tiers import Tiering
from webhook_context.prewarming.loop import Prewarming
from webhook_context.prewarming.promotion import Bounds, Promotion
from webhook_context.prewarming.rule_record import RuleRecord
from webhook_context.prewarming.waiting_room import WaitingRoom
from webhook_context.settings import ContextWebhook
from webhook_context.uses import Uses


def prewarming(
    client: Client, parts: Tiering, webhook: ContextWebhook, uses: Uses, intelligence: IntelligenceClient
) -> Prewarming | None:
    """Pre-warming over a channel to intelligence, which need not be there; None where it is not wanted."""
    settings = webhook.context_prewarming
    if not settings.enabled:
        return None
    wait_ms = int(1000 * settings.waiting_duration.total_seconds())
    promotion = Promotion(
        parts.tiers,
        parts.transitions,
        parts.memory,
        WaitingRoom(client, most=settings.max_waiting, wait_ms=wait_ms),
        RuleRecord(client, break_even=settings.break_even),
        policy=parts.policy,
        bounds=Bounds(
            settings.hot_confidence_threshold, settings.cold_reads_per_minute, settings.bytes_per_minute
        ),
    )
    return Prewarming(
        uses,
        intelligence,
        promotion,
        parts.store.tenants,
        report_s=settings.report_interval.total_seconds(),
        check_s=webhook.context_lifecycle.check_interval.total_seconds(),
    )
