"""Deliveries of one id and of different bodies: both are taken, listed, and put on record."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from webhook.ingest.v1 import ingest_admin_service_pb2 as messages
from webhook.ingest.v1 import ingest_admin_service_pb2_grpc as stubs
from webhook.security.v1 import admission_pb2 as admission
from webhook.security.v1 import admission_service_pb2 as service
from webhook_gateway.conflicts import Conflicts
from webhook_shared.rpc.channel import connected

EVENTS, QUARANTINE = "webhook-events", "webhook-quarantine"


@pytest.fixture
def reported(judge: Any) -> list[service.Conflict]:
    """What security hears; and it tells bodies apart."""
    heard: list[service.Conflict] = []

    async def report(
        request: service.ReportConflictsRequest, context: Any
    ) -> service.ReportConflictsResponse:
        heard.extend(request.conflicts)
        return service.ReportConflictsResponse()

    plain = judge._judge

    def with_digest(delivery: admission.Delivery) -> admission.Verdict:
        verdict = plain(delivery)
        verdict.body_digest = f"{hash(delivery.body) % 10**7:07}"
        return verdict

    judge.ReportConflicts, judge._judge = report, with_digest
    return heard


async def test_both_are_taken_and_it_is_told(
    house_with: Any, kit: Any, reported: list[Any], redis: Any
) -> None:
    async with house_with() as house:
        first, again, other = [
            (await house.ask(kit.post(body, delivery="one"))).json
            for body in (b'{"a":1}', b'{"a":1}', b'{"a":2}')
        ]
        assert (again["status"], again["event_id"]) == ("duplicate", first["event_id"])
        assert other["status"] == "accepted"
        assert len(await house.events()) == 2
    # What was not reported yet is, before the gateway ends.
    assert [(each.tool, each.event_id, each.first_event_id) for each in reported] == [
        ("github", other["event_id"], first["event_id"])
    ]


async def test_they_are_listed_over_all_streams_newest_first(redis: Any) -> None:
    for number in range(12):
        name = f"conflicts:{{{EVENTS if number % 3 else QUARANTINE}}}"
        tenant, tool = ("acme" if number % 2 else "default"), ("jira" if number % 4 == 0 else "github")
        fields = {"id": str(number), "of": "first", "tenant": tenant, "tool": tool, "received": 1}
        await redis.xadd(name, fields, id=f"{1000 + number}-0")
    conflicts = Conflicts(redis, (EVENTS, QUARANTINE))
    pages, token = [], ""
    while True:
        rows, token = await conflicts.page(5, token)
        pages.append([int(row["id"]) for row in rows])
        if not token:
            break
    assert pages == [[11, 10, 9, 8, 7], [6, 5, 4, 3, 2], [1, 0]]
    of_acme, _ = await conflicts.page(100, "", tenants=["acme"])
    assert [int(row["id"]) for row in of_acme] == [11, 9, 7, 5, 3, 1]
    of_jira, _ = await conflicts.page(100, "", tool="jira", since_ms=1004)
    assert [int(row["id"]) for row in of_jira] == [8, 4]
    with pytest.raises(ValueError, match="token"):
        await conflicts.page(5, "+")


async def test_operators_ask_for_them(house: Any, kit: Any, redis: Any) -> None:
    await redis.xadd(f"conflicts:{{{EVENTS}}}", {"id": "b", "of": "a", "tenant": "default", "tool": "github"})
    async with connected(f"127.0.0.1:{house.ports.port}", key=kit.key, deadline_s=5) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stubs.IngestAdminServiceStub(channel).ListConflicts(
                messages.ListConflictsRequest(page_size=-1)
            )
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        found = await stubs.IngestAdminServiceStub(channel).ListConflicts(messages.ListConflictsRequest())
    assert [(each.event_id, each.first_event_id) for each in found.conflicts] == [("b", "a")]


async def test_what_security_knows_to_be_a_duplicate_is_answered_so(house: Any, kit: Any, judge: Any) -> None:
    known = admission.Verdict(outcome=admission.OUTCOME_DUPLICATE, first_event_id="the first")
    judge._judge = lambda _: known
    reply = await house.ask(kit.post())
    assert (reply.status, reply.json["event_id"], reply.json["duplicate"]) == (202, "the first", True)
    assert await house.events() == []
