"""The service over a real socket: its two doors, its roles, its health, and Redis going away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_REFUSED
from webhook.security.v1.admission_service_pb2 import AdmitRequest, ListEdgePoliciesRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook.security.v1.security_admin_service_pb2 import (
    ROLE_OPERATOR,
    ROLE_READER,
    CreateApiKeyRequest,
    GetSourceRequest,
    ListSourcesRequest,
    RevokeApiKeyRequest,
)
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_security.catalogue import CatalogueError
from webhook_security.settings import SecuritySettings
from webhook_security.wiring import running
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.rpc import identity
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.settings import RedisSection

ISSUE = b'{"action":"opened"}'


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def test_admit(service: Any, valkey: RedisSection, sign: Any, deliver: Any) -> None:
    async with service(valkey) as channel:
        good = deliver("github", ISSUE, sign.github(ISSUE))
        forged = deliver("github", ISSUE, sign.github(ISSUE, secret="wrong"))
        reply = await AdmissionServiceStub(channel).Admit(AdmitRequest(deliveries=[good, forged, good]))
        outcomes = [verdict.outcome for verdict in reply.verdicts]
        assert outcomes == [OUTCOME_ADMITTED, OUTCOME_REFUSED, OUTCOME_ADMITTED]


async def test_admit_takes_at_most_256(service: Any, valkey: RedisSection, deliver: Any) -> None:
    async with service(valkey) as channel:
        request = AdmitRequest(deliveries=[deliver("github", b"", {})] * 257)
        error = await refusal(AdmissionServiceStub(channel).Admit(request))
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
        assert (await AdmissionServiceStub(channel).Admit(AdmitRequest())).verdicts == []


async def test_edge_policies_hold_no_secret(
    service: Any, valkey: RedisSection, senders: dict[str, str]
) -> None:
    security = {"tenants": {"beta": {"signature_secrets": {"github": "env:GITHUB_WEBHOOK_SECRET"}}}}
    async with service(valkey, security=security) as channel:
        stub = AdmissionServiceStub(channel)
        reply = await stub.ListEdgePolicies(ListEdgePoliciesRequest())
        again = await stub.ListEdgePolicies(ListEdgePoliciesRequest())
    assert reply == again
    assert reply.revision
    found = {(policy.tenant, policy.tool): policy for policy in reply.policies}
    github = found["", "github"]
    assert github.max_body_bytes == 25 * 2**20
    assert list(github.content_types) == ["application/json", "application/x-www-form-urlencoded"]
    assert (list(github.methods), github.accepted_status, github.duplicate_status) == (["POST"], 202, 202)
    assert not github.sender_retries
    assert found["", "jira"].sender_retries
    assert ("beta", "github") in found
    assert ("beta", "jira") not in found
    assert not any(secret.encode() in reply.SerializeToString() for secret in senders.values())


async def test_each_door_has_its_role(service: Any, valkey: RedisSection, redis: Any) -> None:
    _, reader = await ApiKeys(redis).mint("r", ["default"], [Role.READER])
    _, operator = await ApiKeys(redis).mint("o", ["default"], [Role.OPERATOR])
    async with service(valkey, key=operator) as channel:
        assert (await SecurityAdminServiceStub(channel).ListSources(ListSourcesRequest())).sources
        error = await refusal(AdmissionServiceStub(channel).Admit(AdmitRequest()))
        assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    async with service(valkey, key=reader) as channel:
        error = await refusal(SecurityAdminServiceStub(channel).ListSources(ListSourcesRequest()))
        assert error.reason == "ROLE_MISSING"
    async with service(valkey, key="whk_no_such") as channel:
        error = await refusal(AdmissionServiceStub(channel).Admit(AdmitRequest()))
        assert error.code == grpc.StatusCode.UNAUTHENTICATED


async def test_sources_as_the_operator_sees_them(
    service: Any, valkey: RedisSection, redis: Any, senders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JIRA_WEBHOOK_SECRET")
    security = {
        "signature_secrets": {"jira": "env:JIRA_WEBHOOK_SECRET"},
        "tenants": {
            "beta": {
                "signature_secrets": {
                    "github": {
                        "ref": "env:GITHUB_WEBHOOK_SECRET",
                        "key_id": "k",
                        "not_after": "2030-01-01",
                    }
                }
            }
        },
    }
    async with service(valkey, security=security) as channel:
        stub = SecurityAdminServiceStub(channel)
        everything = await stub.ListSources(ListSourcesRequest())
        routes = [(source.tenant, source.tool) for source in everything.sources]
        assert routes == sorted(routes)
        paged, token = [], ""
        while True:
            page = await stub.ListSources(ListSourcesRequest(page_size=2, page_token=token))
            assert len(page.sources) <= 2
            paged += page.sources
            token = page.next_page_token
            if not token:
                break
        assert paged == list(everything.sources)
        assert (await refusal(stub.ListSources(ListSourcesRequest(page_token="%")))).reason == "FIELD_INVALID"
        assert (await refusal(stub.ListSources(ListSourcesRequest(page_size=-1)))).reason == "FIELD_INVALID"
        beta = (await stub.GetSource(GetSourceRequest(tenant="beta", tool="github"))).source
        [secret] = beta.secrets
        assert (secret.key_id, secret.reference, secret.usable) == ("k", "env:GITHUB_WEBHOOK_SECRET", True)
        assert secret.not_after_time.ToJsonString() == "2030-01-01T00:00:00Z"
        assert not secret.HasField("not_before_time")
        jira = (await stub.GetSource(GetSourceRequest(tenant="default", tool="jira"))).source
        assert (jira.enabled, jira.secrets[0].usable) == (False, False)
        assert jira.checked_date == "2026-11-22"
        error = await refusal(stub.GetSource(GetSourceRequest(tenant="default", tool="nobody")))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND")
        assert not any(value.encode() in everything.SerializeToString() for value in senders.values())
    _, operator = await ApiKeys(redis).mint("o", ["beta"], [Role.OPERATOR])
    async with service(valkey, key=operator, security=security) as channel:
        stub = SecurityAdminServiceStub(channel)
        seen = (await stub.ListSources(ListSourcesRequest())).sources
        assert {source.tenant for source in seen} == {"beta"}
        assert (await stub.GetSource(GetSourceRequest(tool="github"))).source.tenant == "beta"
        error = await refusal(stub.GetSource(GetSourceRequest(tenant="default", tool="github")))
        assert error.reason == "TENANT_NOT_ALLOWED"


async def test_api_keys_live_and_die(
    service: Any, valkey: RedisSection, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "CACHE_S", 0.0)
    async with service(valkey) as channel:
        stub = SecurityAdminServiceStub(channel)
        request = CreateApiKeyRequest(
            display_name="ci-bot", tenants=["default"], roles=[ROLE_OPERATOR, ROLE_READER], request_id="r-1"
        )
        made = await stub.CreateApiKey(request)
        assert made.secret
        assert made.api_key.display_name == "ci-bot"
        assert list(made.api_key.roles) == [ROLE_OPERATOR, ROLE_READER]
        assert made.api_key.create_time.seconds > 0
        assert not made.api_key.HasField("expire_time")
        again = await stub.CreateApiKey(request)
        assert (again.api_key.key_id, again.secret) == (made.api_key.key_id, "")
        stored = b"".join(value for value in (await redis.hgetall("apikeys")).values())
        assert made.secret.encode() not in stored
        theirs = ApiKeys(redis)
        assert await theirs.find(made.secret)
        await stub.RevokeApiKey(RevokeApiKeyRequest(key_id=made.api_key.key_id))
        assert await theirs.find(made.secret) is None
        error = await refusal(stub.RevokeApiKey(RevokeApiKeyRequest(key_id=made.api_key.key_id)))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"display_name": ""}, "display_name"),
        ({"display_name": "x" * 101}, "display_name"),
        ({"display_name": "a\nb"}, "display_name"),
        ({"tenants": []}, "tenants"),
        ({"tenants": ["A B"]}, "tenants"),
        ({"roles": []}, "roles"),
        ({"roles": [0]}, "roles"),
        ({"roles": [4]}, "roles"),
        ({"expire_time": {"seconds": 1}}, "expire_time"),
        ({"request_id": "x" * 129}, "request_id"),
    ],
)
async def test_keys_that_can_not_be_made(
    service: Any, valkey: RedisSection, change: dict[str, Any], field: str
) -> None:
    async with service(valkey) as channel:
        request = {"display_name": "ci", "tenants": ["default"], "roles": [ROLE_READER], **change}
        error = await refusal(SecurityAdminServiceStub(channel).CreateApiKey(CreateApiKeyRequest(**request)))
        assert error.reason == "FIELD_INVALID"
        assert list(error.fields) == [field]


async def test_nobody_grants_or_revokes_beyond_their_tenants(
    service: Any, valkey: RedisSection, redis: Any
) -> None:
    _, operator = await ApiKeys(redis).mint("o", ["beta"], [Role.OPERATOR])
    other, secret = await ApiKeys(redis).mint("x", ["default"], [Role.READER])
    async with service(valkey, key=operator) as channel:
        stub = SecurityAdminServiceStub(channel)
        for tenants in (["default"], ["beta", "default"], ["*"]):
            request = CreateApiKeyRequest(display_name="x", tenants=tenants, roles=[ROLE_READER])
            error = await refusal(stub.CreateApiKey(request))
            assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_NOT_ALLOWED")
        error = await refusal(stub.RevokeApiKey(RevokeApiKeyRequest(key_id=other.key_id)))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    assert await ApiKeys(redis).find(secret)


async def test_without_redis_what_comes_is_still_judged(
    service: Any, redis_server: Any, sign: Any, deliver: Any
) -> None:
    async with service(redis_server.settings) as channel:
        stub = AdmissionServiceStub(channel)
        request = AdmitRequest(deliveries=[deliver("github", ISSUE, sign.github(ISSUE))])
        assert (await stub.Admit(request)).verdicts[0].outcome == OUTCOME_ADMITTED
        redis_server.kill()
        assert (await stub.Admit(request)).verdicts[0].outcome == OUTCOME_ADMITTED
        admin = SecurityAdminServiceStub(channel)
        error = await refusal(admin.RevokeApiKey(RevokeApiKeyRequest(key_id="x"), timeout=3))
        assert error.code == grpc.StatusCode.UNAVAILABLE
        redis_server.start()
        await redis_server.answering()
        assert (
            await refusal(admin.RevokeApiKey(RevokeApiKeyRequest(key_id="x")))
        ).reason == "API_KEY_NOT_FOUND"


async def test_weak_keys_are_told_before_anything_waits(senders: dict[str, str]) -> None:
    nowhere = {"addresses": ["127.0.0.1:1"]}
    for webhook, told in (
        ({}, "ENCRYPTION_MASTER_KEY"),
        ({"encryption": {"master_key": SecretStr("k" * 16 + "0123456789abcdefgh")}}, "WEBHOOK_INTERNAL_KEY"),
    ):
        settings = SecuritySettings.model_validate({"webhook": {"redis": nowhere, **webhook}})
        async with asyncio.timeout(5):
            with pytest.raises(ValueError, match=told):
                async with running(settings):
                    pass


async def test_health_says_serving(service: Any, valkey: RedisSection) -> None:
    async with service(valkey) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "webhook.security.v1.AdmissionService", "webhook.security.v1.SecurityAdminService"):
            async with asyncio.timeout(10):
                while True:
                    reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        break
                    await asyncio.sleep(0.01)


async def test_a_secret_file_is_rotated_while_it_serves(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any, tmp_path: Path
) -> None:
    file = tmp_path / "github"
    file.write_text("one\n", encoding="utf-8")
    async with service(valkey, security={"signature_secrets": {"github": f"file:{file}"}}) as channel:
        stub = AdmissionServiceStub(channel)

        async def outcome(secret: str) -> int:
            request = AdmitRequest(deliveries=[deliver("github", ISSUE, sign.github(ISSUE, secret=secret))])
            return int((await stub.Admit(request)).verdicts[0].outcome)

        assert await outcome("one") == OUTCOME_ADMITTED
        file.write_text("two\n", encoding="utf-8")
        async with asyncio.timeout(15):
            while await outcome("two") != OUTCOME_ADMITTED:
                await asyncio.sleep(0.05)
        assert await outcome("one") == OUTCOME_REFUSED


async def test_a_bad_catalogue_or_kind_refuses_to_start(service: Any, valkey: RedisSection) -> None:
    with pytest.raises((ValueError, CatalogueError), match="source_kinds"):
        async with service(valkey, security={"source_kinds": {"a": "nothing"}}):
            pass
