"""Stage one, from a sealed event to the context store's socket."""

import asyncio

import pytest
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook.security.v1 import audit_pb2
from webhook_consumer.entry import Cause
from webhook_consumer.metrics import context_deleted
from webhook_shared.audit.chain import AuditChain, Seal
from webhook_shared.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    Unavailable,
)

from services.consumer.tests.conftest import MASTER
from services.consumer.tests.test_admin import admin

WORKED_ON_S = 0.5


async def test_events_become_appends_with_all_that_they_say(town):
    async with town.context_store(), town.understanding(), town.consumer():
        sent = [await town.send(number, fields={"traceparent": "00-aa-bb-00"}) for number in range(30)]
        await town.until(town.is_empty)
    assert sorted(town.contexts.events()) == sorted(sent)
    assert len(town.contexts.contexts) == 30
    context = town.contexts.contexts["default", "github:octo/hello:issue:7"]
    assert (context.kind, context.title) == ("issue", "Problem 7")
    [event] = context.events
    assert (event.actor, event.action, event.content_type) == ("mona", "opened", "application/json")
    assert event.payload.startswith(b"{")
    assert event.HasField("received_time")
    assert {append.traceparent for request in town.contexts.requests for append in request.appends} == {
        "00-aa-bb-00"
    }
    assert len(town.contexts.requests) < 30


async def test_a_second_delivery_of_the_same_event_changes_nothing(town):
    async with town.context_store(), town.understanding(), town.consumer():
        await town.send(1)
        await town.send(1)
        await town.until(town.is_empty)
    assert len(town.contexts.events()) == 1


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [
        ({"sealed": b"WHE1 but no more than that"}, "not an envelope"),
        ({"sealed": b"\x00" * 400}, "not an envelope"),
        ({"sealed": None}, "lacks"),
        ({"tenant": "somebody-else"}, ""),
        ({"tenant": b"\xff\xfe"}, "lacks"),
        ({"id": "another-event"}, "bound to something else"),
        ({"id": None}, "lacks"),
        ({"schema": "first"}, "schema"),
    ],
)
async def test_what_is_not_ours_is_dead_at_once_and_named(town, spoil, detail):
    async with town.context_store(), town.understanding(), town.consumer(max_retries=0):
        good = await town.send(1)
        await town.send(2, fields=spoil)
        await town.until(town.is_empty)
    assert town.contexts.events() == [good]
    [letter] = await town.dead()
    assert letter["cause"] in {Cause.UNDECODABLE, Cause.EXHAUSTED}
    assert detail in letter["detail"]
    assert letter["attempt"] == "1"


async def test_an_entry_of_another_program_is_dead_at_once(town):
    async with town.context_store(), town.understanding(), town.consumer():
        await town.redis.xadd(town.lane.stream, {"event": '{"hello": "world"}'})
        await town.until(town.is_empty)
    [letter] = await town.dead()
    assert letter["cause"] == Cause.UNDECODABLE
    assert not await town.redis.keys("tenantkey:*")


async def test_a_truncated_envelope_is_dead_at_once(town):
    await town.send(1)
    [(entry_id, fields)] = await town.redis.xrange(town.lane.stream)
    await town.redis.xdel(town.lane.stream, entry_id)
    await town.redis.xadd(town.lane.stream, {**fields, b"sealed": fields[b"sealed"][:-20]})
    async with town.context_store(), town.understanding(), town.consumer():
        await town.until(town.is_empty)
    [letter] = await town.dead()
    assert (letter["cause"], letter["id"]) == (Cause.UNDECODABLE, "0190-default-1")


async def test_a_schema_of_tomorrow_waits_for_those_who_know_it(town):
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer(retry_backoff_base="1m", max_retries=9),
    ):
        await town.send(1, fields={"schema": "2"})
        await town.until(lambda: _count(town.redis.zcard(town.lane.delayed), 1))
    assert await town.dead() == []


async def test_a_key_that_is_not_known_is_tried_again(town):
    await town.send(1)
    key = "tenantkey:{default}"
    held = await town.redis.hgetall(key)
    await town.redis.delete(key)
    async with town.context_store(), town.understanding(), town.consumer(max_retries=100):
        await town.until(lambda: _count(town.redis.zcard(town.lane.delayed), 1))
        await town.redis.delete(key)
        await town.redis.hset(key, mapping=held)
        await town.until(town.is_empty, within_s=30)
    assert len(town.contexts.events()) == 1


async def test_a_payload_that_no_rule_can_use_is_dead_and_its_text_is_nowhere(town):
    async with town.context_store(), town.understanding(), town.consumer():
        await town.send(1, payload=b'{"token": "hunter2"')
        good = await town.send(2)
        await town.until(town.is_empty)
    assert town.contexts.events() == [good]
    [letter] = await town.dead()
    assert letter["cause"] == Cause.PERMANENT
    assert "hunter2" not in str({**letter, "sealed": ""})


