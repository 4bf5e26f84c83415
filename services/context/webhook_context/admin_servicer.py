"""`webhook.context.v1.ContextAdminService`: what operators ask of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook.context.v1.context_admin_service_pb2_grpc import ContextAdminServiceServicer
from webhook.context.v1.context_pb2 import Tier
from webhook.dictionary.v1.dictionary_pb2 import Dictionary, Training
from webhook.status.v1.status_pb2 import ItemStatus
from webhook_shared.dictionaries.administration import DictionaryAdministration
from webhook_shared.errors import InvalidArgument, ServiceError, item_status
from webhook_shared.rpc.identity import Caller, caller

from webhook_context import messages
from webhook_context.erasing.erasures import Erasures
from webhook_context.master_keys.administration import KeyAdministration
from webhook_context.recovery.restorations import Restorations
from webhook_context.reindexing.changeover import Reindexing
from webhook_context.reindexing.reindexes import reindexed
from webhook_context.stats import Stats
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.tiers.forcing import Forcing, Order, Progress, Result
from webhook_context.tiers.memory import Memory

_Call = grpc.aio.ServicerContext[Any, Any]
_TARGETS = (Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD)


class ContextAdminServicer(ContextAdminServiceServicer):
    """Serves operators."""

    def __init__(
        self,
        store: RedisContexts,
        stats: Stats,
        memory: Memory,
        forcing: Forcing,
        *,
        dictionaries: DictionaryAdministration,
        restorations: Restorations,
        erasures: Erasures,
        keys: KeyAdministration,
        reindexing: Reindexing,
    ) -> None:
        self._store = store
        self._stats = stats
        self._memory = memory
        self._forcing = forcing
        self._dictionaries = dictionaries
        self._restorations = restorations
        self._erasures = erasures
        self._keys = keys
        self._reindexing = reindexing

    async def GetStats(self, request: pb.GetStatsRequest, context: _Call) -> pb.GetStatsResponse:
        """Counted at this moment."""
        fill = await self._memory.fill()
        return pb.GetStatsResponse(
            tenants=[await self._stats.of(tenant) for tenant in await self._asked(caller(), request.tenant)],
            redis_used_bytes=fill.used,
            redis_max_bytes=fill.limit,
        )

    async def ForceTransition(
        self, request: pb.ForceTransitionRequest, context: _Call
    ) -> AsyncIterator[pb.ForceTransitionResponse]:
        """Told as it goes; whoever hangs up ends it."""
        order = await self._order(request)
        progress = Progress()
        async for progress in self._forcing.carry_out(order):
            yield _told(progress, progress.results)
        yield _told(progress, [], done=True)

    async def ListDictionaries(
        self, request: pb.ListDictionariesRequest, context: _Call
    ) -> pb.ListDictionariesResponse:
        """What compresses contexts. Errors: PERMISSION_DENIED/TENANT_NOT_ALLOWED."""
        tenants = await self._asked(caller(), request.tenant)
        listed = await self._dictionaries.listed(tenants)
        return pb.ListDictionariesResponse(dictionaries=[Dictionary(**one) for one in listed])

    async def TrainDictionary(
        self, request: pb.TrainDictionaryRequest, context: _Call
    ) -> pb.TrainDictionaryResponse:
        """Train a source now.

        Errors: FAILED_PRECONDITION/SAMPLES_TOO_FEW, TRAINING_DISABLED, TENANT_KEYS_DESTROYED;
        ABORTED/TRAINING_UNDER_WAY; INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED.
        """
        tenant = caller().tenant(request.tenant)
        told = await self._dictionaries.train(tenant, request.name)
        return pb.TrainDictionaryResponse(training=Training(**told))

    async def Restore(self, request: pb.RestoreRequest, context: _Call) -> AsyncIterator[pb.RestoreResponse]:
        """Told as it goes; whoever hangs up ends it.

        Errors: INVALID_ARGUMENT/FIELD_INVALID, PERMISSION_DENIED/TENANT_NOT_ALLOWED,
        UNAVAILABLE/COLD_STORE_UNREACHABLE, STORE_UNREACHABLE.
        """
        async for told in self._restorations.carried_out(caller(), request):
            yield told

    async def RotateKeys(self, request: pb.RotateKeysRequest, context: _Call) -> pb.RotateKeysResponse:
        """Begin in the background. Errors: TENANT_NOT_ALLOWED, FIELD_INVALID, ROTATION_UNDER_WAY."""
        return pb.RotateKeysResponse(rotation=await self._keys.rotate(caller(), request))

    async def GetKeys(self, request: pb.GetKeysRequest, context: _Call) -> pb.GetKeysResponse:
        """Counted at this moment. Errors: TENANT_NOT_ALLOWED, COLD_STORE_UNREACHABLE."""
        return await self._keys.status(caller())

    async def Erase(self, request: pb.EraseRequest, context: _Call) -> AsyncIterator[pb.EraseResponse]:
        """Told as it goes; whoever hangs up ends it, and goes on by asking again.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; NOT_FOUND/TENANT_NOT_FOUND, CONTEXT_NOT_FOUND;
        ABORTED/ERASURE_UNDER_WAY; FAILED_PRECONDITION/TENANT_KEYS_DESTROYED, ERASURE_INCOMPLETE;
        UNAVAILABLE/ERASURE_INCOMPLETE, STORE_UNREACHABLE.
        """
        async for told in self._erasures.carried_out(caller(), request):
            yield told

    async def ListErasures(self, request: pb.ListErasuresRequest, context: _Call) -> pb.ListErasuresResponse:
        """The latest first. Errors: NOT_FOUND/TENANT_NOT_FOUND; INVALID_ARGUMENT/FIELD_INVALID."""
        return await self._erasures.listed(caller(), request)

    async def GetErasureKey(
        self, request: pb.GetErasureKeyRequest, context: _Call
    ) -> pb.GetErasureKeyResponse:
        """What verifies certificates."""
        return pb.GetErasureKeyResponse(public_key=self._erasures.key())

    async def Reindex(self, request: pb.ReindexRequest, context: _Call) -> AsyncIterator[pb.ReindexResponse]:
        """Told as it goes; whoever hangs up ends it, another call goes on."""
        async for told in reindexed(self._reindexing, caller().tenant(request.tenant), request):
            yield told

    async def _order(self, request: pb.ForceTransitionRequest) -> Order:
        if request.tier not in _TARGETS:
            raise InvalidArgument("tier is needed", fields={"tier": "must be hot, warm or cold"})
        if request.max_contexts < 0:
            raise InvalidArgument("max_contexts is negative", fields={"max_contexts": "must not be negative"})
        if request.until_pressure_ends and request.tier == Tier.TIER_HOT:
            raise InvalidArgument("that makes no room", fields={"tier": "must be warm or cold"})
        who = caller()
        if request.context_id:
            messages.context_id_faults(request.context_id)
            tenants = [who.tenant(request.tenant)]
        else:
            tenants = await self._asked(who, request.tenant)
        return Order(
            tenants=tenants,
            target=request.tier,
            context_id=request.context_id,
            wanted=messages.wanted(request.filter),
            most=request.max_contexts,
            until_low=request.until_pressure_ends,
            at_once=request.until_pressure_ends,
            dry_run=request.dry_run,
        )

    async def _asked(self, who: Caller, requested: str) -> list[str]:
        if requested:
            return [who.tenant(requested)]
        return [tenant for tenant in await self._store.tenants() if who.may(tenant)]


def _told(progress: Progress, results: list[Result], *, done: bool = False) -> pb.ForceTransitionResponse:
    return pb.ForceTransitionResponse(
        transitions=[_transition(result) for result in results],
        moved_count=progress.moved,
        skipped_count=progress.skipped,
        failed_count=progress.failed,
        done=done,
    )


def _transition(result: Result) -> pb.Transition:
    told = pb.Transition(tenant=result.tenant, context_id=result.context_id, status=ItemStatus())
    if isinstance(result.done, ServiceError):
        told.status.CopyFrom(ItemStatus(**item_status(result.done)))
        return told
    told.from_tier, told.to_tier = result.done.source, result.done.target
    told.bytes_before, told.bytes_after = result.done.bytes_before, result.done.bytes_after
    return told
