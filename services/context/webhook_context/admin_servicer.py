"""`webhook.context.v1.ContextAdminService`: what operators ask of the store."""

from __future__ import annotations

from typing import Any

import grpc
from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook.context.v1.context_admin_service_pb2_grpc import ContextAdminServiceServicer
from webhook_shared.identity import Caller, caller

from webhook_context.store_redis import RedisContexts

_Call = grpc.aio.ServicerContext[Any, Any]


class ContextAdminServicer(ContextAdminServiceServicer):
    """Serves operators."""

    def __init__(self, store: RedisContexts) -> None:
        self._store = store

    async def GetStats(self, request: pb.GetStatsRequest, context: _Call) -> pb.GetStatsResponse:
        """Counted at this moment, context by context: about a second per 100,000."""
        return pb.GetStatsResponse(
            tenants=[await self._stats(tenant) for tenant in await self._asked(caller(), request.tenant)]
        )

    async def _asked(self, who: Caller, requested: str) -> list[str]:
        if requested:
            return [who.tenant(requested)]
        return [tenant for tenant in await self._store.tenants() if who.may(tenant)]

    async def _stats(self, tenant: str) -> pb.TenantStats:
        stats = pb.TenantStats(tenant=tenant)
        async for versions in self._store.versions(tenant):
            for outside in await self._store.outsides(tenant, list(versions)):
                stats.context_count += not outside.deleted
                stats.indexed_count += outside.has_vector
                stats.dirty_count += outside.dirty
        return stats
