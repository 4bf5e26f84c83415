"""Good deliveries, and what the gateway makes of security's verdicts."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client import REGISTRY


async def test_an_accepted_delivery_is_in_the_stream_before_its_answer(house, kit):
    reply = await house.ask(kit.post(b'{"hello":1}'))

    assert reply.status == 202
    assert reply.headers["content-type"] == "application/json"
    assert "date" in reply.headers
    [event] = await house.events()
    assert reply.json == {"event_id": event[b"id"].decode(), "status": "accepted"}
    assert event[b"tenant"] == b"default"
    assert event[b"tool"] == b"github"
    assert event[b"type"] == b"push"
    assert event[b"schema"] == b"1"
    assert event[b"sealed"] == b'sealed:{"hello":1}'
    assert b"traceparent" not in event
    assert abs(int(event[b"received"]) / 1000 - (await house.redis.time())[0]) < 5


async def test_a_second_delivery_names_the_first_event(house, kit):
    first = await house.ask(kit.post())
    second = await house.ask(kit.post())

    assert second.status == 202
    assert second.headers["x-webhook-duplicate"] == "true"
    assert second.json == {"event_id": first.json["event_id"], "status": "duplicate", "duplicate": True}
    assert len(await house.events()) == 1


async def test_each_source_has_its_own_status_codes(house, kit):
    assert (await house.ask(kit.post(path="/webhooks/linear"))).status == 200
    assert (await house.ask(kit.post(path="/webhooks/linear"))).status == 200


async def test_of_many_equal_deliveries_at_once_exactly_one_is_accepted(house, kit):
    senders = [await house.sender() for _ in range(48)]
    replies = await asyncio.gather(*(sender.ask(kit.post(delivery="race")) for sender in senders))

    accepted = [reply for reply in replies if reply.json["status"] == "accepted"]
    assert len(accepted) == 1
    assert {reply.json["event_id"] for reply in replies} == {accepted[0].json["event_id"]}
    assert len(await house.events()) == 1


async def test_deliveries_that_arrive_together_are_judged_together(house, kit):
    house.judge.delay_s = 0.05
    senders = [await house.sender() for _ in range(100)]
    replies = await asyncio.gather(
        *(sender.ask(kit.post(delivery=f"d{i}")) for i, sender in enumerate(senders))
    )

    assert {reply.status for reply in replies} == {202}
    assert len(await house.events()) == 100
    assert len(house.judge.batches) < 30


async def test_the_tenant_comes_from_the_path(house, kit):
    assert (await house.ask(kit.post(b"{}", path="/webhooks/acme/github"))).status == 202
    assert (await house.ask(kit.post(b"{}", path="/webhooks/default/linear"))).status == 200
    assert [event[b"tenant"] for event in await house.events()] == [b"acme", b"default"]


async def test_what_is_believed_but_unusable_is_set_aside(house, kit):
    reply = await house.ask(kit.post(b"not json"))

    assert reply.status == 202
    assert await house.events() == []
    [event] = await house.events("webhook-quarantine")
    assert event[b"id"].decode() == reply.json["event_id"]


async def test_a_handshake_is_answered_and_publishes_nothing(house, kit):
    reply = await house.ask(
        kit.post(b"", path="/webhooks/hooked?challenge=<b>1</b>", method="GET", length=False)
    )

    assert reply.status == 200
    assert reply.body == b"challenge=<b>1</b>"
    assert reply.headers["content-type"] == "text/plain"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert await house.events() == []


async def test_security_sees_the_request_as_it_came(house, kit):
    extra = "X-Signature: another\r\nX-Odd: \xe9\r\n"
    await house.ask(kit.post(path="/webhooks/github?a=1&b=%20", extra=extra))

    [delivery] = house.judge.seen
    assert (delivery.tenant, delivery.tool, delivery.method) == ("default", "github", "POST")
    assert delivery.query == b"a=1&b=%20"
    assert delivery.peer_address == "127.0.0.1"
    assert [header.value for header in delivery.headers if header.name == "x-signature"] == [
        kit.signature(b'{"a":1}').encode(),
        b"another",
    ]
    assert ("x-odd", b"\xe9") in [(header.name, header.value) for header in delivery.headers]
    assert {"host", "content-length"}.isdisjoint(header.name for header in delivery.headers)


@pytest.mark.parametrize(
    ("cause", "status", "error"),
    [
        ("UNKNOWN_SOURCE", 404, "not found"),
        ("SIGNATURE_MISSING", 401, "refused"),
        ("SIGNATURE_INVALID", 401, "refused"),
        ("TIMESTAMP_EXPIRED", 401, "refused"),
        ("TIMESTAMP_AHEAD", 401, "refused"),
        ("ADDRESS", 403, "refused"),
        ("EVENT_TYPE", 403, "refused"),
        ("HEADER_MALFORMED", 400, "bad request"),
        ("TIMESTAMP_MALFORMED", 400, "bad request"),
        ("BODY_EMPTY", 400, "bad request"),
        ("CONTENT_TYPE", 415, "unsupported media type"),
        ("BODY_TOO_LARGE", 413, "too large"),
        ("METHOD", 405, "method not allowed"),
        ("RATE", 429, "too many requests"),
        ("SECRET_UNAVAILABLE", 503, "unavailable"),
        ("INTERNAL", 503, "unavailable"),
        ("UNSPECIFIED", 503, "unavailable"),
    ],
)
async def test_refusals(house, kit, cause, status, error):
    from webhook.security.v1.admission_pb2 import Refusal

    number = Refusal.Value(f"REFUSAL_{cause}") or 99
    reply = await house.ask(kit.post(b'"cause"', extra=f"X-Cause: {number}\r\n"))

    assert reply.status == status
    assert reply.json == {"error": error}
    assert ("retry-after" in reply.headers) == (status in {429, 503})
    assert (reply.headers.get("allow") == "POST") == (status == 405)
    assert await house.events() == []


async def test_an_empty_body_is_a_bad_request(house, kit):
    assert (await house.ask(kit.post(b""))).status == 400


async def test_a_change_of_the_sources_is_taken_up(house, kit):
    assert (await house.ask(kit.post(path="/webhooks/late"))).status == 404
    house.judge.sources.append(kit.policy("late"))
    house.judge.revision = "2"
    async with asyncio.timeout(5):
        while (await house.ask(kit.post(path="/webhooks/late"))).status == 404:
            await asyncio.sleep(0.02)
    assert len(await house.events()) == 1


async def test_unknown_tools_share_one_label(house, kit):
    def unknown() -> float:
        labels = {"tool": "unknown", "cause": "UNKNOWN_SOURCE"}
        return REGISTRY.get_sample_value("webhook_refusals_total", labels) or 0.0

    before = unknown()
    await house.ask(kit.post(path="/webhooks/nobody-1"))
    await house.ask(kit.post(path="/webhooks/nobody-2"))
    assert unknown() == before + 2


async def test_health(house, kit):
    reply = await house.ask(b"GET /health/webhook HTTP/1.1\r\nHost: h\r\n\r\n")
    assert reply.status == 200
    assert reply.json == {"status": "ok", "gateway": "ok", "redis": "ok", "security": "ok"}
    assert (await house.ask(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n")).status == 200
    assert (await house.ask(b"POST /health/live HTTP/1.1\r\nHost: h\r\n\r\n")).status == 405


async def test_bodies_are_carried_byte_for_byte(house, kit):
    body = json.dumps({"text": "é\U0001f642" * 2000}, ensure_ascii=False).encode()
    await house.ask(kit.post(body))
    assert (await house.events())[0][b"sealed"] == b"sealed:" + body
