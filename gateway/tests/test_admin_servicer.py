"""The operators' door: refused deliveries come in after all, and quarantine can be looked at."""

from __future__ import annotations

from typing import Any

import grpc
import orjson
import pytest
from pydantic import SecretStr
from webhook.erasure.v1.erasure_pb2 import Wanted
from webhook.ingest.v1 import ingest_admin_service_pb2 as messages
from webhook.ingest.v1.ingest_admin_service_pb2_grpc import IngestAdminServiceStub
from webhook.security.v1 import admission_pb2 as admission
from webhook.security.v1 import admission_service_pb2 as service
from webhook_gateway.edge.refusal_reports import RefusalReports
from webhook_gateway.edge.request import Request
from webhook_gateway.security_client import SecurityClient
from webhook_shared.errors import from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role


class Hearing:
    """Judges again what it knows: ids that begin with "good" are believed."""

    def __init__(self) -> None:
        self.asked: list[service.ReadmitRequest] = []
        self.settled: list[tuple[str, str]] = []
        self.reported: list[service.EdgeRefusal] = []

    async def report(
        self, request: service.ReportRefusalsRequest, context: Any
    ) -> service.ReportRefusalsResponse:
        self.reported += request.refusals
        return service.ReportRefusalsResponse()

    async def readmit(self, request: service.ReadmitRequest, context: Any) -> service.ReadmitResponse:
        self.asked.append(request)
        return service.ReadmitResponse(readmissions=[self._judge(each) for each in request.rejection_ids])

    async def settle(
        self, request: service.SettleReadmissionsRequest, context: Any
    ) -> service.SettleReadmissionsResponse:
        self.settled += [(each.rejection_id, each.event_id) for each in request.settled]
        return service.SettleReadmissionsResponse()

    @staticmethod
    def _judge(rejection_id: str) -> service.Readmission:
        readmission = service.Readmission(rejection_id=rejection_id)
        if rejection_id.startswith("missing"):
            readmission.status.code, readmission.status.reason = 5, "REJECTION_NOT_FOUND"
            return readmission
        verdict = readmission.verdict
        if not rejection_id.startswith("good"):
            verdict.outcome = admission.OUTCOME_REFUSED
            verdict.refusal = admission.REFUSAL_SIGNATURE_INVALID
            return readmission
        unreadable = rejection_id.endswith("unreadable")
        verdict.outcome = admission.OUTCOME_QUARANTINED if unreadable else admission.OUTCOME_ADMITTED
        # Two rejections of one event: the sender tried twice.
        verdict.dedup_key = rejection_id.removesuffix("-again")
        verdict.dedup_window.FromSeconds(60)
        verdict.occurrences_allowed = 1
        event = verdict.event
        event.id, event.tenant, event.tool, event.type = rejection_id, "default", "github", "push"
        event.schema, event.sealed = 1, b"sealed"
        event.received_time.GetCurrentTime()
        return readmission


@pytest.fixture
def hearing() -> Hearing:
    return Hearing()


@pytest.fixture
def judge(judge: Any, hearing: Hearing) -> Any:
    judge.Readmit, judge.SettleReadmissions = hearing.readmit, hearing.settle
    judge.ReportRefusals = hearing.report
    return judge


@pytest.fixture
async def door(house: Any, kit: Any) -> Any:
    async with connected(f"127.0.0.1:{house.ports.port}", key=kit.key, deadline_s=5) as channel:
        yield IngestAdminServiceStub(channel)


async def retried(door: Any, *ids: str) -> list[Any]:
    response = await door.RetryRejections(messages.RetryRejectionsRequest(rejection_ids=ids))
    return list(response.results)


