"""Evidence over a real socket: what was refused, hearing it again, and what is on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from webhook.security.v1 import audit_pb2
from webhook.security.v1 import security_admin_service_pb2 as messages
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    OUTCOME_QUARANTINED,
    OUTCOME_REFUSED,
    REFUSAL_CONTENT_TYPE,
    REFUSAL_SECRET_UNAVAILABLE,
    REFUSAL_SIGNATURE_INVALID,
    REFUSAL_UNKNOWN_SOURCE,
)
from webhook.security.v1.admission_service_pb2 import (
    AdmitRequest,
    Conflict,
    EdgeRefusal,
    Operator,
    ReadmitRequest,
    ReportConflictsRequest,
    ReportRefusalsRequest,
    SettledReadmission,
    SettleReadmissionsRequest,
)
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook.security.v1.audit_pb2 import AuditRecord
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.settings import RedisSection

ISSUE = b'{"action":"opened"}'
EVERYBODY = Operator(key_id="op", tenants=["*"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook_security.evidence.keepers.GATHERED_S", 0.02)
    monkeypatch.setattr("webhook_security.evidence.rejections.GATHERED_S", 0.02)
    monkeypatch.setattr("webhook_security.admin.evidence_servicer.FOLLOW_EVERY_S", 0.02)


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(10):
        while not (found := await look()):
            await asyncio.sleep(0.01)
    return found


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def listed(channel: Any, **request: Any) -> Any:
    stub = SecurityAdminServiceStub(channel)
    return (await stub.ListRejections(messages.ListRejectionsRequest(**request))).rejections


async def record(channel: Any, fact: str) -> list[AuditRecord]:
    stream = SecurityAdminServiceStub(channel).TailAudit(messages.TailAuditRequest())
    records = [response.entry.record async for response in stream]
    return [each for each in records if each.WhichOneof("fact") == fact]


async def admitted(channel: Any, *deliveries: Any) -> list[Any]:
    reply = await AdmissionServiceStub(channel).Admit(AdmitRequest(deliveries=deliveries))
    return list(reply.verdicts)


async def test_a_delivery_is_believed_once_its_secret_is_mended(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK_SECRET", "the wrong one")
    then = time.time() - 3600
    delivery = deliver("slack", ISSUE, sign.slack(ISSUE, secret="the right one", at=then))
    delivery.received_time.FromSeconds(int(then))
    async with service(valkey) as channel:
        [verdict] = await admitted(channel, delivery)
        assert verdict.refusal == REFUSAL_SIGNATURE_INVALID
        [rejection] = await eventually(lambda: listed(channel, tool="slack"))
        ids = [rejection.rejection_id]
        readmit = AdmissionServiceStub(channel).Readmit
        request = ReadmitRequest(rejection_ids=[*ids, "no-such"], operator=EVERYBODY)
        still, missing = (await readmit(request)).readmissions
        assert still.verdict.refusal == REFUSAL_SIGNATURE_INVALID
        assert missing.status.reason == "REJECTION_NOT_FOUND"
    monkeypatch.setenv("SLACK_WEBHOOK_SECRET", "the right one")
    async with service(valkey) as channel:
        readmit = AdmissionServiceStub(channel).Readmit
        request = ReadmitRequest(rejection_ids=ids, operator=EVERYBODY)
        for _ in range(2):
            [now] = (await readmit(request)).readmissions
            assert now.verdict.outcome == OUTCOME_ADMITTED
            # The same event however often it is tried, and when it came, not when it was let in.
            assert now.verdict.event.id == rejection.rejection_id
            assert now.verdict.event.received_time.seconds == int(then)
        settled = SettledReadmission(rejection_id=ids[0], event_id=ids[0])
        await AdmissionServiceStub(channel).SettleReadmissions(SettleReadmissionsRequest(settled=[settled]))
        [after] = (await readmit(request)).readmissions
        assert (after.settled_event_id, after.verdict.outcome) == (ids[0], 0)
        # A retry that is refused is not one more refusal.
        assert [each.rejection_id for each in await listed(channel)] == ids

        async def both() -> bool:
            calls = await record(channel, "admin_call")
            told = {(each.admin_call.key_id, each.admin_call.outcome) for each in calls}
            return told == {("op", "SIGNATURE_INVALID"), ("op", "ADMITTED")}

        await eventually(both)


async def test_a_nonce_makes_an_event_of_its_own_once(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("SLACK_WEBHOOK_SECRET", "the wrong one")
    body = b'{"event_id":"Ev1"}'
    delivery = deliver("slack", body, sign.slack(body, secret="the right one"))
    async with service(valkey) as channel:
        await admitted(channel, delivery)
        [rejection] = await eventually(lambda: listed(channel, tool="slack"))
    monkeypatch.setenv("SLACK_WEBHOOK_SECRET", "the right one")
    async with service(valkey) as channel:
        [delivered] = await admitted(channel, delivery)

        async def readmitted(nonce: str) -> tuple[str, str]:
            request = ReadmitRequest(rejection_ids=[rejection.rejection_id], operator=EVERYBODY, nonce=nonce)
            [found] = (await AdmissionServiceStub(channel).Readmit(request)).readmissions
            return found.verdict.dedup_key, found.verdict.event.id

        # Without one it is the event that its sender has delivered since.
        assert await readmitted("") == (delivered.dedup_key, rejection.rejection_id)
        once, twice, other = [await readmitted(nonce) for nonce in ("one", "one", "two")]
        assert once == twice
        assert len({delivered.dedup_key, once[0], other[0]}) == 3
        assert len({rejection.rejection_id, once[1], other[1]}) == 3
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await readmitted("no nonce")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_conflicts_go_on_record(service: Any, valkey: RedisSection) -> None:
    async with service(valkey) as channel:
        conflict = Conflict(tenant="acme", tool="github", event_id="b", first_event_id="a")
        await AdmissionServiceStub(channel).ReportConflicts(ReportConflictsRequest(conflicts=[conflict]))

        async def told() -> bool:
            return [
                (each.tenant, each.conflict.tool, each.conflict.event_id, each.conflict.first_event_id)
                for each in await record(channel, "conflict")
            ] == [("acme", "github", "b", "a")]

        await eventually(told)


async def test_what_is_signed_too_old_stays_refused_on_a_retry(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any
) -> None:
    async with service(valkey) as channel:
        stale = deliver("slack", ISSUE, sign.slack(ISSUE, at=time.time() - 3600))
        await admitted(channel, stale)
        [rejection] = await eventually(lambda: listed(channel))
        request = ReadmitRequest(rejection_ids=[rejection.rejection_id], operator=EVERYBODY)
        [again] = (await AdmissionServiceStub(channel).Readmit(request)).readmissions
        assert again.verdict.outcome == OUTCOME_REFUSED


async def test_the_list_filters_and_has_pages(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any
) -> None:
    async with service(valkey, security={"signature_secrets": {"jira": "env:NOT_SET"}}) as channel:
        forged = [deliver("github", b"%d" % n, sign.github(b"other")) for n in range(5)]
        await admitted(channel, *forged, deliver("jira", ISSUE, sign.jira(ISSUE)), deliver("nobody", b"", {}))

        async def complete() -> Any:
            found = await listed(channel)
            return found if len(found) == 7 else None

        everything = await eventually(complete)
        times = [each.received_time.ToNanoseconds() // 1_000_000 for each in everything]
        assert times == sorted(times, reverse=True)
        assert [each.tool for each in await listed(channel, cause=REFUSAL_SECRET_UNAVAILABLE)] == ["jira"]
        assert len(await listed(channel, retryable_only=True)) == 6
        later = messages.ListRejectionsRequest()
        later.since_time.FromSeconds(int(time.time()) + 60)
        stub = SecurityAdminServiceStub(channel)
        assert not (await stub.ListRejections(later)).rejections
        paged, token = [], ""
        while True:
            page = await stub.ListRejections(messages.ListRejectionsRequest(page_size=3, page_token=token))
            paged += page.rejections
            token = page.next_page_token
            if not token:
                break
        assert paged == list(everything)
        bad = messages.ListRejectionsRequest(page_token="what?")
        assert (await refusal(stub.ListRejections(bad))).reason == "FIELD_INVALID"


async def test_an_operator_sees_what_its_key_covers(
    service: Any, valkey: RedisSection, redis: Any, sign: Any, deliver: Any
) -> None:
    tenants = {"acme": {"signature_secrets": {"github": "env:GITHUB_WEBHOOK_SECRET"}}}
    _, acme = await ApiKeys(redis).mint("o", ["acme"], [Role.OPERATOR])
    async with service(valkey, security={"tenants": tenants}) as channel:
        forged = sign.github(b"other")
        await admitted(
            channel, deliver("github", ISSUE, forged), deliver("github", ISSUE, forged, tenant="acme")
        )

        async def both() -> Any:
            found = await listed(channel)
            return found if len(found) == 2 else None

        rejections = await eventually(both)
        other = next(each for each in rejections if each.tenant == "default")
        await eventually(lambda: record(channel, "denials"))
        readmit = ReadmitRequest(
            rejection_ids=[other.rejection_id], operator=Operator(key_id="a", tenants=["acme"])
        )
        [denied] = (await AdmissionServiceStub(channel).Readmit(readmit)).readmissions
        assert denied.status.reason == "REJECTION_NOT_FOUND"
        async with service(valkey, key=acme, security={"tenants": tenants}) as operator:
            stub = SecurityAdminServiceStub(operator)
            assert {each.tenant for each in await listed(operator)} == {"acme"}
            get = messages.GetRejectionRequest(rejection_id=other.rejection_id)
            assert (await refusal(stub.GetRejection(get))).reason == "REJECTION_NOT_FOUND"
            denied_list = await refusal(stub.ListRejections(messages.ListRejectionsRequest(tenant="default")))
            assert denied_list.reason == "TENANT_NOT_ALLOWED"
            assert {each.tenant for each in await record(operator, "denials")} == {"acme"}
            assert await record(operator, "change") == []
            assert (await refusal(stub.TrimAudit(messages.TrimAuditRequest()))).reason == "TENANT_NOT_ALLOWED"


async def test_a_payload_is_shown_on_request_and_that_is_on_record(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any
) -> None:
    async with service(valkey) as channel:
        unreadable = deliver("github", b"<xml/>", sign.github(b"<xml/>"))
        forged = deliver("github", ISSUE, sign.github(b"other"))
        quarantined, _ = await admitted(channel, unreadable, forged)
        assert quarantined.outcome == OUTCOME_QUARANTINED
        stub = SecurityAdminServiceStub(channel)
        [rejection] = await eventually(lambda: listed(channel))
        get = messages.GetRejectionRequest(rejection_id=rejection.rejection_id)
        assert (await stub.GetRejection(get)).payload == b""
        get.include_payload = True
        assert (await stub.GetRejection(get)).payload == ISSUE
        opened = await stub.OpenEvent(messages.OpenEventRequest(event=quarantined.event))
        assert opened.event.payload == b"<xml/>"
        quarantined.event.id = "another"
        moved = messages.OpenEventRequest(event=quarantined.event)
        assert (await refusal(stub.OpenEvent(moved))).reason == "EVENT_NOT_OPENED"

        async def three() -> Any:
            found = await record(channel, "admin_call")
            return found if len(found) == 3 else None

        shown, good, bad = [each.admin_call for each in await eventually(three)]
        assert shown.method == "webhook.security.v1.SecurityAdminService/GetRejection"
        assert shown.subject["rejection_id"] == rejection.rejection_id
        assert (good.outcome, bad.outcome, good.key_id) == ("OK", "EVENT_NOT_OPENED", "internal")


async def test_a_credential_that_is_made_is_on_record_without_its_secret(
    service: Any, valkey: RedisSection
) -> None:
    async with service(valkey) as channel:
        stub = SecurityAdminServiceStub(channel)
        made = await stub.CreateApiKey(
            messages.CreateApiKeyRequest(display_name="ci", tenants=["acme"], roles=[messages.ROLE_READER])
        )
        [call] = await eventually(lambda: record(channel, "admin_call"))
        assert call.admin_call.subject["key_id"] == made.api_key.key_id
        assert made.secret.encode() not in call.SerializeToString()
        verified = await stub.VerifyAudit(messages.VerifyAuditRequest())
        assert (verified.intact, verified.findings) == (True, [])


async def test_the_chain_is_followed_and_resumed(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any
) -> None:
    async with service(valkey) as channel:
        stub = SecurityAdminServiceStub(channel)
        started = await eventually(lambda: record(channel, "change"))
        assert started[0].change.kind == audit_pb2.AUDIT_CHANGE_KIND_STARTED
        stream = stub.TailAudit(messages.TailAuditRequest(last=1, follow=True))
        first = await stream.read()
        await admitted(channel, deliver("github", ISSUE, sign.github(ISSUE)))
        second = await stream.read()
        assert second.entry.record.admissions.count == 1
        stream.cancel()
        resumed = stub.TailAudit(messages.TailAuditRequest(resume_token=first.resume_token))
        assert [response.entry async for response in resumed] == [second.entry]
        bad = stub.TailAudit(messages.TailAuditRequest(resume_token="x"))
        assert (await refusal(bad.read())).reason == "FIELD_INVALID"
        # Whoever follows does not hold up the end of the process.
        following = stub.TailAudit(messages.TailAuditRequest(follow=True))
        await following.read()
        left_at = time.monotonic()
    assert time.monotonic() - left_at < 0.9


async def test_what_was_not_written_yet_is_written_at_the_end(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("webhook_security.evidence.keepers.GATHERED_S", 60)
    monkeypatch.setattr("webhook_security.evidence.rejections.GATHERED_S", 60)
    async with service(valkey) as channel:
        await admitted(channel, deliver("github", ISSUE, sign.github(b"other")))
    async with service(valkey) as channel:
        assert len(await listed(channel)) == 1
        assert [each.denials.count for each in await record(channel, "denials")] == [1]


async def test_without_audit_logging_nothing_is_recorded(
    service: Any, valkey: RedisSection, sign: Any, deliver: Any, redis: Any
) -> None:
    async with service(valkey, security={"enable_audit_logging": False}) as channel:
        await admitted(channel, deliver("github", ISSUE, sign.github(b"other")))
        await eventually(lambda: listed(channel))
    assert not await redis.exists("webhook-audit")


async def test_what_the_edge_turned_away_is_evidence_too(
    service: Any, valkey: RedisSection, deliver: Any
) -> None:
    async with service(valkey) as channel:
        example = deliver("github", b"", {"x-github-event": "push", "content-type": "text/xml"})
        refusals = [
            EdgeRefusal(cause=REFUSAL_CONTENT_TYPE, count=7, example=example),
            EdgeRefusal(cause=REFUSAL_UNKNOWN_SOURCE, count=3, example=deliver("", b"", {})),
        ]
        await AdmissionServiceStub(channel).ReportRefusals(ReportRefusalsRequest(refusals=refusals))

        async def both() -> Any:
            found = await listed(channel)
            return found if len(found) == 2 else None

        by_tool = {each.tool: each for each in await eventually(both)}
        github = by_tool["github"]
        assert (github.cause, github.content_type) == (REFUSAL_CONTENT_TYPE, "text/xml")
        assert (github.retryable, github.body_sha256) == (False, "")
        assert github.headers["x-github-event"] == "push"
        denials = await eventually(lambda: record(channel, "denials"))
        assert sorted(each.denials.count for each in denials) == [3, 7]
