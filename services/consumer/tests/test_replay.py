"""Archived events come again: once per replay, at a pace, as far as the caller may see them."""

from __future__ import annotations

import time
import uuid
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.consumer.v1 import archive_service_pb2 as messages
from webhook.consumer.v1.archive_service_pb2_grpc import ArchiveServiceStub
from webhook_consumer.archive import replay
from webhook_consumer.archive.replay import Order, Progress, ReplayDiffers, Replays
from webhook_consumer.archive.search import Wanted
from webhook_shared.errors import FailedPrecondition, from_rpc_error
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.partitions import Partitions
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role

from services.consumer.tests.test_archive import NOON_MS, archive_of, fields, ids, keep

STREAM = "webhook-events"


@pytest.fixture
async def archive(redis: Client, tmp_path: Any) -> Any:
    """Events 0 to 29: the first ten in a segment, ten more in another, the rest on their way."""
    (tmp_path / "cold").mkdir()
    made = archive_of(redis, DirectoryObjectStore(tmp_path / "cold"))
    for start in (0, 10, 20):
        if start:
            await made.flush()
        tools = (b"github", b"gitlab")
        await keep(redis, *(fields(n, tool=tools[n % 2], attempt=b"2") for n in range(start, start + 10)))
    return made


def order(replay_id: str = "", **changed: Any) -> Order:
    wanted = Wanted(**{key: value for key, value in changed.items() if key not in ("per_second", "most")})
    return Order(
        replay_id or str(uuid.uuid4()),
        wanted,
        per_second=changed.get("per_second", 100_000),
        most=changed.get("most"),
    )


async def carried_out(replays: Replays, what: Order) -> Progress:
    *_, last = [progress async for progress in replays.run(what)]
    return last


async def queued(redis: Client, stream: str = STREAM) -> list[str]:
    return [entry[b"id"].decode() for _, entry in await redis.xrange(stream)]


async def test_a_replay_queues_each_event_once_however_often_it_is_asked_for(
    redis: Client, archive: Any
) -> None:
    replays = Replays(redis, archive.catalogue, Partitions(STREAM))
    asked = order()
    assert await carried_out(replays, asked) == Progress(30, 30, 0)
    assert await carried_out(replays, asked) == Progress(30, 0, 30)
    assert await queued(redis) == ids(*range(30))
    # What comes into the archive later is not part of it.
    await keep(redis, fields(31, received_ms=int(time.time() * 1000) + 1000))
    assert (await carried_out(replays, asked)).queued == 0
    [(_, entry)] = await redis.xrange(STREAM, count=1)
    [original] = [one for one in [fields(0, tool=b"github")] if one.pop(b"sealed")]
    assert entry.pop(b"sealed").endswith(b"0")
    assert entry == original | {b"replay": asked.replay_id.encode()}
    # Another replay is another matter.
    assert (await carried_out(replays, order(tool="gitlab"))).queued == 15
    assert (await carried_out(replays, order(most=3))).queued == 3
    assert (await queued(redis))[-3:] == ids(0, 1, 2)
    assert (await carried_out(replays, order(event_id="event-0017"))).queued == 1
    assert await carried_out(replays, order(tenant="nobody")) == Progress()


