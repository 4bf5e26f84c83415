"""What is answered, kept and healed while security or Redis is away."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from webhook_gateway.wiring import running
from webhook_shared import redis as store

SHORT = timedelta(milliseconds=400)


@pytest.fixture
async def lonely(judge, kit, redis, redis_server):
    """A gateway with a Redis of its own."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(kit.judging(judge, redis))
        client = store.connect(redis_server.settings)
        stack.push_async_callback(client.aclose)
        ports = await stack.enter_async_context(
            running(kit.settings(redis_server.settings, f"127.0.0.1:{port}", publish_timeout=SHORT))
        )
        yield kit.House(judge, client, ports)


async def accepted(house, request: bytes):
    """Deliver again and again until it is taken."""
    async with asyncio.timeout(15):
        while True:
            reply = await house.ask(request)
            if reply.status == 202:
                return reply
            assert reply.status == 503
            await asyncio.sleep(0.05)


def assert_come_again(reply) -> None:
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json == {"error": "unavailable"}


async def test_security_is_away(judge, kit, valkey, redis, unused_tcp_port):
    address = f"127.0.0.1:{unused_tcp_port}"
    async with running(kit.settings(valkey, address, admit_timeout=SHORT)) as ports:
        house = kit.House(judge, redis, ports)
        # Before it has ever named its sources, and never a 404.
        assert_come_again(await house.ask(kit.post()))
        health = await house.ask(b"GET /health/webhook HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (health.status, health.json["security"]) == (503, "unreachable")
        assert (await house.ask(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n")).status == 200

        async with kit.judging(judge, redis, address):
            await accepted(house, kit.post())
        assert_come_again(await house.ask(kit.post(delivery="d-2")))
        async with kit.judging(judge, redis, address):
            await accepted(house, kit.post(delivery="d-2"))
    assert len(await house.events()) == 2


async def test_security_is_slow(house_with, judge, kit):
    async with house_with(admit_timeout=SHORT) as house:
        judge.delay_s = 30
        async with asyncio.timeout(3):
            assert_come_again(await house.ask(kit.post()))
        judge.delay_s = 0
        await accepted(house, kit.post())


async def test_a_queue_behind_a_slow_security_is_turned_away_in_time(house_with, judge, kit):
    # All connections are open before the first one says anything.
    patient = timedelta(minutes=1)
    async with house_with(admit_timeout=SHORT, publish_timeout=SHORT, header_timeout=patient) as house:
        judge.delay_s = 30
        senders = [await house.sender() for _ in range(500)]
        async with asyncio.timeout(5):
            replies = await asyncio.gather(
                *(sender.ask(kit.post(delivery=f"q{i}")) for i, sender in enumerate(senders))
            )
        assert {reply.status for reply in replies} == {503}


async def test_redis_is_away(lonely, redis_server, kit):
    await accepted(lonely, kit.post(delivery="before"))
    redis_server.kill()
    async with asyncio.timeout(3):
        assert_come_again(await lonely.ask(kit.post(delivery="during")))
        # In a long outage nobody waits for the whole patience again.
        assert_come_again(await lonely.ask(kit.post(delivery="during")))
    health = await lonely.ask(b"GET /health/webhook HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (health.status, health.json["redis"]) == (503, "unreachable")

    redis_server.start()
    await redis_server.answering()
    await accepted(lonely, kit.post(delivery="during"))
    assert len(await lonely.events()) == 2


async def test_redis_hangs_for_a_moment_and_nothing_is_published_twice(lonely, redis_server, kit):
    await accepted(lonely, kit.post(delivery="first"))
    for i in range(3):
        redis_server.send(signal.SIGSTOP)
        waiting = asyncio.ensure_future(lonely.ask(kit.post(delivery=f"d{i}")))
        await asyncio.sleep(0.5)
        redis_server.send(signal.SIGCONT)
        await waiting
        await accepted(lonely, kit.post(delivery=f"d{i}"))
    # The attempt that timed out was still in the server's socket: it ran, and so did its repetition.
    assert len(await lonely.events()) == 4


async def test_a_short_outage_costs_nobody_a_refusal(judge, kit, redis, redis_server):
    async with kit.judging(judge, redis) as port:
        settings = kit.settings(
            redis_server.settings, f"127.0.0.1:{port}", publish_timeout=timedelta(seconds=8)
        )
        async with running(settings) as ports:
            house = kit.House(judge, store.connect(redis_server.settings), ports)
            redis_server.stop()
            waiting = asyncio.ensure_future(house.ask(kit.post()))
            await asyncio.sleep(0.2)
            redis_server.start()
            reply = await waiting
            assert (reply.status, reply.json["status"]) == (202, "accepted")
            assert len(await house.events()) == 1
            await house.redis.aclose()


async def test_forgotten_scripts_are_loaded_again(house, kit):
    assert (await house.ask(kit.post(delivery="d-1"))).status == 202
    await house.redis.script_flush()
    assert (await house.ask(kit.post(delivery="d-2"))).json["status"] == "accepted"
    await house.redis.flushall()
    assert (await house.ask(kit.post(delivery="d-2"))).json["status"] == "accepted"
    assert len(await house.events()) == 1


async def test_a_full_redis_is_our_fault_and_heals(lonely, kit):
    await accepted(lonely, kit.post(delivery="before"))
    await lonely.redis.config_set("maxmemory", "1")
    assert_come_again(await lonely.ask(kit.post()))
    await lonely.redis.config_set("maxmemory", "0")
    await accepted(lonely, kit.post())
    assert len(await lonely.events()) == 2


async def test_a_redis_that_may_evict_the_stream_is_refused(judge, kit, redis, redis_server):
    client = store.connect(redis_server.settings)
    await client.config_set("maxmemory-policy", "allkeys-lru")
    await client.aclose()
    with pytest.raises(RuntimeError, match="maxmemory-policy"):
        async with running(kit.settings(redis_server.settings, "127.0.0.1:1")):
            pass
