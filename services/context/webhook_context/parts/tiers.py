"""Everything that the tiers consist of, put together for one process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from webhook_shared.objects.protocol import ObjectStore
from webhook_shared.redis import Client
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import MasterKeys, all_of

from webhook_context.changes.feeds import Feeds
from webhook_context.domain.lifecycle import Policy
from webhook_context.packs.archive import Archive
from webhook_context.packs.cold_names import ColdNames
from webhook_context.packs.packing import Packer
from webhook_context.parts.learning import Learning, learning
from webhook_context.parts.segments import SegmentParts, segment_parts
from webhook_context.recovery.orphans import Orphans
from webhook_context.settings import ContextLifecycleSection, ContextWebhook
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import RedisTiers, Timing
from webhook_context.tiers.ageing import Ageing
from webhook_context.tiers.bundle import Bundler
from webhook_context.tiers.forcing import Forcing
from webhook_context.tiers.inventory import Inventory
from webhook_context.tiers.memory import Memory
from webhook_context.tiers.pressure import Pressure
from webhook_context.tiers.transitions import Transitions

TOUCHES_PER_HOT_DURATION = 8
"""How often it is noted at most that a hot context was read: a read is rarely a write."""


@dataclass(frozen=True)
class Tiering:
    """The parts, as the rest of the process uses them."""

    policy: Policy
    master_keys: MasterKeys
    store: RedisContexts
    archive: Archive
    tiers: RedisTiers
    feeds: Feeds
    transitions: Transitions
    small: SegmentParts
    memory: Memory
    forcing: Forcing
    ageing: Ageing
    pressure: Pressure
    learning: Learning
    names: ColdNames
    key_copies: KeyCopies
    inventory: Inventory
    orphans: Orphans


def tiering(
    client: Client,
    cold: ObjectStore,
    webhook: ContextWebhook,
    timing: Timing | None = None,
    *,
    master_keys: MasterKeys | None = None,
) -> Tiering:
    """The tiers over one Redis and one cold store. Nothing is sent, nothing runs yet.

    Raises:
        ValueError: The master key is missing or weak.
    """
    settings, policy = webhook.context_lifecycle, _policy(webhook.context_lifecycle)
    held = master_keys or all_of(webhook.encryption)
    learned = learning(client, cold, webhook, held)
    keyring = learned.keyring
    packer = Packer(keyring, settings.compression_type, settings.compression_level, learned.samples)
    archive = Archive(packer, cold)
    store = RedisContexts(
        client, keyring, archive, touch_ms=max(policy.hot_ms // TOUCHES_PER_HOT_DURATION, 1)
    )
    names = ColdNames(held)
    tiers = RedisTiers(client, names, timing or Timing())
    key_copies = KeyCopies(cold, held)
    inventory = Inventory(client, store, cold, names)
    bundler = Bundler(client, store, keyring, packer, key_copies)
    feeds = Feeds(client, webhook.context_watch.kept_changes)
    small = segment_parts(
        client,
        cold,
        webhook.context_segments,
        keyring=keyring,
        names=names,
        store=store,
        timing=timing or Timing(),
        grace_ms=policy.grace_ms,
    )
    transitions = Transitions(
        tiers,
        bundler,
        archive,
        cold,
        segments=small.segments,
        cold_packs=small.cold_packs,
        feeds=feeds,
        grace_ms=policy.grace_ms,
    )
    memory = Memory(client, limit_bytes=settings.memory_limit, low_ratio=settings.pressure_low_ratio)
    forcing = Forcing(store, tiers, transitions, memory, policy)
    check_s = settings.check_interval.total_seconds()
    return Tiering(
        policy=policy,
        master_keys=held,
        store=store,
        archive=archive,
        tiers=tiers,
        feeds=feeds,
        transitions=transitions,
        small=small,
        memory=memory,
        forcing=forcing,
        ageing=Ageing(
            client,
            store,
            tiers,
            transitions,
            policy,
            check_s=check_s,
            sweep_s=settings.sweep_interval.total_seconds(),
        ),
        pressure=Pressure(
            client, store, forcing, memory, high_ratio=settings.pressure_high_ratio, check_s=check_s
        ),
        learning=learned,
        names=names,
        key_copies=key_copies,
        inventory=inventory,
        orphans=Orphans(
            client,
            cold,
            names,
            held,
            inventory=inventory,
            store=store,
            tiers=tiers,
            archive=archive,
            check_s=settings.orphan_check_interval.total_seconds(),
            grace_ms=_ms(settings.orphan_grace_duration),
        ),
    )


def _policy(settings: ContextLifecycleSection) -> Policy:
    return Policy(
        hot_ms=_ms(settings.hot_duration),
        warm_ms=_ms(settings.warm_duration),
        hot_importance=settings.hot_importance_threshold,
        warm_importance=settings.warm_importance_threshold,
        warm_bytes=settings.warm_from_size,
        rise_reads=settings.promote_after_reads,
        grace_ms=_ms(settings.grace_duration),
    )


def _ms(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))