async def test_a_replay_that_was_cut_off_goes_on_where_it_was(
    redis: Client, archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MOST_AT_ONCE", 4)
    replays = Replays(redis, archive.catalogue, Partitions(STREAM))
    asked = order()
    add = replays._add.batch

    async def unheard(client: Client, calls: Any) -> Any:
        """It is done, and nobody hears of it."""
        await add(client, calls)
        raise ConnectionResetError

    async for _ in replays.run(asked):
        if len(await queued(redis)) >= 8:
            break
    with monkeypatch.context() as cut, suppress(ConnectionResetError):
        cut.setattr(replays._add, "batch", unheard)
        await carried_out(replays, asked)
    assert 8 <= len(await queued(redis)) < 30
    elsewhere = Replays(redis, archive.catalogue, Partitions(STREAM))
    await carried_out(elsewhere, asked)
    assert await queued(redis) == ids(*range(30))


async def test_the_name_of_a_replay_stands_for_one_filter(redis: Client, archive: Any) -> None:
    replays = Replays(redis, archive.catalogue, Partitions(STREAM))
    asked = order(tool="github")
    await carried_out(replays, asked)
    for other in (order(asked.replay_id), order(asked.replay_id, tool="github", most=2)):
        with pytest.raises(ReplayDiffers):
            await carried_out(replays, other)
    assert len(await queued(redis)) == 15


async def test_a_replay_keeps_its_pace(redis: Client, archive: Any) -> None:
    replays = Replays(redis, archive.catalogue, Partitions(STREAM))
    started = time.monotonic()
    await carried_out(replays, order(per_second=100, most=20))
    assert 0.15 < time.monotonic() - started < 2


async def test_events_go_back_to_the_partition_of_their_source(redis: Client, archive: Any) -> None:
    partitions = Partitions(STREAM, 3)
    replays = Replays(redis, archive.catalogue, partitions)
    asked = order()
    assert (await carried_out(replays, asked)).queued == 30
    assert (await carried_out(replays, asked)).queued == 0
    for tool in ("github", "gitlab"):
        assert partitions.stream_of("acme", tool) in partitions.streams
    there = {stream: await queued(redis, stream) for stream in partitions.streams}
    assert sorted(event for events in there.values() for event in events) == ids(*range(30))
    assert there[partitions.stream_of("acme", "gitlab")][-1] == "event-0029"


# --- through the RPCs ---------------------------------------------------------------------------------


@asynccontextmanager
async def archive_service(
    town: Any, running: Any, *, tenants: Any = ("*",), roles: Any = (Role.OPERATOR,)
) -> Any:
    _, secret = await ApiKeys(town.redis).mint("test", tenants, roles)
    async with connected(f"127.0.0.1:{running.port}", key=SecretStr(secret), deadline_s=10) as channel:
        yield ArchiveServiceStub(channel)


async def events_of(stub: Any, page_size: int = 0, **wanted: Any) -> list[Any]:
    found, token = [], None
    while token != "":
        request = messages.ListArchivedEventsRequest(
            page_size=page_size, page_token=token or "", filter=messages.ArchiveFilter(**wanted)
        )
        page = await stub.ListArchivedEvents(request)
        found += page.events
        token = page.next_page_token
    return found


async def replayed(stub: Any, *, dry_run: bool = False, replay_id: str = "", **wanted: Any) -> list[Any]:
    request = messages.ReplayEventsRequest(
        filter=messages.ArchiveFilter(**wanted), dry_run=dry_run, replay_id=replay_id, everything=not wanted
    )
    return [told async for told in stub.ReplayEvents(request)]


async def test_from_the_queue_into_the_archive_and_back(town: Any) -> None:
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        archive_service(town, running) as stub,
    ):
        sent = [await town.send(number) for number in range(5)]
        sent += [await town.send(number, tenant="rival") for number in range(5, 7)]
        await town.until(town.is_empty)
        found = await events_of(stub, page_size=3)
        assert sorted(event.event_id for event in found) == sorted(sent)
        times = [event.received_time.ToMilliseconds() for event in found]
        assert times == sorted(times, reverse=True)
        got = await stub.GetArchivedEvent(
            messages.GetArchivedEventRequest(event_id=sent[0], include_payload=True)
        )
        assert b"Problem 0" in got.payload
        assert got.content_type == "application/json"
        assert got.event.size_bytes > 0

        town.contexts.contexts.clear()
        told = await replayed(stub, tenant="default")
        assert (told[-1].done, told[-1].queued_count) == (True, 5)
        await town.until(town.is_empty)
        assert sorted(town.contexts.events()) == sorted(sent[:5])
        assert {append.replay_id for append in town.contexts.requests[-1].appends} == {told[0].replay_id}
        again = await replayed(stub, tenant="default", replay_id=told[0].replay_id)
        assert (again[-1].queued_count, again[-1].skipped_count) == (0, 5)
        # What a replay brings does not go back into the archive.
        assert len(await events_of(stub)) == 7


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(town: Any) -> None:
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        archive_service(town, running) as stub,
    ):
        sent = [await town.send(number) for number in range(6)]
        await town.until(town.is_empty)
        contexts = town.contexts
        name = "github:octo/hello:issue:{}".format
        del contexts.contexts["default", name(1)]
        contexts.contexts["default", name(2)].events[0].text = "as the rules read it last year"
        contexts.contexts["default", name(3)].events[0].event_id = "another event"

        def refuse(append: Any) -> Any:
            erased = FailedPrecondition("CONTEXT_DELETED", "the context was deleted")
            return erased if append.context_id == name(4) else None

        contexts.refuse = refuse
        before = {where: held.SerializeToString() for where, held in contexts.contexts.items()}
        # Of another key: nobody can open it.
        await keep(town.redis, fields(99, tenant=b"default", received_ms=int(time.time() * 1000)))
        told = await replayed(stub, dry_run=True)
        changes = {effect.event_id: effect for one in told for effect in one.effects}
        kinds = messages.ReplayChange
        assert {event: kinds.Name(effect.change)[14:] for event, effect in changes.items()} == {
            sent[0]: "PRESENT",
            sent[1]: "CREATE",
            sent[2]: "PRESENT_DIFFERENT",
            sent[3]: "APPEND",
            sent[4]: "REFUSED",
            sent[5]: "PRESENT",
            "event-0099": "UNREADABLE",
        }
        assert changes[sent[4]].status.reason == "CONTEXT_DELETED"
        assert changes["event-0099"].status.reason == "EVENT_UNREADABLE"
        assert changes[sent[1]].context_id == name(1)
        assert (told[-1].done, told[-1].found_count) == (True, 7)
        assert await town.is_empty()
        assert not await town.redis.keys("replay:*")
        assert {where: held.SerializeToString() for where, held in contexts.contexts.items()} == before


