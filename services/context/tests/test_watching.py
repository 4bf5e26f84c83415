"""Changes as they come: none is missed, whoever breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_context.changes.feeds import DELETED, Feeds, Touched
from webhook_context.changes.following import Change, Position, Recent
from webhook_context.changes.watching import Watching, Wish, read_token, write_token
from webhook_context.domain.contexts import Filter
from webhook_context.settings import ContextWatchSection
from webhook_context.store import keys
from webhook_shared.errors import ServiceError
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected

from services.context.tests.conftest import INTERNAL_KEY

CHANGED, GONE, MOVED = pb.CHANGE_KIND_CHANGED, pb.CHANGE_KIND_DELETED, pb.CHANGE_KIND_MOVED


class Watch:
    """A stream that is read by hand."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.token = ""

    async def next(self) -> Any:
        async with asyncio.timeout(10):
            response = await self._stream.read()
        self.token = response.resume_token
        return response

    async def changes(self, count: int) -> list[Any]:
        """So many changes, in order."""
        told: list[Any] = []
        while len(told) < count:
            told += (await self.next()).changes
        return told


@asynccontextmanager
async def _watch(house: Any, token: str = "", **asked: Any) -> AsyncIterator[Watch]:
    """A watch that has begun."""
    request = pb.WatchContextsRequest(tenant=asked.pop("tenant", "acme"), resume_token=token, **asked)
    stream = house.contexts.WatchContexts(request, timeout=30)
    watch = Watch(stream)
    assert not (await watch.next()).changes
    try:
        yield watch
    finally:
        stream.cancel()


def _told(changes: list[Any]) -> list[tuple[str, Any]]:
    return [(change.context_id, change.kind) for change in changes]


async def test_changes_come_as_they_happen(house: Any, make: Any, tmp_path: Any, open_house: Any) -> None:
    async with _watch(house) as watch:
        await house.append(make("e1", context_id="a"))
        (appended,) = await watch.changes(1)
        assert (appended.context_id, appended.version, appended.kind) == ("a", 1, CHANGED)
        assert appended.change_time.seconds > 1_700_000_000
        await house.enrich("a", "summary")
        assert [one.version for one in await watch.changes(1)] == [2]
        await house.append(make("e2", context_id="a"), make("e3", context_id="a"), make("e1", context_id="b"))
        told = {one.context_id: one.version for one in await watch.changes(2)}
        assert told == {"a": 4, "b": 1}
        await house.delete("a")
        assert _told(await watch.changes(1)) == [("a", GONE)]


async def test_a_deletion_that_was_cut_short_is_announced_when_it_is_repeated(
    house: Any, make: Any, refused: Any
) -> None:
    await house.append(make("e1", context_id="a"))
    await house.delete("a")
    # As if nobody had been told.
    async with _watch(house) as watch:
        await refused(house.delete("a"), "NOT_FOUND", "CONTEXT_NOT_FOUND")
        (told,) = await watch.changes(1)
        assert (told.context_id, told.kind, told.version) == ("a", GONE, 2)


async def test_a_move_between_tiers_is_told(house: Any, make: Any, redis: Client) -> None:
    async with _watch(house) as watch:
        await house.append(make("e1", context_id="a", payload=b"x" * 9000))
        assert _told(await watch.changes(1)) == [("a", CHANGED)]
        await house.move("WARM", "a")
        (moved,) = await watch.changes(1)
        assert (moved.kind, moved.tier, moved.version) == (MOVED, Tier.TIER_WARM, 1)


