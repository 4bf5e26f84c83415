"""Hostile input against the real gateway over raw sockets: one status each, in time, and nothing kept."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import pytest
from webhook.consumer.v1.consumer_admin_service_pb2 import ListDeadLettersRequest
from webhook.context.v1.context_service_pb2 import ListContextsRequest
from webhook_shared.redis import connect

from tests import payloads, wire
from tests.abuse import hostile
from tests.abuse.hostile import Case
from tests.patience import eventually
from tests.senders import Delivery
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER_WITHIN_S = 5.0
QUARANTINE = "webhook-quarantine"
#: A line of the log in which a process says that something is wrong with itself.
LOUD = re.compile(r"^\w+ +│ [\d:.]+ (?:error|critical) .*$", re.MULTILINE)


def _each(*cases: Iterable[Case]) -> pytest.MarkDecorator:
    flat = [case for group in cases for case in group]
    return pytest.mark.parametrize("case", flat, ids=[case.name for case in flat])


async def _answer(house: House, case: Case) -> wire.Answer:
    answer = await wire.exchange(house.http, case.request(house.senders), within_s=ANSWER_WITHIN_S)
    assert answer.status == case.status, answer
    return answer


async def _stream_length(house: House, stream: str) -> int:
    client = connect(house.system.plan.redis)
    try:
        return int(await client.xlen(stream))
    finally:
        await client.aclose()


@_each(hostile.signatures())
async def test_a_bad_signature_is_refused(house: House, case: Case) -> None:
    answer = await _answer(house, case)
    assert b"signature" not in answer.body.lower()


@_each(hostile.standard_signatures())
async def test_a_bad_list_of_signatures_is_refused(house: House, case: Case) -> None:
    await _answer(house, case)


async def test_the_right_signature_is_found_among_wrong_ones(house: House) -> None:
    delivery = house.senders.standard.deliver(payloads.standard("invoice.paid", {"id": "inv_rotated"}))
    good = delivery.value("webhook-signature")
    listed = f"v1a,bm90IG91cnM= garbage v1,AAAA  v1 , {good}"
    assert (await house.post(delivery.having("webhook-signature", listed))).status == 202


@_each(hostile.targets())
async def test_what_is_not_there_is_not_found(house: House, case: Case) -> None:
    await _answer(house, case)


@_each(hostile.methods())
async def test_only_post_is_allowed(house: House, case: Case) -> None:
    answer = await wire.exchange(
        house.http, case.request(house.senders), within_s=ANSWER_WITHIN_S, bodiless=case.name == "HEAD"
    )
    assert answer.status == case.status
    assert answer.headers["allow"] == "POST"


@_each(hostile.content_types())
async def test_other_content_types_are_refused(house: House, case: Case) -> None:
    await _answer(house, case)


@_each(hostile.lengths())
async def test_a_bad_length_is_refused(house: House, case: Case) -> None:
    await _answer(house, case)


@_each(hostile.heads())
async def test_a_bad_head_is_refused(house: House, case: Case) -> None:
    await _answer(house, case)


@_each(hostile.timestamps())
async def test_a_bad_timestamp_is_refused(house: House, case: Case) -> None:
    await _answer(house, case)


@_each(hostile.quarantined())
async def test_what_is_signed_but_unreadable_is_kept(house: House, case: Case) -> None:
    before = await _stream_length(house, QUARANTINE)
    answer = await _answer(house, case)
    assert answer.event_id
    assert await _stream_length(house, QUARANTINE) == before + 1


@_each(hostile.odd_but_readable())
async def test_odd_payloads_are_taken_and_accounted_for(house: House, case: Case) -> None:
    before = await _accounted_for(house)
    await _answer(house, case)

    async def attempt() -> None:
        assert await _accounted_for(house) == before + 1

    await eventually(attempt)


async def _accounted_for(house: House) -> int:
    """How many events have arrived: in contexts, among the dead letters, or in quarantine."""
    operator = house.operator
    listed = await operator.contexts.ListContexts(ListContextsRequest(tenant="default", page_size=500))
    dead = await operator.consumer_admin.ListDeadLetters(ListDeadLettersRequest(page_size=500))
    assert not listed.next_page_token
    assert not dead.next_page_token
    kept = sum(context.event_count for context in listed.contexts)
    return kept + len(dead.dead_letters) + await _stream_length(house, QUARANTINE)


async def test_odd_payloads_do_not_stop_the_queue(house: House) -> None:
    issue = payloads.github_issue("octo/after", 1, "After the storm", "Everything goes on.")
    await house.accepted(house.senders.github.deliver("issues", issue))
    await house.operator.grown("github:octo/after:issue:1", 1)

    async def attempt() -> None:
        events = (await house.operator.backlog())["events"]
        assert (events.waiting_count, events.in_flight_count, events.delayed_count) == (0, 0, 0)

    await eventually(attempt)


async def test_a_source_without_a_secret_is_our_fault(house: House) -> None:
    answer = await _answer(house, hostile.unknown_secret())
    assert int(answer.headers["retry-after"]) >= 1


async def test_nothing_refused_was_kept(house: House) -> None:
    assert await house.operator.context("github:octo/abused:issue:1") is None


async def test_a_body_at_the_limit_is_taken(house: House) -> None:
    pad = hostile.DEFAULT_LIMIT_BYTES - len(b'{"deployment_id":"at-the-limit","pad":""}')
    body = b'{"deployment_id":"at-the-limit","pad":"' + b"x" * pad + b'"}'
    delivery = house.senders.acme.deliver("deployment", body)
    answer = await wire.exchange(house.http, wire.chunked(delivery))
    assert answer.status == 202
    context = await house.operator.grown("acme-deploy:deployment:at-the-limit", 1)
    assert context.events[0].payload == body


async def test_what_is_duplicate_is_said_to_be(house: House) -> None:
    issue = payloads.github_issue("octo/again", 1, "Once", "And not twice.")
    delivery = house.senders.github.deliver("issues", issue)
    event_id = await house.accepted(delivery)
    # GitHub's id alone decides; the body of a redelivery is the same one.
    for repeated in (delivery, delivery.having("X-Extra", "1")):
        answer = await house.post(repeated)
        assert answer.status in {200, 202}
        assert (answer.duplicate, answer.event_id) == (True, event_id)
        assert answer.headers["x-webhook-duplicate"] == "true"


async def test_refusals_do_not_use_up_the_id(house: House) -> None:
    issue = payloads.github_issue("octo/squatted", 1, "The real one", "Somebody guessed our id.")
    delivery = house.senders.github.deliver("issues", issue, delivery_id="guessed-by-somebody")
    assert (await house.post(delivery.saying(b'{"squatted": true}'))).status == 401
    await house.accepted(delivery)


class TestSlowness:
    """Who is too slow is turned away; who was fast enough is not disturbed."""

    async def test_slow_headers(self, house: House) -> None:
        head = wire.request_head("/webhooks/github", [("X-Slow", "1")])
        answer = await wire.exchange(house.http, head[:30], b"", between_s=10, within_s=ANSWER_WITHIN_S)
        assert answer.status == 408

    async def test_slow_body(self, house: House) -> None:
        delivery = _delivery(house)
        parts = [wire.whole(delivery)[:-20], *(b"x" for _ in range(20))]
        answer = await wire.exchange(house.http, *parts, between_s=0.5, within_s=ANSWER_WITHIN_S)
        assert answer.status == 408

    async def test_slow_chunks(self, house: House) -> None:
        parts = [*_chunk_by_chunk(_delivery(house))][:-1]
        answer = await wire.exchange(house.http, *parts, between_s=0.5, within_s=ANSWER_WITHIN_S)
        assert answer.status == 408

    async def test_one_byte_at_a_time_but_in_time(self, house: House) -> None:
        request = wire.whole(_delivery(house))
        parts = [request[at : at + 1] for at in range(len(request))]
        answer = await wire.exchange(house.http, *parts, within_s=ANSWER_WITHIN_S)
        assert answer.status in {200, 202}

    async def test_a_hundred_half_requests_do_not_keep_others_out(self, house: House) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(_half(house))
            await asyncio.sleep(0.2)
            answer = await house.post(_delivery(house))
            assert answer.status in {200, 202}
            assert answer.seconds < 1.0


class TestConnections:
    """What a connection may do to the requests on it."""

    async def test_pipelined_requests_are_answered_in_order(self, house: House) -> None:
        good, bad = wire.whole(_delivery(house)), b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
        async with asyncio.timeout(ANSWER_WITHIN_S), wire.connection(house.http) as (reader, writer):
            writer.write(good + bad + good)
            statuses = [(await wire.read_answer(reader))[0] for _ in range(3)]
        assert statuses[1] == 404
        assert {statuses[0], statuses[2]} <= {200, 202}

    async def test_who_hangs_up_early_is_still_heard(self, house: House) -> None:
        issue = payloads.github_issue("octo/hasty", 1, "Sent and gone", "Did not wait for the answer.")
        delivery = house.senders.github.deliver("issues", issue)
        async with wire.connection(house.http) as (_, writer):
            writer.write(wire.whole(delivery))
            await writer.drain()
        await house.operator.grown("github:octo/hasty:issue:1", 1)
        answer = await house.post(delivery)
        assert answer.duplicate

    async def test_a_refused_body_does_not_become_the_next_request(self, house: House) -> None:
        inner = wire.whole(_delivery(house))
        outer = wire.request_head("/webhooks/nobody", [("Content-Length", str(len(inner)))]) + inner
        async with asyncio.timeout(ANSWER_WITHIN_S), wire.connection(house.http) as (reader, writer):
            writer.write(outer + b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            statuses = [(await wire.read_answer(reader))[0] for _ in range(2)]
        assert statuses == [404, 200]


async def _half(house: House) -> None:
    async with wire.connection(house.http) as (reader, writer):
        writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n")
        await asyncio.wait_for(reader.read(), ANSWER_WITHIN_S)


def _delivery(house: House) -> Delivery:
    issue = payloads.github_issue("octo/steady", 1, "Steady", "As ever.")
    return house.senders.github.deliver("issues", issue)


def _chunk_by_chunk(delivery: Delivery) -> list[bytes]:
    head, _, rest = wire.chunked(delivery, chunk_bytes=50).partition(b"\r\n\r\n")
    return [head + b"\r\n\r\n", *(rest[at : at + 56] for at in range(0, len(rest), 56))]


async def test_nobody_stumbled(house: House) -> None:
    assert LOUD.findall(house.log) == []
    for service, address in house.system.plan.metrics.items():
        page = (await wire.get(address, "/metrics")).body.decode()
        assert "webhook_rpc_handled_total" in page, service
        assert not re.search(r'code="(INTERNAL|UNKNOWN)"', page), service
