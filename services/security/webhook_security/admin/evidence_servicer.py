"""The part of SecurityAdminService that shows evidence: what was refused, what is on record."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.security.v1 import security_admin_service_pb2 as messages
from webhook_shared.audit.chain import Contended
from webhook_shared.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from webhook_shared.rpc.identity import ALL_TENANTS, Caller, caller
from webhook_shared.sealing.errors import EnvelopeError

from webhook_security.evidence.audit_check import checked
from webhook_security.evidence.keepers import Evidence
from webhook_security.evidence.rejection_store import Found, Room

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
FOLLOW_EVERY_S = 0.5

_AUDIT_PAGE = 256


class EvidenceRpcs:
    """Answers operators; each sees only what its own credential covers."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    async def ListRejections(
        self, request: messages.ListRejectionsRequest, context: Any
    ) -> messages.ListRejectionsResponse:
        """Refused deliveries, newest first.

        Errors: INVALID_ARGUMENT/FIELD_INVALID; PERMISSION_DENIED/TENANT_NOT_ALLOWED.
        """
        if request.page_size < 0:
            raise InvalidArgument("page_size is negative", fields={"page_size": "0 means 100"})
        size = min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
        before = _place_of(request.page_token)
        found = await self._evidence.store.find(
            self._rooms(request.tenant, request.tool),
            cause=request.cause,
            since_ms=request.since_time.ToMilliseconds(),
            retryable_only=request.retryable_only,
        )
        left = [
            place for place in found if before is None or (place.received_ms, place.rejection_id) < before
        ]
        page = left[:size]
        return messages.ListRejectionsResponse(
            rejections=await self._evidence.store.rejections(page),
            next_page_token=_token_of(page[-1]) if len(left) > size else "",
        )

    async def GetRejection(
        self, request: messages.GetRejectionRequest, context: Any
    ) -> messages.GetRejectionResponse:
        """One refused delivery. Errors: NOT_FOUND/REJECTION_NOT_FOUND."""
        found = await self._evidence.store.deliveries(self._rooms(), [request.rejection_id])
        refused = found.get(request.rejection_id)
        if refused is None:
            raise NotFound("REJECTION_NOT_FOUND", "there is no such rejection (any more)")
        response = messages.GetRejectionResponse(rejection=refused.rejection)
        if request.include_payload and refused.delivery is not None:
            response.payload = refused.delivery.body
        return response

    async def OpenEvent(self, request: messages.OpenEventRequest, context: Any) -> messages.OpenEventResponse:
        """A sealed event in clear.

        Errors: PERMISSION_DENIED/TENANT_NOT_ALLOWED; INVALID_ARGUMENT/EVENT_NOT_OPENED.
        """
        sealed = request.event
        tenant = caller().tenant(sealed.tenant)
        keyring = self._evidence.keyring
        try:
            await keyring.prepare([tenant])
            content = keyring.open(tenant, sealed.sealed, "event", sealed.id)
        except EnvelopeError:
            raise InvalidArgument("this is no event of that tenant", reason="EVENT_NOT_OPENED") from None
        return messages.OpenEventResponse(event=WebhookEvent.FromString(content))

    async def TailAudit(
        self, request: messages.TailAuditRequest, context: Any
    ) -> AsyncIterator[messages.TailAuditResponse]:
        """The chain from a place on; a credential of some tenants sees theirs. A gap tells what has gone.

        Errors: INVALID_ARGUMENT/FIELD_INVALID for a bad resume token.
        """
        after = await self._beginning(request)
        who = caller()
        while True:
            page = await self._evidence.chain.entries(after=after, most=_AUDIT_PAGE)
            for entry in page:
                after = entry.sequence
                if _may_see(who, entry.record.tenant):
                    yield messages.TailAuditResponse(entry=entry, resume_token=str(after))
            if not page and not request.follow:
                return
            if not page and await self._is_over():
                return

    async def _is_over(self) -> bool:
        """Wait a little for more; whether there is no use in waiting on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._evidence.ended.wait(), FOLLOW_EVERY_S)
        return self._evidence.ended.is_set()

    async def _beginning(self, request: messages.TailAuditRequest) -> int:
        if request.resume_token:
            if not request.resume_token.isdecimal() or len(request.resume_token) > 18:
                raise InvalidArgument("not a token of ours", fields={"resume_token": "is not valid"})
            return int(request.resume_token)
        head = await self._evidence.chain.head() if request.last > 0 else None
        return max(0, head.sequence - request.last) if head else 0

    async def VerifyAudit(
        self, request: messages.VerifyAuditRequest, context: Any
    ) -> messages.VerifyAuditResponse:
        """Every link, the base and the seal. No errors of its own: what is wrong is a finding."""
        check = await checked(self._evidence.chain)
        return messages.VerifyAuditResponse(
            intact=not check.findings,
            first_sequence=check.first,
            last_sequence=check.last,
            head_hash=check.last_hash,
            findings=check.findings,
            lost_records=check.lost,
            entries=check.entries,
        )

    async def TrimAudit(self, request: messages.TrimAuditRequest, context: Any) -> messages.TrimAuditResponse:
        """Let go of the oldest entries.

        Errors: PERMISSION_DENIED/TENANT_NOT_ALLOWED; FAILED_PRECONDITION/AUDIT_ENTRY_DIFFERS;
        ABORTED/AUDIT_CONTENDED.
        """
        if not caller().may(ALL_TENANTS):
            raise PermissionDenied("TENANT_NOT_ALLOWED", "to trim takes a credential for all tenants")
        try:
            trimmed = await self._evidence.chain.trim(request.through_sequence, request.hash)
        except LookupError:
            raise FailedPrecondition(
                "AUDIT_ENTRY_DIFFERS", "the chain has no such entry with that hash; export it again"
            ) from None
        except Contended:
            raise Aborted("AUDIT_CONTENDED", "others were appending; try again") from None
        return messages.TrimAuditResponse(trimmed=trimmed)

    def _rooms(self, tenant: str = "", tool: str = "") -> list[Room]:
        who = caller()
        if tenant:
            who.tenant(tenant)
        return [
            room
            for room in self._evidence.store.rooms()
            if who.may(room.tenant) and tenant in ("", room.tenant) and tool in ("", room.tool)
        ]


def _may_see(who: Caller, tenant: str) -> bool:
    return who.may(tenant or ALL_TENANTS)


def _token_of(place: Found) -> str:
    return base64.urlsafe_b64encode(f"{place.received_ms} {place.rejection_id}".encode()).decode()


def _place_of(token: str) -> tuple[int, str] | None:
    if not token:
        return None
    try:
        received_ms, _, rejection_id = (
            base64.b64decode(token, altchars=b"-_", validate=True).decode().partition(" ")
        )
        return int(received_ms), rejection_id
    except (binascii.Error, ValueError):
        raise InvalidArgument("not a page token of ours", fields={"page_token": "is not valid"}) from None
