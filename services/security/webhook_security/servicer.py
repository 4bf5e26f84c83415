"""AdmissionService: the gateway's questions, between messages and the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from webhook.security.v1.admission_service_pb2 import (
    AdmitRequest,
    AdmitResponse,
    ListEdgePoliciesRequest,
    ListEdgePoliciesResponse,
    ReadmitRequest,
    ReadmitResponse,
    ReportConflictsRequest,
    ReportConflictsResponse,
    ReportRefusalsRequest,
    ReportRefusalsResponse,
    SettleReadmissionsRequest,
    SettleReadmissionsResponse,
)
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceServicer
from webhook.security.v1.source_pb2 import EdgePolicy
from webhook_shared.errors import InvalidArgument

from webhook_security.admission.judge import Admission
from webhook_security.admission.readmission import Readmissions
from webhook_security.admission.tenants import TenantKeys
from webhook_security.case import Case
from webhook_security.evidence.audit import Audit
from webhook_security.limits.rates import Limits
from webhook_security.refusals import Refusal
from webhook_security.registry.sources import Registry, Source
from webhook_security.settings import DEFAULT_TENANT

MOST_DELIVERIES = 256

_REVISION_CHARACTERS = 16


class AdmissionServicer(AdmissionServiceServicer):
    """Answers the gateway.

    Args:
        admission: Judges.
        keys: Holds what sealing needs.
        registry: The sources.
        readmissions: Hears refused deliveries again.
        limits: Counts; None where no rate is limited.
        audit: Hears of what was believed; None where nothing is recorded.
    """

    def __init__(
        self,
        admission: Admission,
        keys: TenantKeys,
        registry: Registry,
        readmissions: Readmissions,
        *,
        limits: Limits | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._admission = admission
        self._keys = keys
        self._readmissions = readmissions
        self._limits = limits
        self._audit = audit
        self._registry = registry
        self._policies = (-1, ListEdgePoliciesResponse())

    async def Admit(self, request: AdmitRequest, context: Any) -> AdmitResponse:
        """A verdict per delivery. Errors: INVALID_ARGUMENT/FIELD_INVALID for more than 256 deliveries."""
        if len(request.deliveries) > MOST_DELIVERIES:
            raise InvalidArgument(
                f"at most {MOST_DELIVERIES} deliveries at once",
                fields={"deliveries": f"holds {len(request.deliveries)}"},
            )
        response = AdmitResponse()
        cases = [self._admission.case(delivery, response.verdicts.add()) for delivery in request.deliveries]
        await self._keys.hold(case.source.tenant for case in cases if case.source)
        believed = self._admission.prove(cases)
        if self._limits is not None:
            believed = await self._within_limits(believed)
        held = self._admission.conclude(believed)
        if held:
            await self._admission.settle(held)
        if self._audit is not None:
            self._audit.admitted(response.verdicts)
        return response

    async def ReportRefusals(self, request: ReportRefusalsRequest, context: Any) -> ReportRefusalsResponse:
        """What the edge turned away by itself. Errors: INVALID_ARGUMENT/FIELD_INVALID for more than 256."""
        if len(request.refusals) > MOST_DELIVERIES:
            raise InvalidArgument(
                f"at most {MOST_DELIVERIES} refusals at once",
                fields={"refusals": f"holds {len(request.refusals)}"},
            )
        for refusal in request.refusals:
            self._admission.reported(refusal)
        return ReportRefusalsResponse()

    async def Readmit(self, request: ReadmitRequest, context: Any) -> ReadmitResponse:
        """Refused deliveries, judged again. Errors: INVALID_ARGUMENT/FIELD_INVALID for not 1 to 64 ids."""
        readmissions = await self._readmissions.judge(request.rejection_ids, request.operator, request.nonce)
        return ReadmitResponse(readmissions=readmissions)

    async def SettleReadmissions(
        self, request: SettleReadmissionsRequest, context: Any
    ) -> SettleReadmissionsResponse:
        """They are in their stream. Errors: INVALID_ARGUMENT/FIELD_INVALID for more than 64."""
        await self._readmissions.settle(request.settled)
        return SettleReadmissionsResponse()

    async def ReportConflicts(self, request: ReportConflictsRequest, context: Any) -> ReportConflictsResponse:
        """Two events of one id. Errors: INVALID_ARGUMENT/FIELD_INVALID for more than 256."""
        if len(request.conflicts) > MOST_DELIVERIES:
            raise InvalidArgument(
                f"at most {MOST_DELIVERIES} conflicts at once",
                fields={"conflicts": f"holds {len(request.conflicts)}"},
            )
        if self._audit is not None:
            for conflict in request.conflicts:
                self._audit.conflicted(conflict)
        return ReportConflictsResponse()

    async def _within_limits(self, cases: list[Case]) -> list[Case]:
        assert self._limits is not None
        excess = await self._limits.exceeded(cases)
        if not excess:
            return cases
        for case, retry_after_s in excess:
            self._admission.refuse(case, Refusal.RATE, retry_after_s)
        refused = {id(case) for case, _ in excess}
        return [case for case in cases if id(case) not in refused]

    async def ListEdgePolicies(
        self, request: ListEdgePoliciesRequest, context: Any
    ) -> ListEdgePoliciesResponse:
        """What the HTTP edge may know. No errors of its own."""
        revision, response = self._policies
        if revision != self._registry.revision:
            response = _policies_of(self._registry.sources())
            self._policies = (self._registry.revision, response)
        return response


def _policies_of(sources: Iterable[Source]) -> ListEdgePoliciesResponse:
    policies = [edge_policy(source) for source in sources]
    digest = hashlib.sha256(b"".join(policy.SerializeToString(deterministic=True) for policy in policies))
    return ListEdgePoliciesResponse(policies=policies, revision=digest.hexdigest()[:_REVISION_CHARACTERS])


def edge_policy(source: Source) -> EdgePolicy:
    """What the HTTP edge may know of a source."""
    return EdgePolicy(
        tenant="" if source.tenant == DEFAULT_TENANT else source.tenant,
        tool=source.tool,
        max_body_bytes=source.max_body_bytes,
        content_types=source.row.edge_content_types,
        methods=source.row.methods,
        accepted_status=source.row.answers.accepted,
        duplicate_status=source.row.answers.duplicate,
        sender_retries=source.row.sender.retries,
    )
