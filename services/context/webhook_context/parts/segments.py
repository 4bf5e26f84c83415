"""What segments consist of, put together for one process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import Keyring

from webhook_context.packs.cold_names import ColdNames
from webhook_context.segments.cold_packs import ColdPacks
from webhook_context.segments.compaction import Compaction
from webhook_context.segments.gathering import Limits, Segments, Writer
from webhook_context.segments.member_keys import MemberKeys
from webhook_context.segments.registry_redis import RedisSegments
from webhook_context.segments.settings import ContextSegmentsSection
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import Timing


@dataclass(frozen=True)
class SegmentParts:
    """The parts, as the tiers use them."""

    known: RedisSegments
    member_keys: MemberKeys
    segments: Segments
    compaction: Compaction
    cold_packs: ColdPacks


def segment_parts(
    client: Client,
    cold: ObjectStore,
    section: ContextSegmentsSection,
    *,
    keyring: Keyring,
    names: ColdNames,
    store: RedisContexts,
    timing: Timing,
    grace_ms: int,
) -> SegmentParts:
    """The parts over one Redis and one cold store. Nothing is sent, nothing runs yet."""
    limits = _limits(section)
    known = RedisSegments(client, names, timing)
    member_keys = MemberKeys(cold, known, keyring, min_live_ratio=limits.min_live_ratio)
    writer = Writer(cold, names, known, member_keys)
    compaction = Compaction(
        cold,
        known,
        member_keys,
        writer,
        limits,
        grace_ms=grace_ms,
        check_s=section.check_interval.total_seconds(),
        tenants=store.tenants,
    )
    return SegmentParts(
        known=known,
        member_keys=member_keys,
        segments=Segments(writer, limits),
        compaction=compaction,
        cold_packs=ColdPacks(cold, member_keys, compaction, forget_ms=limits.forget_ms),
    )


def _limits(section: ContextSegmentsSection) -> Limits:
    return Limits(
        size=section.size,
        largest=section.largest_context,
        fewest=section.min_contexts,
        linger_s=section.linger.total_seconds(),
        min_live_ratio=section.min_live_ratio,
        forget_ms=int(section.forget_interval / timedelta(milliseconds=1)),
    )
