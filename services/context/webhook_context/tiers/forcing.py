"""Moves before their time: for an operator, or because Redis fills up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from webhook.context.v1.context_pb2 import Tier
from webhook_shared.errors import ServiceError

from webhook_context import errors
from webhook_context.domain.contexts import Context, Filter
from webhook_context.domain.lifecycle import Policy, State
from webhook_context.store.assembly import View
from webhook_context.store.contexts_redis import Place, RedisContexts
from webhook_context.store.tiers_redis import RedisTiers
from webhook_context.tiers.memory import Memory
from webhook_context.tiers.transitions import Moved, Transitions

LOOKED_AT_ONCE = 256
"""What goes to the cold store at the same time shares objects; `Transitions` moves a few at a time."""
SCHEDULED_AT_ONCE = 16
LOOKED_AT_ONCE_FOR_ROOM = 16
"""The memory is looked at before each portion, so that no more goes than must."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be moved.

    Attributes:
        target: Where to.
        context_id: This one alone, of the only tenant; empty for all that the filter admits.
        most: Contexts; 0 for no limit.
        until_low: Stop as soon as Redis is below its low-water mark.
        at_once: Drop what is replaced without a grace, as far as it is in Redis.
    """

    tenants: Sequence[str]
    target: Tier.ValueType
    context_id: str = ""
    wanted: Filter = field(default_factory=Filter)
    most: int = 0
    until_low: bool = False
    at_once: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a context."""

    tenant: str
    context_id: str
    done: Moved | ServiceError


@dataclass(slots=True)
class Progress:
    """The latest results, and totals so far."""

    results: list[Result] = field(default_factory=list)
    moved: int = 0
    skipped: int = 0
    failed: int = 0


class Forcing:
    """Moves contexts when told to."""

    def __init__(
        self,
        store: RedisContexts,
        tiers: RedisTiers,
        transitions: Transitions,
        memory: Memory,
        policy: Policy,
    ) -> None:
        self._store = store
        self._tiers = tiers
        self._transitions = transitions
        self._memory = memory
        self._policy = policy

    async def carry_out(self, order: Order) -> AsyncIterator[Progress]:
        """Move, and tell how far it has come after each few contexts. The totals are of one object.

        Raises:
            NotFound: CONTEXT_NOT_FOUND; the one context that was named.
            REDIS_TROUBLE: The rest has not been moved.
        """
        progress = Progress()
        async for tenant, places in self._candidates(order):
            if order.until_low and await self._memory.is_low():
                return
            progress.results = []
            await self._carry_out(order, tenant, places, progress)
            yield progress
            if order.most and progress.moved >= order.most:
                return

    async def _candidates(self, order: Order) -> AsyncIterator[tuple[str, list[Place]]]:
        if order.context_id:
            (tenant,) = order.tenants
            yield tenant, [Place(order.context_id, 0)]
            return
        most = LOOKED_AT_ONCE_FOR_ROOM if order.until_low else LOOKED_AT_ONCE
        for tenant in order.tenants:
            async for places in self._store.oldest(tenant, most):
                yield tenant, places

    async def _carry_out(self, order: Order, tenant: str, places: list[Place], progress: Progress) -> None:
        chosen = await self._chosen(order, tenant, places)
        if order.most:
            chosen = dict(list(chosen.items())[: order.most - progress.moved])
        progress.skipped += len(places) - len(chosen)
        slots = asyncio.Semaphore(SCHEDULED_AT_ONCE)

        async def moved(context_id: str, state: State) -> Result:
            done = await self._move(order, tenant, context_id, state)
            if not isinstance(done, ServiceError) and not order.dry_run:
                # What it has left behind is dropped, and it moves on from here, in its time.
                async with slots:
                    await self._tiers.schedule(tenant, context_id)
            return Result(tenant, context_id, done)

        progress.results = await asyncio.gather(*(moved(*one) for one in chosen.items()))
        failed = sum(isinstance(one.done, ServiceError) for one in progress.results)
        progress.failed += failed
        progress.moved += len(progress.results) - failed

    async def _chosen(self, order: Order, tenant: str, places: list[Place]) -> dict[str, State]:
        ids = [place.context_id for place in places]
        states = dict(zip(ids, await self._tiers.states(tenant, ids), strict=True))
        if order.context_id:
            state = states[order.context_id]
            if not state.exists:
                raise errors.not_found(order.context_id)
            return {} if state.tier == order.target else states
        wanted = {
            one: state
            for one, state in states.items()
            if state.exists and _goes(state, order) and not self._policy.keeps(state, order.target)
        }
        admitted = await self._admitted(tenant, order.wanted, list(wanted))
        return {one: state for one, state in wanted.items() if one in admitted}

    async def _admitted(self, tenant: str, wanted: Filter, ids: list[str]) -> set[str]:
        if wanted == Filter():
            return set(ids)
        outsides = dict(zip(ids, await self._store.outsides(tenant, ids), strict=True))
        admitted = [
            one
            for one, seen in outsides.items()
            if wanted.admits_outside(seen.tool, seen.kind, seen.importance, seen.tier)
            and wanted.admits_time(seen.update_ms)
        ]
        if not wanted.labels:
            return set(admitted)
        found = await self._store.read(tenant, admitted, View())
        return {
            one.context_id
            for one in found
            if isinstance(one, Context) and wanted.admits_labels(one.facts.labels.value)
        }

    async def _move(self, order: Order, tenant: str, context_id: str, state: State) -> Moved | ServiceError:
        if state.pinned and order.target != Tier.TIER_HOT:
            return errors.pinned(context_id)
        nothing = Moved(state.tier, order.target, state.lies_bytes, 0)
        if order.dry_run:
            return nothing
        try:
            done = await self._transitions.move(
                tenant, context_id, order.target, grace_ms=0 if order.at_once else None
            )
        except ServiceError as error:
            return error
        return done or nothing


def _goes(state: State, order: Order) -> bool:
    if order.until_low or order.at_once:
        # Only downwards makes room.
        return state.tier < order.target
    return state.tier != order.target
