"""The feed of what is accepted: who sees it, that nothing is skipped, and what it says when something is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.ingest.v1 import ingest_service_pb2 as ingest
from webhook.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from webhook_gateway import feed, tail
from webhook_gateway.feed import STREAM, Feed
from webhook_gateway.outcome import Accepted, Duplicate, Publication
from webhook_gateway.tail import Tail
from webhook_shared.errors import InvalidArgument, ResourceExhausted, from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK_S", 0.02)
    monkeypatch.setattr(feed, "GATHER_S", 0.01)
    monkeypatch.setattr(tail, "POLL_S", 0.01)
    monkeypatch.setattr(tail, "SEEN_BY_ALL_S", 0.08)


def publication(number: int, **changes: Any) -> Publication:
    values: dict[str, Any] = {
        "event_id": f"e-{number}",
        "tenant": "default",
        "tool": "github",
        "type": "push",
        "received_ms": 1_800_000_000_000 + number,
        "schema": 1,
        "sealed": b"sealed",
        "traceparent": "",
        "dedup_key": str(number),
        "window_ms": 1000,
        "occurrences_allowed": 1,
        "quarantined": False,
    }
    return Publication(**(values | changes))


async def accept(written: Feed, *numbers: int) -> None:
    """As a gateway does, at once."""
    await written.look()
    written.note([publication(number) for number in numbers], [Accepted(f"e-{n}", False) for n in numbers])
    await written.write()


async def read(pages: AsyncIterator[tail.Page], count: int) -> tuple[list[str], str, bool]:
    """Event ids until there are so many, the last token, and whether a gap was told."""
    ids: list[str] = []
    gap = False
    async with asyncio.timeout(5):
        async for page in pages:
            ids += [row[0] for row in page.rows]
            gap = gap or page.gap
            if len(ids) >= count:
                return ids, page.token, gap
    raise AssertionError(ids)


@contextlib.asynccontextmanager
async def tailing(house: Any, key: SecretStr, **request: Any) -> AsyncIterator[Any]:
    address = f"127.0.0.1:{house.ports.port}"
    async with connected(address, key=key, deadline_s=5) as channel:
        call = IngestServiceStub(channel).TailEvents(ingest.TailEventsRequest(**request))
        yield call
        call.cancel()


async def test_an_operator_sees_what_comes_in_by_either_door(house, kit):
    async with tailing(house, kit.key) as call:
        ready = await call.read()
        assert (list(ready.events), ready.gap) == ([], False)
        assert ready.resume_token
        await house.ask(kit.post(delivery="1"))
        await house.ask(kit.post(delivery="1"))
        await house.ask(kit.post(b"forged", signed="0" * 64))
        await house.ask(kit.post(b"{", delivery="2", path="/webhooks/linear"))
        async with connected(f"127.0.0.1:{house.ports.port}", key=kit.key, deadline_s=5) as channel:
            produced = ingest.ProducedEvent(tool="github", type="build", payload=b"{}")
            request = ingest.IngestEventsRequest(events=[produced], tenant="acme")
            [result] = (await IngestServiceStub(channel).IngestEvents(request)).results
        seen: list[ingest.AcceptedEvent] = []
        while len(seen) < 3:
            seen += (await call.read()).events
    stored = {entry[b"id"].decode() for entry in await house.events()}
    assert {event.event_id for event in seen} >= stored
    assert [(event.tenant, event.tool) for event in seen] == [
        ("default", "github"),
        ("default", "linear"),
        ("acme", "github"),
    ]
    assert seen[2].event_id == result.event_id
    assert seen[2].received_time.seconds > 1_700_000_000


async def test_tenants_and_roles_are_the_credentials(house, kit, redis):
    keys = ApiKeys(redis)
    _, acme = await keys.mint("ops", ["acme"], [Role.OPERATOR])
    _, writer = await keys.mint("ci", ["acme"], [Role.WRITER])

    async def refusal(key: str, **request: Any) -> str:
        async with tailing(house, SecretStr(key), **request) as call:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
        return from_rpc_error(caught.value).reason

    assert await refusal(writer) == "ROLE_MISSING"
    assert await refusal(acme, tenant="default") == "TENANT_NOT_ALLOWED"
    assert await refusal(acme, resume_token="whatever") == "FIELD_INVALID"
    async with tailing(house, SecretStr(acme)) as own, tailing(house, kit.key, tools=["linear"]) as linear:
        for call in (own, linear):
            await call.read()
        for path in ("/webhooks/github", "/webhooks/linear", "/webhooks/acme/github"):
            await house.ask(kit.post(path=path, delivery=path))
        [event] = (await own.read()).events
        assert (event.tenant, event.tool) == ("acme", "github")
        [event] = (await linear.read()).events
        assert (event.tenant, event.tool) == ("default", "linear")


async def test_nothing_is_written_while_nobody_reads(house, kit, redis):
    await house.ask(kit.post(delivery="1"))
    await asyncio.sleep(0.1)
    assert not await redis.exists(STREAM)


async def test_a_reader_goes_on_where_another_ended(redis):
    written, reading = Feed(redis), Tail(redis)
    async with contextlib.aclosing(reading.follow("")) as pages:
        await anext(pages)
        await accept(written, *range(5))
        ids, token, _ = await read(pages, 5)
    await accept(written, *range(5, 200))
    async with contextlib.aclosing(reading.follow(token)) as pages:
        more, _, gap = await read(pages, 195)
    assert ids + more == [f"e-{number}" for number in range(200)]
    assert not gap
    assert 0 < await redis.ttl(STREAM) <= tail.KEPT_S


async def test_duplicates_and_failures_are_no_news(redis):
    written = Feed(redis)
    async with contextlib.aclosing(Tail(redis).follow("")) as pages:
        await anext(pages)
        await written.look()
        written.note(
            [publication(1), publication(2, quarantined=True)], [Duplicate("e-0"), Accepted("e-2", True)]
        )
        await written.write()
        page = await anext(pages)
    assert [(row[0], row[6]) for row in page.rows] == [("e-2", True)]


async def test_what_is_gone_is_told_as_a_gap(redis, monkeypatch):
    monkeypatch.setattr(feed, "ROWS_PER_ENTRY", 1)
    written, reading = Feed(redis), Tail(redis)
    async with contextlib.aclosing(reading.follow("")) as pages:
        await anext(pages)
        await accept(written, 0, 1)
        _, token, gap = await read(pages, 2)
        assert not gap
    await accept(written, *range(2, 6))
    await redis.xtrim(STREAM, maxlen=2, approximate=False)
    async with contextlib.aclosing(reading.follow(token)) as pages:
        assert await read(pages, 2) == (["e-4", "e-5"], (await redis.xrevrange(STREAM))[0][0].decode(), True)
        # Everything gone, under a reader that is there.
        await redis.flushall()
        await read(pages, 0)
        await accept(written, 6)
        ids, _, _ = await read(pages, 1)
        assert ids == ["e-6"]


async def test_more_than_can_wait_is_told_as_missed(redis, monkeypatch):
    monkeypatch.setattr(feed, "MOST_WAITING", 3)
    async with contextlib.aclosing(Tail(redis).follow("")) as pages:
        await anext(pages)
        await accept(Feed(redis), *range(5))
        assert await read(pages, 3) == (
            ["e-2", "e-3", "e-4"],
            (await redis.xrevrange(STREAM))[0][0].decode(),
            True,
        )


async def test_a_slow_reader_keeps_nobody_waiting_and_misses_nothing(redis):
    written, reading = Feed(redis), Tail(redis)
    slow, quick = reading.follow(""), reading.follow("")
    await anext(slow)
    await anext(quick)
    expected = [f"e-{number}" for number in range(6000)]
    for start in range(0, 6000, 1000):
        await accept(written, *range(start, start + 1000))
    assert (await read(quick, 6000))[0] == expected
    assert (await read(slow, 6000))[::2] == (expected, False)
    await slow.aclose()
    await quick.aclose()


async def test_a_second_reader_is_promised_nothing_before_every_gateway_looks(redis):
    first, second = Tail(redis).follow(""), Tail(redis).follow("")
    started = asyncio.get_running_loop().time()
    making = asyncio.ensure_future(anext(first))
    while not await redis.exists(STREAM):
        await asyncio.sleep(0)
    await anext(second)
    assert asyncio.get_running_loop().time() - started >= tail.SEEN_BY_ALL_S * 0.9
    await making
    await first.aclose()
    await second.aclose()


async def test_readers_are_counted_and_let_go(redis, monkeypatch):
    monkeypatch.setattr(tail, "MOST_READERS", 1)
    reading = Tail(redis)
    with pytest.raises(InvalidArgument):
        await anext(reading.follow("1-"))
    first = reading.follow("")
    await anext(first)
    with pytest.raises(ResourceExhausted):
        await anext(reading.follow(""))
    reading.end()
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(first), 1)
    assert await anext(reading.follow(""))


async def test_a_gateway_that_stops_does_not_wait_for_its_readers(house_with, kit):
    async with contextlib.AsyncExitStack() as stack:
        async with house_with() as house:
            call = await stack.enter_async_context(tailing(house, kit.key))
            await call.read()
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 2
        assert await call.read() == grpc.aio.EOF
