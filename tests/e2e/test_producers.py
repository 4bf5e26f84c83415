"""The other door: events of our own producers, over gRPC, become contexts as webhooks do."""

from __future__ import annotations

import json

import grpc
import pytest
from webhook.ingest.v1.ingest_service_pb2 import IngestEventsRequest, ProducedEvent
from webhook.security.v1.security_admin_service_pb2 import ROLE_WRITER

from tests import payloads
from tests.clients import refusal
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK = grpc.StatusCode.OK.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


def _event(identity: str, *, delivery_id: str = "", tool: str = "nightly") -> ProducedEvent:
    body = payloads.deployment(identity, f"Nightly {identity}", "started", "Every night at two")
    return ProducedEvent(
        tool=tool, type="deployment", delivery_id=delivery_id, payload=json.dumps(body).encode()
    )


async def test_a_produced_event_becomes_a_context(house: House) -> None:
    producer = await house.client(await house.key(ROLE_WRITER, tenants=("default",)))
    sent = _event("n-1")
    (result,) = (await producer.ingest.IngestEvents(IngestEventsRequest(events=[sent]))).results
    assert (result.status.code, result.duplicate) == (OK, False)
    context = await house.operator.grown("nightly:deployment:n-1", 1)
    assert [(event.event_id, event.payload) for event in context.events] == [(result.event_id, sent.payload)]


async def test_a_bad_event_does_not_harm_its_neighbours(house: House) -> None:
    events = [
        _event("n-2"),
        ProducedEvent(tool="../etc", payload=b"{}"),
        ProducedEvent(tool="nightly"),
        ProducedEvent(tool="nightly", payload=b"not JSON"),
        _event("n-3"),
    ]
    request = IngestEventsRequest(events=events, tenant="default")
    results = (await house.operator.ingest.IngestEvents(request)).results
    assert [result.status.code for result in results] == [OK, INVALID, INVALID, INVALID, OK]
    reasons = [result.status.reason for result in results[1:4]]
    assert reasons == ["FIELD_INVALID", "FIELD_INVALID", "PAYLOAD_INVALID"]
    for name in ("n-2", "n-3"):
        await house.operator.grown(f"nightly:deployment:{name}", 1)


async def test_an_event_that_is_sent_again_is_one(house: House) -> None:
    request = IngestEventsRequest(events=[_event("n-4", delivery_id="night-4")] * 2, tenant="default")
    first, second = (await house.operator.ingest.IngestEvents(request)).results
    (third,) = (
        await house.operator.ingest.IngestEvents(
            IngestEventsRequest(events=[_event("n-4", delivery_id="night-4")], tenant="default")
        )
    ).results
    assert {first.event_id, second.event_id, third.event_id} == {first.event_id}
    assert sorted([first.duplicate, second.duplicate]) == [False, True]
    assert third.duplicate
    context = await house.operator.grown("nightly:deployment:n-4", 1)
    assert context.event_count == 1


async def test_a_producer_writes_for_its_own_tenant_only(house: House) -> None:
    producer = await house.client(await house.key(ROLE_WRITER, tenants=("rival",)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await producer.ingest.IngestEvents(IngestEventsRequest(events=[_event("n-5")], tenant="default"))
    assert refusal(caught.value) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_NOT_ALLOWED")


async def test_who_may_write_everywhere_must_say_where(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.operator.ingest.IngestEvents(IngestEventsRequest(events=[_event("n-6")]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
