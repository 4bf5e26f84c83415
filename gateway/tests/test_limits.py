"""What the edge bears: of who is not believed, of connections, of bodies; each limit over real sockets."""

from __future__ import annotations

import asyncio
import resource
import time
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY
from webhook_gateway import limits
from webhook_gateway.limits import Crowd, Disbelief, Room, connections_allowed

LIVE = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
# Of a rate of one per second.
AT_ONCE = 5


def shed(limit: str) -> float:
    return REGISTRY.get_sample_value("webhook_shed_total", {"limit": limit}) or 0


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def bearing(house_with):
    """A house whose senders leave before it closes, so that it waits for none that it has cut off."""

    @asynccontextmanager
    async def opened(**gateway):
        async with house_with(**gateway) as house:
            yield house
            for sender in house.senders:
                sender.close()

    return opened


async def asked_of(house, request: bytes, times: int) -> list[int]:
    return [(await house.ask(request)).status for _ in range(times)]


async def test_a_flood_that_nobody_believes_is_turned_away_at_the_header(bearing, kit):
    async with bearing(unbelieved_rate_limit=1) as house:
        before = shed("sender")
        forged = kit.post(signed="0" * 64)
        assert await asked_of(house, forged, AT_ONCE) == [401] * AT_ONCE
        seen = len(house.judge.seen)
        # More than a second may have passed meanwhile.
        answers = await asked_of(house, forged, 3)
        assert 429 in answers
        sender = await house.sender()
        # The head is enough: nobody waits for the body.
        await sender.send(kit.post(b"x" * 1000, signed="0" * 64)[:-1000])
        reply = await sender.reply()
        assert (reply.status, reply.headers["connection"]) == (429, "close")
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.json == {"error": "too many requests"}
        assert await sender.closed() == b""
        assert len(house.judge.seen) <= seen + 2
        assert shed("sender") >= before + 2


