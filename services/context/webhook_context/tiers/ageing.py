"""Moves contexts when their time has come: every replica takes part, none does what another one does.

Due times lie in one sorted set per tenant. A worker leases what is due, a few contexts of each tenant in
turn, so none waits for another's backlog. The due time only says when to look: what is to be done follows
from the context as it is then, so reads and writes never have to move it.
"""

from __future__ import annotations

import asyncio
import random
import time
from itertools import groupby

import structlog
from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client
from webhook_shared.sweeps import takes

from webhook_context import metrics
from webhook_context.domain.lifecycle import Plan, Policy, State, Step, next_step
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.store.tiers_redis import Claim, RedisTiers
from webhook_context.tiers.transitions import Transitions

log = structlog.get_logger()

CLAIMED_AT_ONCE = 256
"""What goes to the cold store at the same time shares objects; `Transitions` moves a few at a time."""
AGED_AT_ONCE = 16
RETRY_MS = 30_000


class Ageing:
    """Carries out what `next_step` says.

    Args:
        client: Of the Redis that has everything.
        store: Knows the tenants and their contexts.
        tiers: Knows where they lie.
        transitions: Moves them.
        policy: Says when.
        check_s: How often to look for what is due.
        sweep_s: How often to look for contexts of whom no time is known.
        retry_ms: When what failed is tried again, about.
    """

    def __init__(
        self,
        client: Client,
        store: RedisContexts,
        tiers: RedisTiers,
        transitions: Transitions,
        policy: Policy,
        *,
        check_s: float,
        sweep_s: float,
        retry_ms: int = RETRY_MS,
    ) -> None:
        self._client = client
        self._store = store
        self._tiers = tiers
        self._transitions = transitions
        self._policy = policy
        self._check_s = check_s
        self._sweep_s = sweep_s
        self._retry_ms = retry_ms
        self._cold_away_until = 0.0

    async def run(self) -> None:
        """Age contexts, through every outage of Redis and of the cold store."""
        backoff = Backoff()
        while True:
            try:
                await self._sweep_in_turn()
                if not await self.age():
                    await asyncio.sleep(self._check_s * random.uniform(0.8, 1.2))  # noqa: S311  # spreads load
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the ageing goes on
                log.warning("ageing.interrupted", error=type(error).__name__)
                await backoff.wait()

    async def age(self) -> int:
        """Do what is due now, up to a few contexts of each tenant; how many were looked at.

        Raises:
            REDIS_TROUBLE: What was leased comes back when the lease is over.
        """
        tenants = await self._store.tenants()
        await self._measure(tenants)
        claims = await self._tiers.claim(tenants, CLAIMED_AT_ONCE)
        now_ms = await self._tiers.now_ms()
        plans: list[Plan] = []
        for tenant, of_tenant in groupby(claims, key=lambda claim: claim.tenant):
            states = await self._tiers.states(tenant, [claim.context_id for claim in of_tenant])
            plans += [next_step(state, self._policy, now_ms) for state in states]
        due = [plan.step is not Step.REST and plan.at_ms <= now_ms for plan in plans]
        slots = asyncio.Semaphore(AGED_AT_ONCE)
        await asyncio.gather(*(self._age(*one, slots) for one in zip(claims, plans, due, strict=True)))
        return len(claims)

    async def _age(self, claim: Claim, plan: Plan, due: bool, slots: asyncio.Semaphore) -> None:
        try:
            if due:
                await self._carry_out(claim, plan)
                async with slots:
                    plan = await self._plan(claim)
            at_ms = None if plan.step is Step.REST else plan.at_ms
        except ObjectTrouble as error:
            log.warning("ageing.cold_store", error=str(error))
            at_ms = await self._again_ms()
        except ServiceError as error:
            at_ms = await self._after(error)
        except REDIS_TROUBLE:
            raise
        except Exception as error:
            # One context that can't be moved must not hold up the others.
            log.error("ageing.failed", context_id=claim.context_id, exc_info=error)
            at_ms = await self._again_ms()
        async with slots:
            await self._tiers.reschedule(claim, at_ms)

    async def _plan(self, claim: Claim) -> Plan:
        (state,) = await self._tiers.states(claim.tenant, [claim.context_id])
        return next_step(state, self._policy, await self._tiers.now_ms())

    async def _carry_out(self, claim: Claim, plan: Plan) -> None:
        if plan.step is Step.DROP:
            await self._transitions.drop(claim.tenant, claim.context_id)
        if plan.step is Step.MOVE:
            if plan.target == Tier.TIER_COLD and time.monotonic() < self._cold_away_until:
                raise ObjectTrouble("away a moment ago")
            await self._transitions.move(claim.tenant, claim.context_id, plan.target)

    async def _after(self, error: ServiceError) -> int:
        if error.reason == "COLD_STORE_UNREACHABLE":
            # The others need not find that out one by one.
            self._cold_away_until = time.monotonic() + self._retry_ms / 1000
        if error.reason in {"CONTEXT_TOO_LARGE", "CONTEXT_UNREADABLE", "TENANT_KEYS_DESTROYED"}:
            log.warning("ageing.left", reason=error.reason, **error.metadata)
            return await self._tiers.now_ms() + self._policy.hot_ms
        return await self._again_ms()

    async def _again_ms(self) -> int:
        spread = random.uniform(0.5, 1.5)  # noqa: S311  # spreads load; guards nothing
        return await self._tiers.now_ms() + int(self._retry_ms * spread)

    async def _measure(self, tenants: list[str]) -> None:
        due = await self._tiers.due(tenants)
        metrics.DUE.set(sum(one.contexts for one in due))
        metrics.DUE_AGE.set(max((one.age_ms for one in due), default=0) / 1000)

    async def _sweep_in_turn(self) -> None:
        if await takes(self._client, keys.SWEEP, self._sweep_s):
            await self.sweep()

    async def sweep(self) -> None:
        """Schedule every context that should be and is not: older ones, and those of a crash."""
        for tenant in await self._store.tenants():
            async for versions in self._store.versions(tenant):
                ids = list(versions)
                states = await self._tiers.states(tenant, ids)
                now_ms = await self._tiers.now_ms()
                await self._tiers.schedule_new(tenant, self._due(dict(zip(ids, states, strict=True)), now_ms))

    def _due(self, states: dict[str, State], now_ms: int) -> dict[str, int]:
        plans = {one: next_step(state, self._policy, now_ms) for one, state in states.items()}
        return {one: plan.at_ms for one, plan in plans.items() if plan.step is not Step.REST}
