"""What operators are told about the queue, and who else is not."""

from contextlib import asynccontextmanager

import grpc
import pytest
from pydantic import SecretStr
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub
from webhook_shared.errors import InvalidArgument, Unavailable, from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role

OPERATOR = ["default"], [Role.OPERATOR]


@asynccontextmanager
async def admin(town, running, tenants=("default",), roles=(Role.OPERATOR,)):
    _, secret = await ApiKeys(town.redis).mint("test", tenants, roles)
    async with connected(f"127.0.0.1:{running.port}", key=SecretStr(secret), deadline_s=5) as channel:
        yield ConsumerAdminServiceStub(channel)


async def dead_letters(stub, **request):
    letters, token, pages = [], "", 0
    while True:
        page = await stub.ListDeadLetters(messages.ListDeadLettersRequest(**request, page_token=token))
        letters += page.dead_letters
        pages += 1
        token = page.next_page_token
        if not token:
            return letters, pages


async def test_the_backlog_is_exact_wherever_events_are(town):
    town.contexts.refuse = lambda append: (
        InvalidArgument("no") if append.context_id.endswith((":1", ":2")) else None
    )
    slow = {"retry_backoff_base": "1m", "retry_backoff_cap": "1m", "prefetch_count": 10, "batch_size": 10}
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer(**slow) as running,
        admin(town, running) as stub,
    ):
        for number in range(1, 4):
            await town.send(number)
        await town.until(town.is_empty)
        await town.send(4, fields={"schema": "2"})
        await town.until(lambda: _is(town.redis.zcard(town.lane.delayed), 1))
        town.contexts.refusal = Unavailable("STORE_UNREACHABLE", "away")
        for number in range(5, 30):
            await town.send(number)
        await town.until(lambda: _is(town.pending(), 10))
        events, enrichment = (await stub.GetBacklog(messages.GetBacklogRequest())).stages
        town.contexts.refusal = None
        await town.until(lambda: _is(town.pending(), 0))
    counts = (events.waiting_count, events.in_flight_count, events.delayed_count, events.dead_count)
    assert counts == (15, 10, 1, 2)
    assert (events.stage, events.stream, events.group) == ("events", "webhook-events", "webhook-processors")
    assert 0 < events.oldest_age.ToMilliseconds() < 60_000
    assert (enrichment.stage, enrichment.waiting_count) == ("enrichment", 0)
    assert not enrichment.HasField("oldest_age")


async def test_consumers_are_listed_page_by_page(town):
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer(),
        town.consumer() as running,
        admin(town, running) as stub,
    ):

        async def all_there():
            reply = await stub.ListConsumers(messages.ListConsumersRequest())
            return len(reply.consumers) == 4

        await town.until(all_there)
        first = await stub.ListConsumers(messages.ListConsumersRequest(page_size=3))
        rest = await stub.ListConsumers(
            messages.ListConsumersRequest(page_size=3, page_token=first.next_page_token)
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListConsumers(messages.ListConsumersRequest(page_size=-1))
    found = [(consumer.stage, consumer.name) for consumer in (*first.consumers, *rest.consumers)]
    assert found == [
        ("enrichment", "w-00"),
        ("enrichment", "w-01"),
        ("events", "w-00"),
        ("events", "w-01"),
    ]
    assert not rest.next_page_token
    assert from_rpc_error(refused.value).fields == {"page_size": "is negative"}


async def test_dead_letters_are_listed_newest_first_over_all_stages(town):
    async with town.context_store(), town.understanding(), town.consumer() as running:
        for number in range(25):
            await town.send(number, payload=b"{", tenant="blue" if number % 5 == 0 else "default")
            await town.until(town.is_empty)
            if number % 10 == 0:
                await town.redis.xadd(town.enrichment.stream, {"hello": "world"})
        await town.until(lambda: _is(town.redis.xlen(town.enrichment.dead_letters), 3))
        async with admin(town, running) as stub:
            letters, pages = await dead_letters(stub, page_size=4)
            everything, _ = await dead_letters(stub)
            blue, _ = await dead_letters(stub, tenant="blue", page_size=2)
            none, _ = await dead_letters(stub, tool="jira")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ListDeadLetters(messages.ListDeadLettersRequest(page_token="mine"))
    assert letters == everything
    assert pages == 7
    assert len({letter.dead_letter_id for letter in letters}) == 28
    times = [letter.dead_time.ToMilliseconds() for letter in letters]
    assert times == sorted(times, reverse=True)
    events = [letter for letter in letters if letter.stage == "events"]
    assert [letter.event_id.rpartition("-")[2] for letter in events] == [str(n) for n in range(24, -1, -1)]
    assert len(blue) == 5
    assert none == []
    assert from_rpc_error(refused.value).fields.keys() == {"page_token"}
    letter = events[0]
    assert (letter.tool, letter.type, letter.tenant) == ("github", "issues", "default")
    assert (letter.cause, letter.attempts) == ("permanent", 1)
    assert letter.received_time.ToMilliseconds() <= letter.dead_time.ToMilliseconds()
    [enrichment, *_] = [letter for letter in letters if letter.stage == "enrichment"]
    assert enrichment.dead_letter_id.startswith("enrichment:")


async def test_a_payload_is_shown_to_those_whose_tenant_it_is(town):
    async with town.context_store(), town.understanding(), town.consumer() as running:
        await town.send(1, payload=b"not json")
        await town.redis.xadd(town.enrichment.stream, {"hello": "world"})
        await town.until(town.is_empty)
        await town.until(lambda: _is(town.redis.xlen(town.enrichment.dead_letters), 1))
        async with admin(town, running) as own, admin(town, running, tenants=("blue",)) as foreign:
            letters, _ = await dead_letters(own)
            [event] = [letter for letter in letters if letter.stage == "events"]
            [other] = [letter for letter in letters if letter.stage == "enrichment"]

            async def get(stub, name, *, include_payload=True):
                request = messages.GetDeadLetterRequest(dead_letter_id=name, include_payload=include_payload)
                return await stub.GetDeadLetter(request)

            shown = await get(own, event.dead_letter_id)
            assert (shown.payload, shown.dead_letter) == (b"not json", event)
            assert (await get(own, event.dead_letter_id, include_payload=False)).payload == b""
            hidden = await get(foreign, event.dead_letter_id)
            assert (hidden.payload, hidden.dead_letter.event_id) == (b"", event.event_id)
            assert (await get(own, other.dead_letter_id)).dead_letter == other
            for name in ("1-1", "nonsense", "", "warp:1-1", "enrichment:1-1"):
                with pytest.raises(grpc.aio.AioRpcError) as missing:
                    await get(own, name)
                assert from_rpc_error(missing.value).reason == "DEAD_LETTER_NOT_FOUND"


async def test_only_operators_are_told(town):
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        admin(town, running, roles=(Role.READER, Role.WRITER)) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetBacklog(messages.GetBacklogRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def _is(value, expected):
    return await value == expected
