"""Brings predicted contexts near, within a budget, and back where they were not used.

```
 predicted ─▶ far away? ─▶ rule pays? ─▶ room? ─▶ budget? ─▶ cold ─▶ warm ─▶ hot
                                          │                    confident: straight to hot
                                   waiting room ──used──▶ stays, as long as any that is used
                                          └─ too long, or Redis fills up ──▶ back to where it lay
```
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError

from webhook_context import metrics
from webhook_context.domain.lifecycle import Policy, State, Step, next_step
from webhook_context.intelligence_client import Foreseen, Outlook
from webhook_context.prewarming.allowance import Allowance
from webhook_context.prewarming.rule_record import RuleRecord
from webhook_context.prewarming.waiting_room import Waiting, WaitingRoom
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.tiers.memory import Memory
from webhook_context.tiers.transitions import Transitions

log = structlog.get_logger()

COLD_STORE_REST_S = 30.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What promotion may do.

    Attributes:
        hot_confidence: From here on a context becomes hot.
        cold_reads_per_minute: Of the cold store.
        bytes_per_minute: Of contexts, moved.
    """

    hot_confidence: float
    cold_reads_per_minute: float
    bytes_per_minute: float


class Promotion:
    """Moves predicted contexts up, and down again."""

    def __init__(
        self,
        tiers: RedisTiers,
        transitions: Transitions,
        memory: Memory,
        room: WaitingRoom,
        record: RuleRecord,
        *,
        policy: Policy,
        bounds: Bounds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tiers = tiers
        self._transitions = transitions
        self._memory = memory
        self._room = room
        self._record = record
        self._policy = policy
        self._hot_confidence = bounds.hot_confidence
        self._reads = Allowance(bounds.cold_reads_per_minute, clock)
        self._bytes = Allowance(bounds.bytes_per_minute, clock)
        self._clock = clock
        self._cold_away_until = 0.0

    async def promote(self, tenant: str, outlook: Outlook) -> int:
        """Bring near what is foreseen and lies far away; how many were moved. Nothing is where Redis is full.

        Raises:
            REDIS_TROUBLE: Some may have been.
        """
        if not outlook.foreseen or not await self._memory.is_low():
            return 0
        states = await self._tiers.states(tenant, [one.context_id for one in outlook.foreseen])
        now_ms = await self._tiers.now_ms()
        pays: dict[str, bool] = {}
        moved = 0
        for one, state in zip(outlook.foreseen, states, strict=True):
            target = self._target(one, state)
            if target is None:
                continue
            if one.rule not in pays:
                pays[one.rule] = await self._record.pays(tenant, one.rule, now_ms)
            outcome = "resting"
            if pays[one.rule]:
                outcome = await self._bring(
                    tenant, one, state, target if outlook.acts else state.tier, now_ms
                )
            if outcome:
                metrics.PREWARM_PROMOTIONS.labels(one.rule, outcome).inc()
            moved += outcome == "promoted"
        return moved

    async def use(self, tenant: str, context_ids: Sequence[str]) -> set[str]:
        """Contexts were used; those of them that were brought near for it. They stay as if never moved."""
        found = await self._room.take(tenant, context_ids)
        if not found:
            return set()
        await self._settle(tenant, found, used=True)
        await self._stay(tenant, [one for one, waiting in found.items() if waiting.is_moved])
        return {one for one, waiting in found.items() if waiting.is_moved}

    async def withdraw(self, tenants: Sequence[str]) -> int:
        """Take back what has waited too long; everything that waits where Redis fills up. How many.

        Raises:
            REDIS_TROUBLE: Some may be left where they are, to age as others do.
        """
        now_ms = await self._tiers.now_ms()
        waiting = await self._room.count(tenants)
        metrics.PREWARM_WAITING.set(waiting)
        if not waiting:
            return 0
        until_ms = now_ms if await self._memory.is_low() else None
        count = 0
        for tenant, ids in (await self._room.overdue(tenants, until_ms)).items():
            found = await self._room.take(tenant, ids)
            states = dict(zip(found, await self._tiers.states(tenant, list(found)), strict=True))
            used = {one: waiting for one, waiting in found.items() if _is_used(waiting, states[one])}
            unused = {one: waiting for one, waiting in found.items() if one not in used}
            await self._settle(tenant, used, used=True)
            await self._settle(tenant, unused, used=False)
            await self._stay(tenant, [one for one, waiting in used.items() if waiting.is_moved])
            for context_id, left in unused.items():
                if left.is_moved and states[context_id].exists and states[context_id].tier == left.target:
                    await self._take_back(tenant, context_id, left)
            count += len(unused)
        return count

    def _target(self, one: Foreseen, state: State) -> Tier.ValueType | None:
        """Where a context is brought; None where it lies well, or will rise by itself."""
        if not state.exists or state.tier == Tier.TIER_HOT or state.version != state.packed_version:
            return None
        if one.confidence >= self._hot_confidence or state.content_bytes < self._policy.warm_bytes:
            return Tier.TIER_HOT
        return Tier.TIER_WARM if state.tier == Tier.TIER_COLD else None

    async def _bring(
        self, tenant: str, one: Foreseen, state: State, target: Tier.ValueType, now_ms: int
    ) -> str:
        """What became of it; empty where it waits already."""
        is_read = state.tier == Tier.TIER_COLD
        if is_read and self._clock() < self._cold_away_until:
            return "failed"
        if not (self._reads.holds(int(is_read)) and self._bytes.holds(state.content_bytes)):
            return "budget"
        waiting = Waiting(one.rule, state.tier, target, now_ms, state.version, state.content_bytes)
        admitted = await self._room.admit(tenant, one.context_id, waiting)
        if not admitted:
            return "full" if admitted is None else ""
        self._reads.spend(int(is_read))
        self._bytes.spend(state.content_bytes)
        if not waiting.is_moved:
            return "shadow"
        try:
            await self._transitions.move(tenant, one.context_id, target)
        except ServiceError as error:
            await self._room.take(tenant, [one.context_id])
            if error.reason == "COLD_STORE_UNREACHABLE":
                self._cold_away_until = self._clock() + COLD_STORE_REST_S
            return "failed"
        return "promoted"

    async def _settle(self, tenant: str, found: dict[str, Waiting], *, used: bool) -> None:
        outcome = "used" if used else "unused"
        by_rule: dict[str, int] = {}
        for waiting in found.values():
            by_rule[waiting.rule] = by_rule.get(waiting.rule, 0) + 1
            if waiting.is_moved:
                metrics.PREWARM_BYTES.labels(outcome).inc(waiting.size_bytes)
        now_ms = await self._tiers.now_ms() if by_rule else 0
        for rule, count in by_rule.items():
            metrics.PREWARM_SETTLED.labels(rule, outcome).inc(count)
            counts = {"used": count, "unused": 0} if used else {"used": 0, "unused": count}
            await self._record.settle(tenant, rule, **counts, now_ms=now_ms)

    async def _stay(self, tenant: str, context_ids: Sequence[str]) -> None:
        """They age from now on like any that is used."""
        if not context_ids:
            return
        now_ms = await self._tiers.now_ms()
        states = await self._tiers.states(tenant, context_ids)
        plans = {
            one: next_step(state, self._policy, now_ms)
            for one, state in zip(context_ids, states, strict=True)
        }
        await self._tiers.schedule_new(
            tenant, {one: plan.at_ms for one, plan in plans.items() if plan.step is not Step.REST}
        )

    async def _take_back(self, tenant: str, context_id: str, waiting: Waiting) -> None:
        try:
            await self._transitions.move(tenant, context_id, waiting.source)
        except ServiceError as error:
            # It ages like any other, from when it was really used last: soon.
            log.info("promotion.not_taken_back", reason=error.reason)
            await self._stay(tenant, [context_id])


def _is_used(waiting: Waiting, state: State) -> bool:
    return state.exists and (state.version != waiting.version or state.touched_ms > waiting.since_ms)
