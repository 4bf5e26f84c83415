"""Pausing a tool, draining the queue, and knowing where each tool's events are."""

import asyncio
import os
import signal
import sys
from collections import Counter

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from webhook.consumer.v1 import consumer_admin_service_pb2 as messages
from webhook_consumer.admin.tools import MOST_SAMPLED, Tools
from webhook_consumer.dead_letters.letters import DeadLetters
from webhook_consumer.entry import DONE, Cause, Dead, Retry
from webhook_consumer.failures.breaker import PAUSES, BreakerPolicy, Breakers, Tally
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.metrics import tool_paused
from webhook_consumer.queue.redis import START
from webhook_shared.errors import from_rpc_error

from services.consumer.tests.test_admin import admin


def holds(lab):
    return Holds(Breakers(lab.redis, "events", BreakerPolicy()), period_s=0.02)


def tools(lab):
    breakers = [Breakers(lab.redis, "events", BreakerPolicy())]
    return Tools(lab.redis, [lab.lane], breakers, DeadLetters(lab.redis, [lab.lane]))


async def test_a_paused_tool_waits_and_the_others_do_not(lab):
    mine = holds(lab)
    await tools(lab).pause("github", "they deploy")
    await mine.exchange()
    github, jira = await lab.publish(120), await lab.publish(30, start=120, tool="jira")
    handler = lab.handler()
    async with lab.worker(handler, parts={"holds": mine}) as queue:
        await lab.until(lambda: _is(_left(queue), (0, 0, 120)))
        assert await _parked(queue, 120)
        assert sorted(handler.seen) == sorted(jira)
        assert tool_paused.labels("github")._value.get() == 1
        started = asyncio.get_running_loop().time()
        await tools(lab).resume("github")
        await lab.until(lab.is_empty)
        assert asyncio.get_running_loop().time() - started < 2
    assert sorted(handler.seen) == sorted(github + jira)
    await mine.exchange()
    assert tool_paused.labels("github")._value.get() == 0


async def test_a_pause_holds_what_is_tried_again_and_outlives_every_process(lab):
    handler = lab.handler(lambda entry: DONE if entry.failures else Retry("not now"))
    await lab.publish(3)
    first = holds(lab)
    async with lab.worker(handler, policy=RetryPolicy(3, 0.2, 0.2), parts={"holds": first}) as queue:
        await lab.until(lambda: len(handler.seen) == 3)
        await tools(lab).pause("github", "")
        await lab.until(lambda: _parked(queue, 3))
    mine = holds(lab)
    await mine.exchange()
    async with lab.worker(handler, parts={"holds": mine}) as queue:
        await lab.publish(3, start=3)
        await lab.until(lambda: _parked(queue, 6))
        assert len(handler.seen) == 3
        await tools(lab).resume("github")
        await lab.until(lab.is_empty)
    # Having been put aside costs no try.
    assert await lab.dead() == []
    assert handler.seen.count("event-0") == 2


async def test_what_was_put_aside_stays_when_the_server_restarts(own_lab):
    lab = own_lab
    await lab.redis.config_set("appendfsync", "always")
    await tools(lab).pause("github", "")
    mine = holds(lab)
    await mine.exchange()
    published = await lab.publish(20)
    handler = lab.handler()
    async with lab.worker(handler, parts={"holds": mine}) as queue:
        await lab.until(lambda: _parked(queue, 20))
        lab.server.kill()
        lab.server.start()
        await lab.server.answering()
        await lab.until(lambda: _parked(queue, 20))
        await tools(lab).resume("github")
        await lab.until(lab.is_empty)
    assert sorted(handler.seen) == sorted(published)


