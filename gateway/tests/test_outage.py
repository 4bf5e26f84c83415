"""Redis is away: verified events wait on the gateway's disk, and are in the stream once when it is back."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from webhook.security.v1 import admission_pb2 as admission
from webhook_gateway import health
from webhook_gateway.settings import SpoolSection
from webhook_gateway.wiring import running
from webhook_shared import redis as store

SHORT = timedelta(milliseconds=300)
HEALTH = b"GET /health/webhook HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.fixture(autouse=True)
def _health_is_looked_at_anew(monkeypatch):
    monkeypatch.setattr(health, "FRESH_S", 0.05)


@pytest.fixture
def spooled(judge, kit, redis, redis_server, tmp_path):
    """A gateway with a Redis and a spool of its own; may be started again and again."""

    @asynccontextmanager
    async def opened(patience=SHORT, **spool):
        section = SpoolSection(directory=str(tmp_path / "spool"), **spool)
        async with AsyncExitStack() as stack:
            port = await stack.enter_async_context(kit.judging(judge, redis))
            client = store.connect(redis_server.settings)
            stack.push_async_callback(client.aclose)
            settings = kit.settings(
                redis_server.settings, f"127.0.0.1:{port}", publish_timeout=patience, spool=section
            )
            ports = await stack.enter_async_context(running(settings))
            yield kit.House(judge, client, ports)

    return opened


def waiting() -> float | None:
    return REGISTRY.get_sample_value("webhook_spool_events")


async def drained(house, count: int):
    """The events in the stream, once the spool is empty; they must be so many."""
    async with asyncio.timeout(10):
        while waiting():
            await asyncio.sleep(0.02)
    events = await house.events()
    assert len(events) == count
    return events


async def healthy(house, status: str):
    async with asyncio.timeout(5):
        while (reply := await house.ask(HEALTH)).json["status"] != status:
            await asyncio.sleep(0.02)
    return reply


async def test_what_comes_meanwhile_is_accepted_and_drained_in_order(spooled, redis_server, kit):
    async with spooled() as house:
        assert (await house.ask(kit.post(delivery="before"))).status == 202
        redis_server.kill()
        replies = [await house.ask(kit.post(delivery=f"d{i}")) for i in range(5)]
        assert {(reply.status, reply.json["status"]) for reply in replies} == {(202, "accepted")}
        reply = await healthy(house, "degraded")
        assert (reply.status, reply.json["redis"]) == (200, "unreachable")
        assert (reply.json["spool"]["state"], reply.json["spool"]["events"]) == ("filled", 5)
        assert reply.json["spool"]["bytes"] > 5 * 512

        redis_server.start()
        events = await drained(house, 6)
        assert [event[b"id"].decode() for event in events[1:]] == [
            reply.json["event_id"] for reply in replies
        ]
        assert (await healthy(house, "ok")).json["spool"]["state"] == "empty"
        # Sent again: Redis knows what the spool has brought it.
        again = await house.ask(kit.post(delivery="d3"))
        assert again.json == {
            "event_id": replies[3].json["event_id"],
            "status": "duplicate",
            "duplicate": True,
        }


async def test_one_delivery_is_one_promise_before_during_and_after_the_drain(spooled, redis_server, kit):
    async with spooled() as house:
        redis_server.kill()
        first = await house.ask(kit.post())
        for _ in range(3):
            again = await house.ask(kit.post())
            assert (again.json["duplicate"], again.json["event_id"]) == (True, first.json["event_id"])
        redis_server.start()
        await redis_server.answering()
        again = await house.ask(kit.post())
        assert (again.json["duplicate"], again.json["event_id"]) == (True, first.json["event_id"])
        [event] = await drained(house, 1)
        assert event[b"id"].decode() == first.json["event_id"]


async def test_what_redis_had_before_it_went_is_one_event(spooled, redis_server, kit):
    async with spooled() as house:
        first = await house.ask(kit.post())
        redis_server.kill()
        assert (await house.ask(kit.post())).status == 202
        redis_server.start()
        [event] = await drained(house, 1)
        assert event[b"id"].decode() == first.json["event_id"]


async def test_a_redis_that_hangs_keeps_nobody_waiting(spooled, redis_server, kit):
    async with spooled() as house:
        redis_server.send(signal.SIGSTOP)
        await house.ask(kit.post(delivery="first"))
        async with asyncio.timeout(1.5):
            replies = [await house.ask(kit.post(delivery=f"d{i}")) for i in range(20)]
        assert {reply.status for reply in replies} == {202}
        redis_server.send(signal.SIGCONT)
        await drained(house, 21)


async def test_what_waits_survives_the_gateway(spooled, redis_server, kit):
    async with spooled() as house:
        redis_server.kill()
        replies = [await house.ask(kit.post(delivery=f"d{i}")) for i in range(3)]
    redis_server.start()
    await redis_server.answering()
    async with spooled() as house:
        events = await drained(house, 3)
    assert {event[b"id"].decode() for event in events} == {reply.json["event_id"] for reply in replies}


async def test_past_the_bound_senders_are_told_to_come_again(spooled, redis_server, kit):
    async with spooled(max_events=2) as house:
        redis_server.kill()
        statuses = [(await house.ask(kit.post(delivery=f"d{i}"))).status for i in range(3)]
        assert statuses == [202, 202, 503]
        refused = await house.ask(kit.post(delivery="d2"))
        assert int(refused.headers["retry-after"]) >= 10
        assert (await healthy(house, "unavailable")).status == 503
        redis_server.start()
        await drained(house, 2)
        assert (await house.ask(kit.post(delivery="d2"))).status == 202


async def test_a_redis_that_is_full_counts_as_away(spooled, kit):
    async with spooled() as house:
        await house.redis.config_set("maxmemory", "1")
        assert (await house.ask(kit.post(delivery="a"))).status == 202
        assert await house.events() == []
        await house.redis.config_set("maxmemory", "0")
        await drained(house, 1)


async def test_one_event_that_redis_refuses_lets_the_others_pass(spooled, redis_server, kit):
    async with spooled() as house:
        broken = "dedup:{webhook-events}:github-broken"
        await house.redis.lpush(broken, "not a string")
        redis_server.kill()
        for name in ("broken", "good"):
            assert (await house.ask(kit.post(delivery=name))).status == 202
        redis_server.start()
        async with asyncio.timeout(5):
            while waiting() != 1:
                await asyncio.sleep(0.02)
        assert (await house.ask(kit.post(delivery="live"))).status == 202
        assert len(await house.events()) == 2
        assert (await healthy(house, "ok")).json["spool"]["events"] == 1
        await house.redis.delete(broken)
        await drained(house, 3)


async def test_one_disk_is_no_replica(spooled, judge, redis_server, kit):
    judge.durability = admission.DURABILITY_REPLICATED
    async with spooled() as house:
        redis_server.kill()
        # Kept all the same, but promised to nobody; and so is its repetition.
        assert [(await house.ask(kit.post())).status for _ in range(2)] == [503, 503]
        assert (await healthy(house, "degraded")).json["spool"]["events"] == 1


async def test_one_disk_is_a_disk(spooled, judge, redis_server, kit):
    judge.durability = admission.DURABILITY_FSYNCED
    async with spooled() as house:
        redis_server.kill()
        assert (await house.ask(kit.post())).status == 202
        redis_server.start()
        await drained(house, 1)


async def test_a_gateway_that_starts_without_redis_takes_webhooks_too(spooled, redis_server, kit):
    redis_server.kill()
    async with spooled() as house:
        reply = await house.ask(kit.post())
        assert (reply.status, reply.json["status"]) == (202, "accepted")
        assert (await healthy(house, "degraded")).status == 200
        redis_server.start()
        [event] = await drained(house, 1)
        assert event[b"id"].decode() == reply.json["event_id"]


async def test_nothing_is_drained_into_a_redis_that_may_throw_it_away(spooled, redis_server, kit):
    redis_server.kill()
    async with spooled() as house:
        assert (await house.ask(kit.post())).status == 202
        redis_server.start("--maxmemory-policy", "allkeys-lru")
        await redis_server.answering()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await drained(house, 1)
        assert waiting() == 1
    with pytest.raises(RuntimeError, match="maxmemory-policy"):
        async with spooled():
            pass


async def test_without_its_replicas_an_event_is_in_the_stream_but_not_promised(spooled, judge, kit):
    judge.durability = admission.DURABILITY_REPLICATED
    # Redis is there and answers late: it says no after half of that, which must not look like an outage.
    async with spooled(patience=timedelta(seconds=3)) as house:
        # The repetition is a duplicate, and waits as well.
        for _ in range(2):
            reply = await house.ask(kit.post())
            assert (reply.status, reply.headers["retry-after"]) == (503, "2")
        assert len(await house.events()) == 1
        assert not waiting()
        judge.durability = admission.DURABILITY_UNSPECIFIED
        assert (await house.ask(kit.post())).json["duplicate"] is True
