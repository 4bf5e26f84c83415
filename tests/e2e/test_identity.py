"""Who may do what: every RPC of every service, found by reflection, with every kind of credential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from webhook.security.v1 import security_admin_service_pb2
from webhook.security.v1.security_admin_service_pb2 import ROLE_OPERATOR, ROLE_READER, ROLE_WRITER

from tests.patience import eventually
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

RPC_WITHIN_S = 10.0
STREAM_WITHIN_S = 2.0
SERVICES = ("gateway", "security", "consumer", "intelligence", "context")
OPEN = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}

#: The role that each RPC needs. Whoever adds an RPC says here who may call it.
ROLES = {
    "webhook.ingest.v1.IngestService/IngestEvents": "writer",
    "webhook.ingest.v1.IngestService/TailEvents": "operator",
    "webhook.ingest.v1.IngestAdminService/RetryRejections": "operator",
    "webhook.ingest.v1.IngestAdminService/ListQuarantined": "operator",
    "webhook.ingest.v1.IngestAdminService/GetQuarantined": "operator",
    "webhook.ingest.v1.IngestAdminService/ListConflicts": "operator",
    "webhook.ingest.v1.IngestAdminService/Forget": "internal",
    "webhook.ingest.v1.MigrationService/GetMigration": "operator",
    "webhook.ingest.v1.MigrationService/RampMigration": "operator",
    "webhook.ingest.v1.MigrationService/CompareMigration": "operator",
    "webhook.security.v1.AdmissionService/Admit": "internal",
    "webhook.security.v1.AdmissionService/ListEdgePolicies": "internal",
    "webhook.security.v1.AdmissionService/ReportRefusals": "internal",
    "webhook.security.v1.AdmissionService/Readmit": "internal",
    "webhook.security.v1.AdmissionService/SettleReadmissions": "internal",
    "webhook.security.v1.AdmissionService/ReportConflicts": "internal",
    "webhook.security.v1.SecurityAdminService/ListSources": "operator",
    "webhook.security.v1.SecurityAdminService/GetSource": "operator",
    "webhook.security.v1.SecurityAdminService/CreateApiKey": "operator",
    "webhook.security.v1.SecurityAdminService/RevokeApiKey": "operator",
    "webhook.security.v1.SecurityAdminService/RotateSecret": "operator",
    "webhook.security.v1.SecurityAdminService/RetireSecret": "operator",
    "webhook.security.v1.SecurityAdminService/ListSecrets": "operator",
    "webhook.security.v1.SecurityAdminService/ListRejections": "operator",
    "webhook.security.v1.SecurityAdminService/GetRejection": "operator",
    "webhook.security.v1.SecurityAdminService/OpenEvent": "operator",
    "webhook.security.v1.SecurityAdminService/TailAudit": "operator",
    "webhook.security.v1.SecurityAdminService/VerifyAudit": "operator",
    "webhook.security.v1.SecurityAdminService/TrimAudit": "operator",
    "webhook.security.v1.SecurityAdminService/ListDictionaries": "operator",
    "webhook.security.v1.SecurityAdminService/TrainDictionary": "operator",
    "webhook.security.v1.SecurityAdminService/Forget": "internal",
    "webhook.consumer.v1.ConsumerAdminService/GetBacklog": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ListConsumers": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ListDeadLetters": "operator",
    "webhook.consumer.v1.ConsumerAdminService/GetDeadLetter": "operator",
    "webhook.consumer.v1.ConsumerAdminService/CountDeadLetters": "operator",
    "webhook.consumer.v1.ConsumerAdminService/RedriveDeadLetters": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ListCircuitBreakers": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ResetCircuitBreaker": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ListTools": "operator",
    "webhook.consumer.v1.ConsumerAdminService/PauseTool": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ResumeTool": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ClaimPending": "operator",
    "webhook.consumer.v1.ConsumerAdminService/DrainQueue": "operator",
    "webhook.consumer.v1.ConsumerAdminService/ResumeQueue": "operator",
    "webhook.consumer.v1.ArchiveService/ListArchivedEvents": "operator",
    "webhook.consumer.v1.ArchiveService/GetArchivedEvent": "operator",
    "webhook.consumer.v1.ArchiveService/ReplayEvents": "operator",
    "webhook.consumer.v1.ForgettingService/Forget": "internal",
    "webhook.intelligence.v1.IntelligenceService/Embed": "reader",
    "webhook.intelligence.v1.IntelligenceService/Summarize": "reader",
    "webhook.intelligence.v1.IntelligenceService/StreamEmbed": "reader",
    "webhook.intelligence.v1.IntelligenceService/Analyze": "writer",
    "webhook.intelligence.v1.IntelligenceService/StreamAnalyze": "writer",
    "webhook.intelligence.v1.IntelligenceService/Explain": "reader",
    "webhook.intelligence.v1.IntelligenceService/Observe": "writer",
    "webhook.intelligence.v1.IntelligenceService/Predict": "reader",
    "webhook.intelligence.v1.IntelligenceService/Estimate": "reader",
    "webhook.intelligence.v1.IntelligenceService/GetSpending": "reader",
    "webhook.intelligence.v1.IntelligenceService/GetEmbeddingModels": "reader",
    "webhook.intelligence.v1.IntelligenceService/SwitchEmbeddingModel": "operator",
    "webhook.intelligence.v1.IntelligenceService/Forget": "internal",
    "webhook.context.v1.ContextService/AppendEvents": "writer",
    "webhook.context.v1.ContextService/GetContext": "reader",
    "webhook.context.v1.ContextService/BatchGetContexts": "reader",
    "webhook.context.v1.ContextService/ListContexts": "reader",
    "webhook.context.v1.ContextService/SearchContexts": "reader",
    "webhook.context.v1.ContextService/UpdateContext": "writer",
    "webhook.context.v1.ContextService/PatchContext": "writer",
    "webhook.context.v1.ContextService/ListRevisions": "reader",
    "webhook.context.v1.ContextService/AssembleWindow": "reader",
    "webhook.context.v1.ContextService/ListNeighbors": "reader",
    "webhook.context.v1.ContextService/WatchContexts": "reader",
    "webhook.context.v1.ContextService/DeleteContext": "writer",
    "webhook.context.v1.ContextAdminService/GetStats": "operator",
    "webhook.context.v1.ContextAdminService/ForceTransition": "operator",
    "webhook.context.v1.ContextAdminService/ListDictionaries": "operator",
    "webhook.context.v1.ContextAdminService/TrainDictionary": "operator",
    "webhook.context.v1.ContextAdminService/Restore": "operator",
    "webhook.context.v1.ContextAdminService/RotateKeys": "operator",
    "webhook.context.v1.ContextAdminService/GetKeys": "operator",
    "webhook.context.v1.ContextAdminService/Reindex": "operator",
    "webhook.context.v1.ContextAdminService/Erase": "operator",
    "webhook.context.v1.ContextAdminService/ListErasures": "operator",
    "webhook.context.v1.ContextAdminService/GetErasureKey": "operator",
}
#: These go on for as long as somebody listens.
STREAMED = {
    "webhook.ingest.v1.IngestService/TailEvents",
    "webhook.security.v1.SecurityAdminService/TailAudit",
    "webhook.context.v1.ContextService/WatchContexts",
}
KEYS = {"reader": ROLE_READER, "writer": ROLE_WRITER, "operator": ROLE_OPERATOR}
CLOSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


def _methods(address: str) -> Iterator[str]:
    """What a server says of itself: "package.Service/Method"."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        for service in set(database.get_services()) - OPEN:
            for method in pool.FindServiceByName(service).methods:
                yield f"{service}/{method.name}"