async def test_a_full_server_loses_nothing_that_is_to_be_put_aside(own_lab):
    lab = own_lab
    await tools(lab).pause("github", "")
    mine = holds(lab)
    await mine.exchange()
    await lab.publish(20)
    used = (await lab.redis.info("memory"))["used_memory"]
    handler = lab.handler()
    async with lab.queue() as early:
        await early.create_group()
    await lab.redis.config_set("maxmemory", used // 2)
    async with lab.worker(handler, parts={"holds": mine}) as queue:
        await lab.until(lambda: _is(lab.pending(), 20))
        await asyncio.sleep(0.1)
        assert await lab.redis.xlen(lab.lane.stream) == 20
        await lab.redis.config_set("maxmemory", 0)
        await lab.until(lambda: _parked(queue, 20))
    assert handler.seen == []


async def test_what_is_put_aside_comes_back_though_the_stream_is_never_empty(lab):
    async with lab.queue() as queue:
        await queue.join()
        await lab.publish(30, tool="jira")
        assert await queue.park(await queue.read(30)) == []
        await lab.publish(100)
        assert await queue.unpark(500, {}, wanted=50, least=7) == 7
        assert await queue.unpark(500, {}, wanted=110, least=1) == 3
        assert await queue.unpark(500, {"jira": 0}, wanted=1000, least=50) == 0
        assert await queue.unpark(500, {"jira": 4}, wanted=1000, least=50) == 4
        assert await queue.unpark(500, {}, wanted=1000, least=50) == 16
        assert await queue.unpark(500, {}, wanted=1000, least=50) == 0


async def test_tools_come_back_alike(lab):
    async with lab.queue() as queue:
        await queue.join()
        for at, tool in enumerate(("github", "jira", "sla", "slack")):
            await lab.publish(40 if tool == "github" else 10, start=100 * at, tool=tool)
        await queue.park(await queue.read(100))
        assert await queue.unpark(40, {"jira": 2}, wanted=1000, least=0) == 32
        rows = await lab.redis.xrange(lab.lane.stream)
    came = Counter(fields[b"tool"] for _, fields in rows)
    assert came == {b"github": 10, b"jira": 2, b"sla": 10, b"slack": 10}


async def test_a_zombie_puts_nothing_aside(lab):
    await lab.publish(3)
    async with lab.queue() as zombie, lab.queue() as heir:
        await zombie.join()
        entries = await zombie.read(10)
        await heir.join()
        await heir.claim(START, held=[], room=10, idle_ms=0)
        assert await zombie.park(entries) == [entry.id for entry in entries]
        assert await lab.pending() == 3


async def test_the_backlog_of_each_tool_is_known(lab):
    def answer(entry):
        return {"jira": Dead(Cause.PERMANENT, "no"), "slack": Retry("later")}.get(entry.tool, DONE)

    await tools(lab).pause("github", "they deploy")
    mine = holds(lab)
    await mine.exchange()
    for tool, count in (("github", 4), ("jira", 3), ("slack", 2)):
        await lab.publish(count, tool=tool)
    slow = RetryPolicy(3, 1000.0, 1000.0)
    async with lab.worker(lab.handler(answer), policy=slow, parts={"holds": mine}) as queue:
        await lab.until(lambda: _is(lab.pending(), 0))
        await lab.until(lambda: _parked(queue, 4))
    await lab.publish(5, tool="gitlab")
    async with lab.queue() as queue:
        await queue.join()
        await queue.read(2)
        found = {one.tool: one for one in await tools(lab).backlog()}
    assert (found["github"].parked, found["github"].delayed) == (4, 4)
    assert (found["jira"].dead, found["jira"].oldest_ms) == (3, None)
    assert (found["slack"].delayed, found["slack"].parked) == (2, 0)
    assert (found["gitlab"].waiting, found["gitlab"].in_flight) == (3, 2)
    assert 0 <= found["slack"].oldest_ms < 60_000
    assert not any(one.estimated for one in found.values())


async def test_the_backlog_of_a_long_queue_is_estimated_and_says_so(lab):
    async with lab.redis.pipeline(transaction=False) as pipeline:
        for number in range(4000):
            pipeline.xadd(lab.lane.stream, {"id": str(number), "tool": "jira" if number % 4 else "github"})
        await pipeline.execute()
    async with lab.queue() as queue:
        await queue.create_group()
    found = {one.tool: one for one in await tools(lab).backlog()}
    assert sum(one.waiting for one in found.values()) == 4000
    assert abs(found["github"].waiting - 1000) < MOST_SAMPLED // 10
    assert found["github"].estimated


async def test_what_was_silent_for_long_is_taken_over_when_somebody_says_so(lab):
    await lab.publish(50)
    async with lab.queue() as gone:
        await gone.join()
        await gone.read(50)
        # It still has its name, and is no zombie: it is merely never heard of again.
        assert await gone.abandon(60_000, 60_000) == 0
        await asyncio.sleep(0.05)
        handler = lab.handler()
        async with lab.worker(handler, idle_ms=60_000) as queue:
            await lab.until(lambda: bool(queue.name))
            assert await queue.abandon(40, 60_000) == 50
            await lab.until(lab.is_empty)
    assert len(handler.seen) == 50


async def test_a_drained_queue_reads_nothing_and_finishes_what_it_has(lab):
    mine = holds(lab)
    go = asyncio.Event()

    async def slow(entry):
        await go.wait()
        return DONE

    handler = lab.handler(slow)
    early = await lab.publish(20)
    async with lab.worker(handler, parts={"holds": mine}):
        await lab.until(lambda: _is(lab.pending(), 20))
        await tools(lab).drain()
        await lab.until(lambda: mine.is_draining)
        go.set()
        await lab.until(lambda: _is(lab.pending(), 0))
        # One read may have begun before.
        await asyncio.sleep(0.25)
        late = await lab.publish(10, start=20)
        await asyncio.sleep(0.15)
        assert handler.seen == early
        assert await lab.redis.xlen(lab.lane.stream) == 10
        assert await tools(lab).flow()
        await lab.until(lab.is_empty)
    assert handler.seen == early + late
    assert not await tools(lab).flow()


async def test_a_worker_that_is_drained_ends_as_soon_as_another(lab):
    await tools(lab).drain()
    mine = holds(lab)
    await mine.exchange()
    started = asyncio.get_running_loop().time()
    async with lab.worker(lab.handler(), parts={"holds": mine}):
        await lab.publish(1)
    assert asyncio.get_running_loop().time() - started < 1


async def test_operators_pause_and_resume_see_and_reset(town):
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer() as running,
        admin(town, running) as stub,
    ):
        paused = await stub.PauseTool(messages.PauseToolRequest(tool="github", note="they deploy"))
        again = await stub.PauseTool(messages.PauseToolRequest(tool="github", note="me too"))
        assert again.pause == paused.pause
        await asyncio.sleep(0.6)
        for number in range(5):
            await town.send(number)

        async def parked():
            [events, _] = (await stub.GetBacklog(messages.GetBacklogRequest())).stages
            return (events.parked_count, events.delayed_count) == (5, 5)

        await town.until(parked)
        [tool] = (await stub.ListTools(messages.ListToolsRequest())).tools
        assert (tool.tool, tool.parked_count, tool.pause.note) == ("github", 5, "they deploy")
        assert tool.pause.pause_time.ToMilliseconds() > 0
        assert tool.breaker_state == messages.CIRCUIT_BREAKER_STATE_CLOSED
        await stub.ResumeTool(messages.ResumeToolRequest(tool="github"))
        await town.until(town.is_empty)
        await Breakers(town.redis, "events", BreakerPolicy()).observe({"jira": Tally(bad=10)})
        await Breakers(town.redis, "enrichment", BreakerPolicy()).observe({"jira": Tally(bad=3)})
        listed = (await stub.ListCircuitBreakers(messages.ListCircuitBreakersRequest())).breakers
        assert [(one.stage, one.tool, one.state) for one in listed] == [
            ("events", "jira", messages.CIRCUIT_BREAKER_STATE_OPEN),
            ("enrichment", "jira", messages.CIRCUIT_BREAKER_STATE_CLOSED),
        ]
        assert listed[0].probe_time.ToMilliseconds() - listed[0].change_time.ToMilliseconds() == 10_000
        reset = await stub.ResetCircuitBreaker(messages.ResetCircuitBreakerRequest(tool="jira"))
        assert len(reset.breakers) == 2
        answer = await stub.ListCircuitBreakers(messages.ListCircuitBreakersRequest())
        assert not answer.breakers
        for call, reason in (
            (stub.ResumeTool(messages.ResumeToolRequest(tool="github")), "TOOL_NOT_PAUSED"),
            (
                stub.ResetCircuitBreaker(messages.ResetCircuitBreakerRequest(tool="jira")),
                "CIRCUIT_BREAKER_NOT_FOUND",
            ),
            (stub.PauseTool(messages.PauseToolRequest(tool="*")), "FIELD_INVALID"),
            (stub.PauseTool(messages.PauseToolRequest(tool="")), "FIELD_INVALID"),
            (stub.PauseTool(messages.PauseToolRequest(tool="a\x1fb")), "FIELD_INVALID"),
            (stub.PauseTool(messages.PauseToolRequest(tool="a", note="x" * 201)), "FIELD_INVALID"),
            (stub.ResumeQueue(messages.ResumeQueueRequest()), "QUEUE_NOT_DRAINED"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert from_rpc_error(refused.value).reason == reason
    assert len(town.contexts.events()) == 5


async def test_operators_claim_and_drain(town):
    async with (
        town.context_store(),
        town.understanding(),
        town.consumer(claim_idle_time="3s") as running,
        admin(town, running) as stub,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ClaimPending(messages.ClaimPendingRequest(idle_time=Duration(nanos=999_000_000)))
        assert from_rpc_error(refused.value).fields.keys() == {"idle_time"}
        claimed = await stub.ClaimPending(messages.ClaimPendingRequest(idle_time=Duration(seconds=300)))
        assert [(one.stage, one.claimed_count) for one in claimed.stages] == [
            ("events", 0),
            ("enrichment", 0),
        ]
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ClaimPending(
                messages.ClaimPendingRequest(idle_time=Duration(seconds=300), stage="attic")
            )
        told = [one async for one in stub.DrainQueue(messages.DrainQueueRequest())]
        assert told[-1].drained
        assert (await stub.GetBacklog(messages.GetBacklogRequest())).draining
        await stub.ResumeQueue(messages.ResumeQueueRequest())
        await town.send(1)
        await town.until(town.is_empty)
    assert len(town.contexts.events()) == 1
    assert not await town.redis.exists(PAUSES)


async def test_the_watchdog_ends_a_process_whose_loop_stands_still_and_no_other():
    program = """
import asyncio, sys
from webhook_consumer.workers.watchdog import Watchdog
async def main():
    async with Watchdog(0.3).watching():
        print("well", flush=True)
        await asyncio.sleep(0.7)
        while sys.argv[1] == "spin":
            pass
asyncio.run(main())
"""
    pipe = asyncio.subprocess.PIPE
    spins, sleeps = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, kind, stdout=pipe, stderr=pipe)
        for kind in ("spin", "sleep")
    ]
    for process in (spins, sleeps):
        assert await process.stdout.readline() == b"well\n"
    # Stopped as a whole for longer than that it is well when it goes on.
    os.kill(sleeps.pid, signal.SIGSTOP)
    _, err = await asyncio.wait_for(spins.communicate(), 20)
    os.kill(sleeps.pid, signal.SIGCONT)
    assert spins.returncode == 70
    assert b"stands still" in err
    assert b"in main" in err
    _, err = await asyncio.wait_for(sleeps.communicate(), 20)
    assert (sleeps.returncode, err) == (0, b"")


async def _left(queue):
    counts = await queue.counts()
    return counts.waiting, counts.in_flight, counts.delayed


async def _parked(queue, count):
    return (await queue.counts()).parked == count


async def _is(value, expected):
    return await value == expected