async def test_what_a_tenant_has_no_room_for_is_kept_among_the_dead_and_goes_in_when_it_has(town):
    def refuse(append):
        full = ResourceExhausted("CONTEXT_QUOTA_EXCEEDED", "the tenant has its 2 contexts")
        return full if append.context_id.endswith(":2") else None

    town.contexts.refuse = refuse
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        admin(town, running, ["*"]) as stub,
    ):
        sent = [await town.send(number) for number in (1, 2, 3)]
        await town.until(town.is_empty)
        assert sorted(town.contexts.events()) == [sent[0], sent[2]]
        [letter] = await town.dead()
        assert (letter["id"], letter["cause"]) == (sent[1], Cause.QUOTA)
        assert letter["detail"].startswith("RESOURCE_EXHAUSTED/CONTEXT_QUOTA_EXCEEDED")
        town.contexts.refuse = lambda _: None
        request = messages.RedriveDeadLettersRequest(filter=messages.DeadLetterFilter(cause=Cause.QUOTA))
        async for _ in stub.RedriveDeadLetters(request):
            pass
        await town.until(town.is_empty)
    assert sorted(town.contexts.events()) == sent
    chain = AuditChain(town.redis, Seal(MASTER), most=1000, contract=audit_pb2)
    [call] = [entry.record.admin_call for entry in await chain.entries(after=1, most=10)]
    assert call.method == "webhook.consumer.v1.ConsumerAdminService/RedriveDeadLetters"
    assert (call.outcome, dict(call.subject)) == ("OK", {"cause": "quota"})
    assert (await chain.head()).sequence == 2


async def test_what_the_store_refuses_for_good_is_dead_and_what_it_forgot_is_dropped(town):
    def refuse(append):
        number = append.context_id.rpartition(":")[2]
        if number == "2":
            return InvalidArgument("too long", fields={"title": "too long"})
        return FailedPrecondition("CONTEXT_DELETED", "it was deleted") if number == "3" else None

    town.contexts.refuse = refuse
    before = context_deleted.labels("github")._value.get()
    async with town.context_store(), town.understanding(), town.consumer():
        sent = [await town.send(number) for number in (1, 2, 3, 4)]
        await town.until(town.is_empty)
    assert sorted(town.contexts.events()) == [sent[0], sent[3]]
    [letter] = await town.dead()
    assert (letter["id"], letter["cause"]) == (sent[1], Cause.PERMANENT)
    assert letter["detail"] == "INVALID_ARGUMENT/FIELD_INVALID: too long"
    assert context_deleted.labels("github")._value.get() == before + 1


async def test_one_item_that_the_store_cannot_take_now_is_tried_again(town):
    refused = []

    def refuse(append):
        if append.context_id.endswith(":2") and len(refused) < 2:
            refused.append(append.context_id)
            return Unavailable("STORE_UNREACHABLE", "not now")
        return None

    town.contexts.refuse = refuse
    for number in range(1, 6):
        await town.send(number)
    async with town.context_store(), town.understanding(), town.consumer():
        await town.until(town.is_empty)
    assert len(town.contexts.events()) == 5
    assert len(refused) == 2


async def test_one_event_that_breaks_the_store_does_not_take_its_batch_along(town):
    class Poisoned(Exception):
        pass

    def refuse(append):
        if append.context_id.endswith(":3"):
            raise Poisoned

    town.contexts.refuse = refuse
    sent = [await town.send(number) for number in range(1, 9)]
    async with town.context_store(), town.understanding(), town.consumer(max_retries=1):
        await town.until(town.is_empty)
    assert sorted(town.contexts.events()) == sorted(set(sent) - {sent[2]})
    [letter] = await town.dead()
    assert (letter["id"], letter["cause"]) == (sent[2], Cause.EXHAUSTED)


async def test_a_context_store_that_is_away_costs_nothing_but_time(town):
    sent = [await town.send(number) for number in range(250)]
    async with town.understanding(), town.consumer(prefetch_count=100, batch_size=10):
        await town.until(lambda: _count(town.pending(), 100))
        await asyncio.sleep(WORKED_ON_S)
        assert await town.redis.zcard(town.lane.delayed) == 0
        async with town.context_store():
            await town.until(town.is_empty, within_s=40)
    assert sorted(town.contexts.events()) == sorted(sent)
    assert await town.dead() == []


@pytest.mark.parametrize(
    "refusal",
    [Unavailable("STORE_UNREACHABLE", "away"), ResourceExhausted("BUSY", "slow down", retry_after_s=0.05)],
)
async def test_a_store_that_refuses_everything_for_a_while_loses_nothing(town, refusal):
    town.contexts.refusal = refusal
    sent = [await town.send(number) for number in range(20)]
    async with town.context_store(), town.understanding(), town.consumer(max_retries=50):
        await town.until(lambda: bool(town.contexts.requests))
        await asyncio.sleep(WORKED_ON_S)
        town.contexts.refusal = None
        await town.until(town.is_empty, within_s=40)
    assert sorted(town.contexts.events()) == sorted(sent)
    assert await town.dead() == []


async def test_a_mistake_of_the_store_burns_tries_and_then_stops(town):
    town.contexts.refusal = Internal()
    await town.send(1)
    async with town.context_store(), town.understanding(), town.consumer(max_retries=2):
        await town.until(town.is_empty)
    [letter] = await town.dead()
    assert (letter["cause"], letter["attempt"]) == (Cause.EXHAUSTED, "3")
    assert letter["detail"].startswith("INTERNAL/INTERNAL")


async def test_a_killed_consumer_leaves_nothing_undone_and_nothing_twice(town):
    sent = [await town.send(number) for number in range(300)]
    async with town.context_store(), town.understanding():
        async with town.consumer(batch_size=5, num_workers=2, prefetch_count=50):
            await town.until(lambda: len(town.contexts.events()) > 40)
        assert await town.redis.xlen(town.lane.stream) > 0
        async with town.consumer():
            await town.until(town.is_empty)
    assert sorted(town.contexts.events()) == sorted(sent)


async def _count(value, expected):
    return await value == expected
