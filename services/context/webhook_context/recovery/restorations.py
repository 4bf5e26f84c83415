"""A restore as the contract has it: who may, what is asked, what is told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from webhook.context.v1 import context_admin_service_pb2 as pb
from webhook_shared.errors import InvalidArgument
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.rpc.identity import ALL_TENANTS, Caller

from webhook_context import errors
from webhook_context.packs.cold_names import ALL, ColdNames
from webhook_context.recovery.restoring import Order, Progress, Restoring, Result
from webhook_context.recovery.revival import Outcome

_TOKEN = re.compile(r"[!-~]{1,500}")
_OUTCOMES = {
    Outcome.RESTORED: pb.RESTORE_OUTCOME_RESTORED,
    Outcome.JOINED: pb.RESTORE_OUTCOME_JOINED,
    Outcome.DELETED: pb.RESTORE_OUTCOME_DELETED,
    Outcome.FAILED: pb.RESTORE_OUTCOME_FAILED,
}


class Restorations:
    """Answers requests to restore."""

    def __init__(self, restoring: Restoring, names: ColdNames) -> None:
        self._restoring = restoring
        self._names = names

    async def carried_out(self, who: Caller, request: pb.RestoreRequest) -> AsyncIterator[pb.RestoreResponse]:
        """Restore, and tell how far it has come.

        Raises:
            ServiceError: FIELD_INVALID, TENANT_NOT_ALLOWED, COLD_STORE_UNREACHABLE.
            REDIS_TROUBLE: The rest has not been restored.
        """
        order = self._order(who, request)
        progress = Progress(after=order.after)
        try:
            async for progress in self._restoring.carry_out(order):
                yield _told(progress, progress.results)
        except ObjectTrouble:
            raise errors.cold_store_unreachable() from None
        yield _told(progress, [], done=True)

    def _order(self, who: Caller, request: pb.RestoreRequest) -> Order:
        if request.tenant or ALL_TENANTS not in who.tenants:
            tenants = [who.tenant(request.tenant)] if request.tenant else sorted(who.tenants)
            beginnings = sorted(self._names.beginning(tenant) for tenant in tenants)
        else:
            beginnings = [ALL]
        token = request.resume_token
        if token and not (_TOKEN.fullmatch(token) and token.startswith(tuple(beginnings))):
            fault = "is not of a run for the same tenant"
            raise InvalidArgument(f"resume_token {fault}", fields={"resume_token": fault})
        return Order(beginnings, token, request.dry_run)


def _told(progress: Progress, results: list[Result], *, done: bool = False) -> pb.RestoreResponse:
    counts = progress.counts
    return pb.RestoreResponse(
        restorations=[_restoration(result) for result in results],
        counts=pb.RestoreCounts(
            restored=counts[Outcome.RESTORED],
            joined=counts[Outcome.JOINED],
            present=counts[Outcome.PRESENT],
            deleted=counts[Outcome.DELETED],
            failed=counts[Outcome.FAILED],
            bytes=progress.stored_bytes,
        ),
        resume_token=progress.after,
        done=done,
    )


def _restoration(result: Result) -> pb.Restoration:
    return pb.Restoration(
        object_name=result.name,
        outcome=_OUTCOMES[result.outcome],
        tenant=result.tenant,
        context_id=result.context_id,
        version=result.version,
        event_count=result.event_count,
        reason=result.reason,
    )