async def test_only_what_was_asked_for_and_with_the_context(house: Any, make: Any) -> None:
    jira = pb.ContextFilter(tools=["jira"])
    labelled = pb.ContextFilter(labels=["vip"])
    async with (
        _watch(house, filter=jira, include_contexts=True) as of_jira,
        _watch(house, filter=labelled) as of_label,
        _watch(house, context_ids=["b", "x"]) as of_two,
        _watch(house, tenant="other") as of_others,
    ):
        await house.append(
            make("e1", context_id="a"),
            make("e1", context_id="b", tool="jira", title="A ticket"),
            make("e1", context_id="c", labels=["vip"]),
            make("e1", context_id="d", tenant="other"),
        )
        (ticket,) = await of_jira.changes(1)
        assert (ticket.context_id, ticket.context.title, len(ticket.context.events)) == ("b", "A ticket", 0)
        assert _told(await of_label.changes(1)) == [("c", CHANGED)]
        assert _told(await of_two.changes(1)) == [("b", CHANGED)]
        assert _told(await of_others.changes(1)) == [("d", CHANGED)]
        await house.delete("a")
        await house.delete("b")
        # Nothing is left of them to be filtered.
        assert _told(await of_jira.changes(2)) == [("a", GONE), ("b", GONE)]
        assert _told(await of_two.changes(1)) == [("b", GONE)]


async def test_who_comes_back_gets_what_came_in_between(
    valkey: Any, make: Any, open_house: Any, redis: Client
) -> None:
    async with open_house(valkey) as first:
        async with _watch(first) as watch:
            await first.append(make("e1", context_id="seen"))
            await watch.changes(1)
        await first.append(*[make("e1", context_id=f"c{i}") for i in range(50)])
    # Another process, which was not there when they happened.
    async with open_house(valkey) as second:
        await second.append(make("e2", context_id="c7"))
        async with _watch(second, watch.token) as resumed:
            told = await resumed.changes(50)
    assert {one.context_id: one.version for one in told} == {f"c{i}": 2 if i == 7 else 1 for i in range(50)}
    assert "seen" not in {one.context_id for one in told}


async def test_a_server_that_stops_lets_its_watchers_go(valkey: Any, make: Any, open_house: Any) -> None:
    async with AsyncExitStack() as stack:
        # A channel that outlives the server.
        async with open_house(valkey) as house:
            channel = await stack.enter_async_context(
                connected(house.address, key=INTERNAL_KEY, deadline_s=20)
            )
            watches = ContextServiceStub(channel).WatchContexts(pb.WatchContextsRequest(tenant="acme"))
            assert (await watches.read()).resume_token
        async with asyncio.timeout(5):
            assert await watches.read() == grpc.aio.EOF
        assert await watches.code() == grpc.StatusCode.OK