async def test_each_rejection_has_its_own_result(house: Any, door: Any, hearing: Hearing) -> None:
    good, again, bad, missing, unreadable = await retried(
        door, "good-1", "good-1-again", "bad", "missing", "good-unreadable"
    )
    assert (good.event_id, good.duplicate, good.status.code) == ("good-1", False, 0)
    assert (again.event_id, again.duplicate) == ("good-1", True)
    assert (bad.status.reason, bad.cause) == ("STILL_REFUSED", "SIGNATURE_INVALID")
    assert missing.status.reason == "REJECTION_NOT_FOUND"
    assert (unreadable.event_id, unreadable.quarantined) == ("good-unreadable", True)
    assert [entry[b"id"] for entry in await house.events()] == [b"good-1"]
    assert [entry[b"id"] for entry in await house.events("webhook-quarantine")] == [b"good-unreadable"]
    assert hearing.settled == [
        ("good-1", "good-1"),
        ("good-1-again", "good-1"),
        ("good-unreadable", "good-unreadable"),
    ]


async def test_to_try_twice_publishes_once(house: Any, door: Any) -> None:
    for _ in range(3):
        [result] = await retried(door, "good-2")
        assert (result.event_id, result.status.code) == ("good-2", 0)
    assert len(await house.events()) == 1


async def test_security_hears_who_asks(house: Any, redis: Any, hearing: Hearing) -> None:
    record, secret = await ApiKeys(redis).mint("o", ["acme", "beta"], [Role.OPERATOR])
    _, writer = await ApiKeys(redis).mint("w", ["acme"], [Role.WRITER])
    address = f"127.0.0.1:{house.ports.port}"
    async with connected(address, key=SecretStr(secret), deadline_s=5) as channel:
        await retried(IngestAdminServiceStub(channel), "bad")
    [request] = hearing.asked
    assert (request.operator.key_id, list(request.operator.tenants)) == (record.key_id, ["acme", "beta"])
    async with connected(address, key=SecretStr(writer), deadline_s=5) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as denied:
            await retried(IngestAdminServiceStub(channel), "bad")
    assert from_rpc_error(denied.value).reason == "ROLE_MISSING"