@pytest.fixture(scope="module")
def served(house: House) -> dict[str, str]:
    """Every RPC that is served, with the service that serves it."""
    return {method: service for service in SERVICES for method in _methods(house.system.plan.grpc[service])}


async def _call(
    house: House, service: str, method: str, metadata: tuple[tuple[str, str], ...] = ()
) -> grpc.StatusCode:
    """The code of an empty request to an RPC, whatever its messages are."""
    async with grpc.aio.insecure_channel(house.system.plan.grpc[service]) as channel:
        rpc: Any = channel.unary_unary(f"/{method}")
        within_s = STREAM_WITHIN_S if method in STREAMED else RPC_WITHIN_S
        call = rpc(b"", metadata=metadata, timeout=within_s)
        code: grpc.StatusCode = await call.code()
        return code


def _bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_every_rpc_is_accounted_for(served: dict[str, str]) -> None:
    assert set(served) == set(ROLES)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        _bearer(""),
        _bearer("whk_0123456789ab_nobody-minted-this"),
        _bearer("0" * 64),
        (("authorization", "Basic b3BlcmF0b3I6b3BlcmF0b3I="),),
        (("authorization", "Bearer"),),
        (("x-webhook-tenant", "default"),),
    ],
    ids=["nothing", "empty", "unknown key", "not a key", "basic", "no key", "a tenant header"],
)
async def test_no_rpc_answers_who_has_no_credential(
    house: House, served: dict[str, str], metadata: tuple[tuple[str, str], ...]
) -> None:
    codes = {method: await _call(house, service, method, metadata) for method, service in served.items()}
    assert codes == dict.fromkeys(served, grpc.StatusCode.UNAUTHENTICATED)


@pytest.mark.parametrize("role", KEYS)
async def test_a_role_opens_its_own_rpcs_and_no_other(
    house: House, served: dict[str, str], role: str
) -> None:
    key = await house.key(KEYS[role], tenants=("*",))
    for method, service in served.items():
        code = await _call(house, service, method, _bearer(key))
        if ROLES[method] == role:
            assert code not in CLOSED | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, method
        else:
            assert code is grpc.StatusCode.PERMISSION_DENIED, method


@pytest.mark.parametrize("service", SERVICES)
async def test_health_and_reflection_are_open(house: House, service: str) -> None:
    address = house.system.plan.grpc[service]
    names = {method.partition("/")[0] for method in _methods(address)}
    assert names
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", *names):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING, name


async def test_a_revoked_key_is_worth_nothing_within_ten_seconds(house: House) -> None:
    key = await house.key(ROLE_READER, tenants=("default",))
    method = "webhook.context.v1.ContextService/ListContexts"
    assert await _call(house, "context", method, _bearer(key)) is grpc.StatusCode.OK
    key_id = key.split("_")[1]
    await house.operator.security_admin.RevokeApiKey(
        security_admin_service_pb2.RevokeApiKeyRequest(key_id=key_id)
    )

    async def attempt() -> None:
        assert await _call(house, "context", method, _bearer(key)) is grpc.StatusCode.UNAUTHENTICATED

    await eventually(attempt, within_s=11.0)