async def test_a_token_that_is_too_old_is_refused(house: Any, make: Any, redis: Client, refused: Any) -> None:
    async with _watch(house) as watch:
        await house.append(make("e1", context_id="a"))
        await watch.changes(1)
    await house.append(make("e1", context_id="b"))
    await redis.xtrim(keys.CHANGES, maxlen=1, approximate=False)
    for old in (watch.token, write_token(Position(1, 1))):
        stream = house.contexts.WatchContexts(pb.WatchContextsRequest(tenant="acme", resume_token=old))
        error = await refused(stream.read(), "OUT_OF_RANGE", "RESUME_TOKEN_TOO_OLD")
        assert "list what changed since" in error.message
    for broken in ("x", "AAAA", "-1-2"):
        stream = house.contexts.WatchContexts(pb.WatchContextsRequest(tenant="acme", resume_token=broken))
        await refused(stream.read(), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_too_many_watches_are_refused_and_each_hears_a_heartbeat(
    valkey: Any, open_house: Any, refused: Any
) -> None:
    watch = ContextWatchSection(max_streams=1, heartbeat_interval="50ms")
    async with open_house(valkey, context_watch=watch) as house:
        async with _watch(house) as watched:
            heard = await watched.next()
            assert (len(heard.changes), bool(heard.resume_token)) == (0, True)
            second = house.contexts.WatchContexts(pb.WatchContextsRequest(tenant="acme"))
            await refused(second.read(), "RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES")

        async def opens() -> bool:
            try:
                async with _watch(house):
                    return True
            except Exception:  # noqa: BLE001  # it is refused until the first one's end is noticed
                return False

        while not await opens():
            await asyncio.sleep(0.01)


# --- what no socket is needed for --------------------------------------------------------------------


def _watching(redis: Client, recent: Recent) -> Watching:
    # Without a filter no context is looked at.
    nothing: Any = None
    return Watching(redis, nothing, recent, most=8, heartbeat_s=0.05)


async def test_a_reader_that_falls_behind_is_read_the_stream_again(redis: Client) -> None:
    feeds, recent = Feeds(redis), Recent(most=10)
    watching = _watching(redis, recent)
    async with aclosing(watching.follow(Wish("acme", Filter()), "")) as pages:
        begin = (await anext(pages)).position
        recent.restart(begin)
        # It does not read, while far more comes than anything in memory remembers.
        for first in range(0, 2000, 100):
            await feeds.publish([Touched("acme", f"c{i}", 1) for i in range(first, first + 100)])
            found: Any = await redis.xrevrange(keys.CHANGES, count=100)
            recent.extend(
                [
                    Change(Position.of(identity), Touched("acme", fields[b"context_id"].decode(), 1))
                    for identity, fields in reversed(found)
                ]
            )
        assert recent.after(begin, 1) is None
        told = [one.change async for page in _until(pages, 2000) for one in page.told]
    assert [change.touched and change.touched.context_id for change in told] == [f"c{i}" for i in range(2000)]


async def _until(pages: Any, count: int) -> AsyncIterator[Any]:
    async with asyncio.timeout(10):
        while count > 0:
            page = await anext(pages)
            count -= len(page.told)
            yield page


async def test_what_is_announced_late_does_not_come_after_what_is_newer(redis: Client) -> None:
    feeds, watching = Feeds(redis), _watching(redis, Recent())
    async with aclosing(watching.follow(Wish("acme", Filter()), "")) as pages:
        begin = (await anext(pages)).position
    announced = [
        Touched("acme", "a", 2),
        Touched("acme", "b", 1, "warm"),
        Touched("acme", "a", 4),
        Touched("acme", "b", 1),
        Touched("acme", "a", 3),
        Touched("acme", "a", 4),
        Touched("acme", "a", 5, DELETED),
    ]
    for one in announced:
        await feeds.publish([one])
    entries: Any = await redis.xrange(keys.CHANGES)
    # From wherever one goes on, versions only rise, and the last one comes.
    for resume_at in range(len(announced) + 1):
        token = write_token(begin if resume_at == 0 else Position.of(entries[-8 + resume_at][0]))
        heard = []
        async with aclosing(watching.follow(Wish("acme", Filter()), token)) as pages:
            await anext(pages)
            page = await anext(pages)
            heard = [one.change.touched for one in page.told]
        versions = [one.version for one in heard if one and one.context_id == "a"]
        assert versions == sorted(set(versions))
        if resume_at < 7:
            assert versions[-1] == 5
        if resume_at < 4:
            assert Touched("acme", "b", 1) in heard


async def test_an_empty_redis_is_noticed(redis: Client) -> None:
    feeds, watching = Feeds(redis), _watching(redis, Recent())
    async with aclosing(watching.follow(Wish("acme", Filter()), "")) as pages:
        await anext(pages)
        await redis.delete(keys.CHANGES)
        # No server is emptied and written to again within the millisecond that an entry is named after.
        await asyncio.sleep(0.002)
        await feeds.publish([Touched("acme", "a", 1)])
        with pytest.raises(ServiceError, match="no longer kept"):
            await anext(pages)


def test_recent_changes_are_bounded_and_without_a_hole() -> None:
    recent, told = Recent(most=5), [Change(Position(1, i), None) for i in range(1, 100)]
    assert recent.after(Position(1, 0), 5) is None
    recent.restart(Position(1, 0))
    assert recent.after(Position(1, 0), 5) == []
    for change in told:
        recent.extend([change])
        held = recent.after(Position(1, change.position.number - 1), 5)
        assert held == [change]
    assert recent.after(Position(1, 80), 5) is None
    assert recent.after(Position(1, 95), 3) == told[95:98]
    assert recent.after(Position(1, 99), 3) == []


def test_tokens() -> None:
    position = Position(2**63, 17)
    assert read_token(write_token(position)) == position
    assert read_token("") is None