@pytest.mark.parametrize("ids", [[], ["a", "a"], [f"{n}" for n in range(65)]])
async def test_too_few_and_too_many(door: Any, ids: list[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await retried(door, *ids)
    assert from_rpc_error(refused.value).reason == "FIELD_INVALID"


async def quarantined(redis: Any, count: int) -> None:
    for n in range(count):
        fields = {"id": f"e{n}", "tenant": ("default", "acme")[n % 2], "tool": ("github", "jira")[n % 3 == 0]}
        fields |= {"type": "push", "received": str(1_700_000_000_000 + n), "schema": "1", "sealed": "s" * n}
        await redis.xadd("webhook-quarantine", fields)


async def pages(stub: Any, **request: Any) -> list[list[Any]]:
    found, token = [], ""
    while True:
        page = await stub.ListQuarantined(messages.ListQuarantinedRequest(page_token=token, **request))
        found.append(list(page.quarantined))
        token = page.next_page_token
        if not token:
            return found


async def test_quarantine_is_listed_newest_first_with_filters_and_pages(door: Any, redis: Any) -> None:
    await quarantined(redis, 25)
    everything = [each for page in await pages(door, page_size=10) for each in page]
    assert [each.event_id for each in everything] == [f"e{n}" for n in reversed(range(25))]
    assert [each.sealed_bytes for each in everything] == list(reversed(range(25)))
    jira = [each for page in await pages(door, page_size=4, tool="jira", tenant="acme") for each in page]
    assert [each.event_id for each in jira] == ["e21", "e15", "e9", "e3"]
    later = messages.ListQuarantinedRequest()
    later.since_time.FromSeconds(4_000_000_000)
    assert list((await door.ListQuarantined(later)).quarantined) == []


async def test_one_of_the_quarantined_is_given_sealed(door: Any, redis: Any) -> None:
    await quarantined(redis, 3)
    [[last, *_]] = await pages(door)
    found = await door.GetQuarantined(messages.GetQuarantinedRequest(quarantined_id=last.quarantined_id))
    assert (found.event.id, found.event.sealed, found.event.tenant) == ("e2", b"ss", "default")
    assert found.quarantined == last


async def test_an_operator_sees_its_own_tenants(house: Any, door: Any, redis: Any) -> None:
    await quarantined(redis, 4)
    [[newest, *_]] = await pages(door, tenant="default")
    _, acme = await ApiKeys(redis).mint("o", ["acme"], [Role.OPERATOR])
    async with connected(f"127.0.0.1:{house.ports.port}", key=SecretStr(acme), deadline_s=5) as channel:
        stub = IngestAdminServiceStub(channel)
        assert {each.tenant for page in await pages(stub) for each in page} == {"acme"}
        for call in (
            stub.ListQuarantined(messages.ListQuarantinedRequest(tenant="default")),
            stub.GetQuarantined(messages.GetQuarantinedRequest(quarantined_id=newest.quarantined_id)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await call
            assert from_rpc_error(denied.value).reason in {"TENANT_NOT_ALLOWED", "QUARANTINED_NOT_FOUND"}


async def test_what_the_edge_turns_away_by_itself_is_reported(
    house_with: Any, kit: Any, hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_gateway.reports.EVERY_S", 0.02)
    async with house_with() as house:
        assert (await house.ask(kit.post(content_type="text/xml"))).status == 415
        assert (await house.ask(kit.post(b"x" * (kit.limit_bytes + 1)))).status == 413
        for name in ("nobody", "somebody"):
            assert (await house.ask(kit.post(path=f"/webhooks/{name}"))).status == 404
        assert (await house.ask(kit.post(path="/favicon.ico"))).status == 404
        assert (await house.ask(kit.post(signed="bad"))).status == 401
        assert (await house.ask(kit.post())).status == 202
    told = {}
    for each in hearing.reported:
        key = (each.example.tool, admission.Refusal.Name(each.cause))
        told[key] = told.get(key, 0) + each.count
        assert each.example.body == b""
        assert each.example.peer_address == "127.0.0.1"
    assert told == {
        ("github", "REFUSAL_CONTENT_TYPE"): 1,
        ("github", "REFUSAL_BODY_TOO_LARGE"): 1,
        ("", "REFUSAL_UNKNOWN_SOURCE"): 2,
    }


async def test_what_could_not_be_reported_is_counted_on(house: Any, kit: Any, hearing: Hearing) -> None:
    request = Request("203.0.113.7")
    request.target, request.headers = b"/webhooks/nobody", [(b"user-agent", b"probe")]
    async with connected("127.0.0.1:1", key=kit.key, deadline_s=1) as nowhere:
        reports = RefusalReports(SecurityClient(nowhere, admit_timeout_s=0.2))
        reports.note(request, 404)
        await reports.report()
        reports.note(request, 404)
        await reports.report()
    [tally] = reports._tallies.values()
    assert tally.count == 2


async def test_the_feed_is_forgotten_and_the_spool_told_of(house: Any, redis: Any, kit: Any) -> None:
    for row in (["e1", "acme"], ["e2", "acme"], ["e3", "rival"]):
        rows = orjson.dumps([[*row, "github", "push", 0, "", False]])
        await redis.xadd("webhook-accepted", {"rows": rows})
    address = f"127.0.0.1:{house.ports.port}"
    _, operator = await ApiKeys(redis).mint("o", ["*"], [Role.OPERATOR])

    async def forget(key: SecretStr, **asked: Any) -> dict[str, tuple[int, int]]:
        request = messages.ForgetRequest(dry_run=asked.pop("dry_run", False))
        request.wanted.CopyFrom(Wanted(**asked))
        async with connected(address, key=key, deadline_s=5) as channel:
            response = await IngestAdminServiceStub(channel).Forget(request)
        return {place.name: (place.found_count, place.erased_count) for place in response.places}

    with pytest.raises(grpc.aio.AioRpcError) as denied:
        await forget(SecretStr(operator), tenant="acme")
    assert from_rpc_error(denied.value).reason == "ROLE_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await forget(kit.key)
    assert from_rpc_error(refused.value).reason == "FIELD_INVALID"
    one = {"tenant": "acme", "subject": "mona", "event_ids": ["e2", "e3"]}
    assert await forget(kit.key, **one, dry_run=True) == {"feed": (1, 0), "spool": (0, 0)}
    assert await forget(kit.key, **one) == {"feed": (1, 1), "spool": (0, 0)}
    assert await forget(kit.key, tenant="acme") == {"feed": (1, 1), "spool": (0, 0)}
    assert await redis.xlen("webhook-accepted") == 1
