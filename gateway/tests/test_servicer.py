"""The RPC door of our own producers."""

from __future__ import annotations

import grpc
import pytest
from webhook.ingest.v1 import ingest_service_pb2 as ingest
from webhook.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from webhook_shared.errors import from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role


@pytest.fixture
async def door(house, kit):
    async with connected(f"127.0.0.1:{house.ports.port}", key=kit.key, deadline_s=5) as channel:
        yield IngestServiceStub(channel)


def event(payload: bytes = b'{"a":1}', **changes) -> ingest.ProducedEvent:
    return ingest.ProducedEvent(**({"tool": "github", "type": "build", "payload": payload} | changes))


async def test_each_event_has_its_own_result(house, door):
    events = [
        event(delivery_id="1"),
        event(delivery_id="1"),
        event(tool="Bad Tool"),
        event(b""),
        event(b"not json", delivery_id="2"),
        event(delivery_id="3"),
    ]
    response = await door.IngestEvents(ingest.IngestEventsRequest(events=events, tenant="default"))

    first, second, tool, empty, unusable, last = response.results
    assert first.status.code == second.status.code == last.status.code == 0
    assert (second.event_id, second.duplicate) == (first.event_id, True)
    assert {(bad.status.code, bad.status.reason) for bad in (tool, empty)} == {(3, "FIELD_INVALID")}
    assert (unusable.status.code, unusable.status.reason) == (3, "PAYLOAD_INVALID")
    assert [entry[b"type"] for entry in await house.events()] == [b"build", b"build"]
    assert await house.events("webhook-quarantine") == []
    assert house.judge.seen[0].producer.key_id


async def test_security_slow_is_an_item_that_may_be_sent_again(house_with, kit):
    from datetime import timedelta

    async with house_with(admit_timeout=timedelta(milliseconds=200)) as house:
        house.judge.delay_s = 10
        async with connected(f"127.0.0.1:{house.ports.port}", key=kit.key, deadline_s=5) as channel:
            request = ingest.IngestEventsRequest(events=[event()], tenant="default")
            [result] = (await IngestServiceStub(channel).IngestEvents(request)).results
    assert (result.status.code, result.status.reason) == (14, "STREAM_UNREACHABLE")
    assert result.retry_after.seconds >= 1


async def test_the_tenant_is_the_credentials(house, kit, redis):
    _, secret = await ApiKeys(redis).mint("ci", ["acme"], [Role.WRITER])
    _, reader = await ApiKeys(redis).mint("eyes", ["acme"], [Role.READER])

    async def send(key: str, tenant: str) -> str:
        from pydantic import SecretStr

        async with connected(f"127.0.0.1:{house.ports.port}", key=SecretStr(key), deadline_s=5) as channel:
            request = ingest.IngestEventsRequest(events=[event()], tenant=tenant)
            try:
                await IngestServiceStub(channel).IngestEvents(request)
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error).code.name
            return "OK"

    assert await send(secret, "") == "OK"
    assert await send(secret, "default") == "PERMISSION_DENIED"
    assert await send(reader, "acme") == "PERMISSION_DENIED"
    assert await send("nonsense", "acme") == "UNAUTHENTICATED"
    assert [entry[b"tenant"] for entry in await house.events()] == [b"acme"]


@pytest.mark.parametrize("events", [[], [event()] * 1001, [event(b"x" * 9 * 2**20)] * 2])
async def test_too_little_and_too_much(door, events):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.IngestEvents(ingest.IngestEventsRequest(events=events, tenant="default"))
    assert from_rpc_error(caught.value).reason == "FIELD_INVALID"
