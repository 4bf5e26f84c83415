"""`webhook.ingest.v1.IngestAdminService`: what was kept aside at the door, and what came under a used id."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from webhook.erasure.v1.erasure_pb2 import Place
from webhook.event.v1.event_pb2 import SealedEvent
from webhook.ingest.v1 import ingest_admin_service_pb2 as messages
from webhook.ingest.v1 import ingest_admin_service_pb2_grpc
from webhook_shared.errors import InvalidArgument, NotFound, Unavailable
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.rpc.identity import ALL_TENANTS, caller

from webhook_gateway.conflicts import Conflicts
from webhook_gateway.forgetting import Forgetting
from webhook_gateway.quarantine import Kept, Quarantine
from webhook_gateway.retries import MOST, Retries

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
NONCE = re.compile(r"[A-Za-z0-9_-]{1,64}")

Row_co = TypeVar("Row_co", covariant=True)


class IngestAdminServicer(ingest_admin_service_pb2_grpc.IngestAdminServiceServicer):
    """Answers operators; each sees and retries only what its own credential covers.

    Args:
        retries: Lets refused deliveries in after all.
        quarantine: The events that can't be read.
        conflicts: The events that came under the ids of others.
        forgetting: Drops what is kept here.
    """

    def __init__(
        self, retries: Retries, quarantine: Quarantine, conflicts: Conflicts, forgetting: Forgetting
    ) -> None:
        self._retries = retries
        self._quarantine = quarantine
        self._conflicts = conflicts
        self._forgetting = forgetting

    async def RetryRejections(
        self, request: messages.RetryRejectionsRequest, context: Any
    ) -> messages.RetryRejectionsResponse:
        """Judge refused deliveries again and publish what is believed.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; UNAVAILABLE while security is away.
        """
        ids = request.rejection_ids
        if request.nonce and not NONCE.fullmatch(request.nonce):
            raise InvalidArgument("not a nonce", fields={"nonce": NONCE.pattern})
        if not 1 <= len(ids) <= MOST or len(set(ids)) != len(ids):
            raise InvalidArgument(
                f"name 1 to {MOST} rejections", fields={"rejection_ids": f"1 to {MOST}, each once"}
            )
        return messages.RetryRejectionsResponse(
            results=await self._retries.retry(ids, caller(), request.nonce)
        )

    async def Forget(self, request: messages.ForgetRequest, context: Any) -> messages.ForgetResponse:
        """Drop what is kept here. Errors: INVALID_ARGUMENT/FIELD_INVALID; UNAVAILABLE/STREAM_UNREACHABLE."""
        wanted = request.wanted
        if not wanted.tenant:
            raise InvalidArgument("tenant is needed", fields={"wanted.tenant": "is needed"})
        event_ids = frozenset(wanted.event_ids) if wanted.context_id or wanted.subject else None
        try:
            forgotten = await self._forgetting.carry_out(wanted.tenant, event_ids, dry_run=request.dry_run)
        except REDIS_TROUBLE:
            raise Unavailable("STREAM_UNREACHABLE", "Redis does not answer; try again") from None
        return messages.ForgetResponse(
            places=[
                Place(
                    name=one.place,
                    found_count=one.found,
                    erased_count=one.erased,
                    left_count=one.left,
                    reason=one.reason,
                )
                for one in forgotten
            ]
        )

    async def ListQuarantined(
        self, request: messages.ListQuarantinedRequest, context: Any
    ) -> messages.ListQuarantinedResponse:
        """Quarantined events, newest first; a page may be short with more to come.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED.
        """
        kept, token = await _page(self._quarantine, request)
        return messages.ListQuarantinedResponse(
            quarantined=[_shown(each) for each in kept], next_page_token=token
        )

    async def ListConflicts(
        self, request: messages.ListConflictsRequest, context: Any
    ) -> messages.ListConflictsResponse:
        """Events in conflict, newest first; a page may be short with more to come.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED.
        """
        rows, token = await _page(self._conflicts, request)
        return messages.ListConflictsResponse(
            conflicts=[_conflicting(fields) for fields in rows], next_page_token=token
        )

    async def GetQuarantined(
        self, request: messages.GetQuarantinedRequest, context: Any
    ) -> messages.GetQuarantinedResponse:
        """One quarantined event, sealed. Errors: NOT_FOUND/QUARANTINED_NOT_FOUND."""
        found = await self._quarantine.find(request.quarantined_id)
        if found is None or not caller().may(found.fields.get("tenant", ALL_TENANTS)):
            raise NotFound("QUARANTINED_NOT_FOUND", "there is no such quarantined event")
        shown = _shown(found)
        event = SealedEvent(
            id=shown.event_id,
            tenant=shown.tenant,
            tool=shown.tool,
            type=shown.type,
            received_time=shown.received_time,
            schema=int(found.fields.get("schema", 1)),
            sealed=found.sealed,
        )
        return messages.GetQuarantinedResponse(quarantined=shown, event=event)


class _Pages(Protocol[Row_co]):
    """Things kept aside, newest first."""

    async def page(
        self, size: int, token: str, *, tool: str = "", tenants: Collection[str] = (), since_ms: int = 0
    ) -> tuple[Sequence[Row_co], str]: ...


async def _page(
    kept: _Pages[Row_co], request: messages.ListQuarantinedRequest | messages.ListConflictsRequest
) -> tuple[Sequence[Row_co], str]:
    """What was asked for and the caller may see, and the token of the next page."""
    who = caller()
    tenants = {who.tenant(request.tenant)} if request.tenant else who.tenants
    if request.page_size < 0:
        raise InvalidArgument("page_size is negative", fields={"page_size": "0 means 100"})
    try:
        return await kept.page(
            min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE),
            request.page_token,
            tool=request.tool,
            # None named means all.
            tenants=() if ALL_TENANTS in tenants else tenants,
            since_ms=request.since_time.ToMilliseconds(),
        )
    except ValueError:
        raise InvalidArgument("not a page token of ours", fields={"page_token": "is not valid"}) from None


def _shown(kept: Kept) -> messages.Quarantined:
    fields = kept.fields
    shown = messages.Quarantined(
        quarantined_id=kept.quarantined_id,
        event_id=fields.get("id", ""),
        tenant=fields.get("tenant", ""),
        tool=fields.get("tool", ""),
        type=fields.get("type", ""),
        sealed_bytes=kept.sealed_bytes,
    )
    shown.received_time.FromMilliseconds(int(fields.get("received", 0)))
    return shown


def _conflicting(fields: Mapping[str, str]) -> messages.ConflictingEvent:
    shown = messages.ConflictingEvent(
        event_id=fields.get("id", ""),
        first_event_id=fields.get("of", ""),
        tenant=fields.get("tenant", ""),
        tool=fields.get("tool", ""),
        type=fields.get("type", ""),
    )
    shown.received_time.FromMilliseconds(int(fields.get("received", 0)))
    return shown
