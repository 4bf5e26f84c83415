"""AdmissionService: the gateway's questions, between messages and the judge."""

from __future__ import annotations

import hashlib
from typing import Any

from webhook.security.v1.admission_service_pb2 import (
    AdmitRequest,
    AdmitResponse,
    ListEdgePoliciesRequest,
    ListEdgePoliciesResponse,
)
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceServicer
from webhook.security.v1.source_pb2 import EdgePolicy
from webhook_shared.errors import InvalidArgument

from webhook_security.admission import Admission
from webhook_security.registry import Registry, Source
from webhook_security.settings import DEFAULT_TENANT
from webhook_security.tenants import TenantKeys

MOST_DELIVERIES = 256

_REVISION_CHARACTERS = 16


class AdmissionServicer(AdmissionServiceServicer):
    """Answers the gateway.

    Args:
        admission: Judges.
        keys: Holds what sealing needs.
        registry: The sources, which stay what they are while the process lives.
    """

    def __init__(self, admission: Admission, keys: TenantKeys, registry: Registry) -> None:
        self._admission = admission
        self._keys = keys
        policies = [edge_policy(source) for source in registry.sources()]
        digest = hashlib.sha256(b"".join(policy.SerializeToString(deterministic=True) for policy in policies))
        self._policies = ListEdgePoliciesResponse(
            policies=policies, revision=digest.hexdigest()[:_REVISION_CHARACTERS]
        )

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
        self._admission.judge(cases)
        return response

    async def ListEdgePolicies(
        self, request: ListEdgePoliciesRequest, context: Any
    ) -> ListEdgePoliciesResponse:
        """What the HTTP edge may know. No errors of its own."""
        return self._policies


def edge_policy(source: Source) -> EdgePolicy:
    """What the HTTP edge may know of a source."""
    return EdgePolicy(
        tenant="" if source.tenant == DEFAULT_TENANT else source.tenant,
        tool=source.tool,
        max_body_bytes=source.max_body_bytes,
        content_types=source.row.content_types,
        methods=("POST",),
        accepted_status=source.row.answers.accepted,
        duplicate_status=source.row.answers.duplicate,
        sender_retries=source.row.sender.retries,
    )
