"""Everything that the tiers consist of, put together for one process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from webhook_shared.envelope import Keyring
from webhook_shared.redis import Client

from webhook_context.ageing import Ageing
from webhook_context.archive import Archive
from webhook_context.bundle import Bundler
from webhook_context.cold import ColdNames, ColdStore
from webhook_context.forcing import Forcing
from webhook_context.lifecycle import Policy
from webhook_context.memory import Memory
from webhook_context.packing import Packer
from webhook_context.pressure import Pressure
from webhook_context.settings import ContextLifecycleSection, ContextWebhook
from webhook_context.store_redis import RedisContexts
from webhook_context.tiers_redis import RedisTiers, Timing
from webhook_context.transitions import Transitions

TOUCHES_PER_HOT_DURATION = 8
"""How often it is noted at most that a hot context was read: a read is rarely a write."""


@dataclass(frozen=True)
class Tiering:
    """The parts, as the rest of the process uses them."""

    policy: Policy
    store: RedisContexts
    tiers: RedisTiers
    transitions: Transitions
    memory: Memory
    forcing: Forcing
    ageing: Ageing
    pressure: Pressure


def tiering(
    client: Client, cold: ColdStore, webhook: ContextWebhook, timing: Timing | None = None
) -> Tiering:
    """The tiers over one Redis and one cold store. Nothing is sent, nothing runs yet.

    Raises:
        ValueError: The master key is missing or weak.
    """
    settings, policy = webhook.context_lifecycle, _policy(webhook.context_lifecycle)
    keyring = Keyring(client, webhook.encryption.master_key)
    packer = Packer(keyring, settings.compression_type, settings.compression_level)
    archive = Archive(packer, cold)
    store = RedisContexts(
        client, keyring, archive, touch_ms=max(policy.hot_ms // TOUCHES_PER_HOT_DURATION, 1)
    )
    tiers = RedisTiers(client, ColdNames(webhook.encryption.master_key), timing or Timing())
    bundler = Bundler(client, store, keyring, packer)
    transitions = Transitions(tiers, bundler, archive, cold, grace_ms=policy.grace_ms)
    memory = Memory(client, limit_bytes=settings.memory_limit, low_ratio=settings.pressure_low_ratio)
    forcing = Forcing(store, tiers, transitions, memory, policy)
    check_s = settings.check_interval.total_seconds()
    return Tiering(
        policy=policy,
        store=store,
        tiers=tiers,
        transitions=transitions,
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