async def test_each_sees_the_events_of_its_own_tenants(town: Any) -> None:
    async with town.context_store(), town.understanding(), town.consumer() as running:
        ours, theirs = await town.send(1), await town.send(2, tenant="rival")
        await town.until(town.is_empty)
        async with archive_service(town, running, tenants=("rival",)) as stub:
            assert [event.event_id for event in await events_of(stub)] == [theirs]
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await stub.GetArchivedEvent(messages.GetArchivedEventRequest(event_id=ours))
            assert from_rpc_error(missing.value).reason == "ARCHIVED_EVENT_NOT_FOUND"
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await replayed(stub, tenant="default")
            assert from_rpc_error(refused.value).reason == "TENANT_NOT_ALLOWED"
            assert (await replayed(stub))[-1].queued_count == 1
        async with archive_service(town, running, roles=(Role.READER, Role.WRITER)) as stub:
            for call in (events_of(stub), replayed(stub)):
                with pytest.raises(grpc.aio.AioRpcError) as denied:
                    await call
                assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_what_can_not_be_right_is_said(town: Any) -> None:
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        archive_service(town, running) as stub,
    ):
        late, early = {"seconds": NOON_MS // 1000}, {"seconds": 1}
        refused = [
            (messages.ReplayEventsRequest(), "filter"),
            (messages.ReplayEventsRequest(replay_id="mine"), "replay_id"),
            (messages.ReplayEventsRequest(max_events=-1), "max_events"),
            (messages.ReplayEventsRequest(max_events_per_second=10**6), "max_events_per_second"),
            (
                messages.ReplayEventsRequest(
                    filter=messages.ArchiveFilter(received_from=late, received_until=early)
                ),
                "filter.received_until",
            ),
        ]
        for request, field in refused:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                [told async for told in stub.ReplayEvents(request)]
            assert field in from_rpc_error(error.value).fields
        for request in (
            messages.ListArchivedEventsRequest(page_size=-1),
            messages.ListArchivedEventsRequest(page_token="mine"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.ListArchivedEvents(request)
            assert from_rpc_error(error.value).reason == "FIELD_INVALID"


async def test_an_archive_that_is_away_says_so(town: Any) -> None:
    town.cold.write_text("no directory")
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        archive_service(town, running) as stub,
    ):
        await town.send(1)
        await town.until(town.is_empty)
        for call in (events_of(stub), replayed(stub)):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call
            assert from_rpc_error(error.value).reason == "ARCHIVE_UNREACHABLE"
    assert len(town.contexts.events()) == 1