@pytest.mark.parametrize(
    "what",
    [
        "GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
        "rubbish\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
async def test_whatever_is_refused_counts(bearing, kit, what):
    async with bearing(unbelieved_rate_limit=1) as house:
        answers = await asked_of(house, what.encode(), AT_ONCE)
        assert set(answers) <= {400, 404}
        assert 429 in await asked_of(house, what.encode(), 2) + await asked_of(house, kit.post(), 1)
        assert await asked_of(house, LIVE, 1) == [200]


async def test_who_is_believed_is_never_limited(bearing, kit):
    async with bearing(unbelieved_rate_limit=1) as house:
        sender = await house.sender()
        statuses = []
        for number in range(40):
            # Every other one a forgery: those that are believed make up for them.
            good = await sender.ask(kit.post(delivery=f"d-{number}"))
            bad = await sender.ask(kit.post(signed="0" * 64))
            statuses.append((good.status, bad.status))
        assert statuses == [(202, 401)] * 40


async def test_senders_behind_a_proxy_are_told_apart(bearing, kit):
    async with bearing(unbelieved_rate_limit=1, trusted_proxies=("127.0.0.1",)) as house:

        def by(address: str, **how) -> bytes:
            return kit.post(extra=f"X-Forwarded-For: {address}\r\n", **how)

        forged = by("203.0.113.7", signed="0" * 64)
        assert 429 in await asked_of(house, forged, AT_ONCE + 2)
        assert (await house.ask(by("203.0.113.8"))).status == 202
        # Another address of the same IPv6 household is the same sender.
        assert await asked_of(house, by("2001:db8::1", signed="0" * 64), AT_ONCE) == [401] * AT_ONCE
        answers = [(await house.ask(by(f"2001:db8::{n}", signed="0" * 64))).status for n in range(2, 5)]
        assert 429 in answers
        # What can't be read is the proxy's fault, and the proxy is never turned away.
        assert await asked_of(house, b"rubbish\r\n\r\n", AT_ONCE * 2) == [400] * AT_ONCE * 2


async def test_a_limit_may_be_off(bearing, kit):
    async with bearing(unbelieved_rate_limit=0) as house:
        assert await asked_of(house, kit.post(signed="0" * 64), 30) == [401] * 30


def test_time_makes_up_for_it() -> None:
    clock = Clock()
    disbelief = Disbelief(8, clock)
    for _ in range(40):
        assert disbelief.wait_s("192.0.2.1") == 0
        disbelief.disbelieved("192.0.2.1")
    assert disbelief.wait_s("192.0.2.1") == 0.125
    assert disbelief.wait_s("192.0.2.2") == 0
    clock.now_s += 0.125
    assert disbelief.wait_s("192.0.2.1") == 0
    # To be believed makes up for what was refused, and for no more than that.
    for _ in range(100):
        disbelief.believed("192.0.2.1")
    for _ in range(41):
        disbelief.disbelieved("192.0.2.1")
    assert disbelief.wait_s("192.0.2.1") > 0


def test_many_senders_are_remembered_within_bounds(monkeypatch) -> None:
    monkeypatch.setattr(limits, "MOST_SENDERS", 100)
    disbelief = Disbelief(1, Clock())
    for _ in range(10):
        disbelief.disbelieved("192.0.2.1")
    for number in range(150):
        disbelief.disbelieved(f"10.0.0.{number}")
    # One generation later it is not forgotten, and is remembered anew.
    assert disbelief.wait_s("192.0.2.1") == 6
    disbelief.disbelieved("192.0.2.1")
    for number in range(1000):
        disbelief.disbelieved(f"10.0.{number % 250}.{number}")
        assert len(disbelief._even_s) + len(disbelief._before) <= 200


async def test_one_sender_has_so_many_connections(bearing, kit):
    async with bearing(max_connections_per_address=3) as house:
        before = shed("sender_connections")
        senders = [await house.sender() for _ in range(3)]
        for sender in senders:
            assert (await sender.ask(LIVE)).status == 200
        extra = await house.sender()
        assert (await extra.reply()).status == 429
        assert await extra.closed() == b""
        assert shed("sender_connections") == before + 1
        senders[0].close()
        await taken(house)
        assert (await senders[1].ask(kit.post())).status == 202


async def taken(house) -> None:
    """Connect again and again until there is room."""
    async with asyncio.timeout(5):
        while (await house.ask(LIVE)).status != 200:
            await asyncio.sleep(0.01)


async def test_a_proxy_has_as_many_as_it_needs(bearing):
    async with bearing(max_connections_per_address=1, trusted_proxies=("127.0.0.0/8",)) as house:
        for sender in [await house.sender() for _ in range(5)]:
            assert (await sender.ask(LIVE)).status == 200


async def test_all_together_have_so_many_connections(bearing):
    async with bearing(max_connections=4) as house:
        before = shed("connections")
        senders = [await house.sender() for _ in range(4)]
        for sender in senders:
            assert (await sender.ask(LIVE)).status == 200
        extra = await house.sender()
        reply = await extra.reply()
        assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (
            503,
            "1",
            "close",
        )
        assert await extra.closed() == b""
        assert shed("connections") == before + 1
        assert (await senders[3].ask(LIVE)).status == 200
        senders[0].close()
        await taken(house)


def test_a_crowd_counts_both_ways() -> None:
    crowd = Crowd(10, 2)
    for _ in range(2):
        crowd.enter("2001:db8::1")
    assert crowd.has_enough_of("2001:db8::2")
    assert not crowd.has_enough_of("2001:db8:0:1::1")
    crowd.leave("2001:db8::1")
    crowd.leave("2001:db8::1")
    assert (crowd.size, crowd._by_sender) == (0, {})


async def test_bodies_have_so_much_room(bearing, kit):
    async with bearing(max_body_memory=300_000) as house:
        before = shed("bodies")
        body = b'"' + b"x" * 200_000 + b'"'
        holder, other = await house.sender(), await house.sender()
        await holder.send(kit.post(body)[:-1])
        await asyncio.sleep(0.05)
        await other.send(kit.post(body))
        reply = await other.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert shed("bodies") == before + 1
        # A small one fits still, and the one that was there first is finished.
        assert (await house.ask(kit.post(delivery="small"))).status == 202
        assert (await holder.ask(body[-1:])).status == 202
        assert (await house.ask(kit.post(body, delivery="after"))).status == 202


async def test_all_room_comes_back(bearing, kit):
    async with bearing(max_body_memory=300_000, body_timeout=timedelta(milliseconds=200)) as house:
        body = b'"' + b"x" * 200_000 + b'"'
        whole = kit.post(body, signed="0" * 64)
        for number in range(5):
            # Believed, refused, too large, left in the middle, too slow.
            assert (await house.ask(kit.post(body, delivery=f"d-{number}"))).status == 202
            assert (await house.ask(whole)).status == 401
            assert (await house.ask(kit.chunked(b"x" * 290_000, 4096))).status == 413
            leaver = await house.sender()
            await leaver.send(whole[:-1])
            await asyncio.sleep(0.02)
            leaver.writer.transport.abort()
            await asyncio.sleep(0.02)
        slow = await house.sender()
        await slow.send(whole[:-1])
        assert (await slow.reply()).status == 408
        # Pipelined ones, of which the second is read only when the first is answered.
        pair = await house.sender()
        await pair.send(kit.post(b'"a"', delivery="one") + kit.post(b'"b"', delivery="two"))
        assert [(await pair.reply()).status for _ in range(2)] == [202, 202]
        assert (await house.ask(kit.post(body, delivery="last"))).status == 202


def test_room_is_given_once() -> None:
    room = Room(10)
    assert room.take(10)
    assert not room.take(1)
    room.give_back(10)
    assert room.free_bytes == 10


async def test_slow_senders_by_the_hundred_are_rid_of_in_time(bearing, kit):
    allowed = timedelta(seconds=1)
    async with bearing(header_timeout=allowed, body_timeout=allowed) as house:
        beginnings = [b"", b"POST /webhooks/github HTTP/1.1\r\nHost:", kit.post(b"x" * 500)[:-400]]

        async def begun(number: int) -> Any:
            sender = await house.sender()
            with suppress(ConnectionError):
                await sender.send(beginnings[number % 3])
            return sender

        slow = await asyncio.gather(*(begun(number) for number in range(300)))
        started_s = time.monotonic()

        async def rid_of(sender: Any) -> bytes:
            # Whose first bytes come when its second is over, on a busy machine, finds the door shut.
            with suppress(ConnectionResetError):
                return await sender.closed(20)
            return b""

        async def answers() -> list[float]:
            took = []
            for number in range(20):
                asked_s = time.monotonic()
                assert (await house.ask(kit.post(delivery=f"d-{number}"))).status == 202
                took.append(time.monotonic() - asked_s)
            return took

        took, *ends = await asyncio.gather(answers(), *map(rid_of, slow))
        assert time.monotonic() - started_s < 10
        assert {end[:12] for end in ends} == {b"", b"HTTP/1.1 408"}
        # Half of the others notice nothing while three hundred hang.
        assert sorted(took)[10] < 0.5


def test_more_open_files_are_asked_for(monkeypatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: asked.append(both))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert connections_allowed(500) == 500
    assert asked == []
    assert connections_allowed(2000) == 2000
    assert asked == [(2256, 4096)]
    assert connections_allowed(10_000) == 4096 - limits.SPARE_FILES
    assert (soft, hard) != (0, 0)
