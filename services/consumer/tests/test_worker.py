"""At least once, and in one place at a time."""

import asyncio
import os
from dataclasses import replace

import pytest
from webhook_consumer import metrics
from webhook_consumer.entry import DONE, Cause, Dead, Outage, Retry
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.queue.redis import FEW_ENTRIES, START, Delayed, StreamLost
from webhook_consumer.workers.worker import Worker


async def test_what_was_queued_before_the_first_worker_is_worked_on_like_the_rest(lab):
    before = await lab.publish(25)
    handler = lab.handler()
    async with lab.worker(handler):
        await lab.until(lambda: len(handler.seen) == 25)
        after = await lab.publish(25, start=25)
        await lab.until(lab.is_empty)
    assert handler.seen == before + after
    assert max(handler.batches) <= lab.limits.batch


async def test_two_workers_share_the_work_and_do_nothing_twice(lab):
    async def slowly(entry):
        await asyncio.sleep(0.001)
        return DONE

    first, second = lab.handler(slowly), lab.handler(slowly)
    async with lab.worker(first, prefetch=20) as one, lab.worker(second, prefetch=20) as other:
        await lab.until(lambda: bool(one.name and other.name))
        assert {one.name, other.name} == {"w-00", "w-01"}
        published = await lab.publish(400)
        await lab.until(lab.is_empty)
    assert sorted(first.seen + second.seen) == sorted(published)
    assert first.seen
    assert second.seen


async def test_a_crash_between_effect_and_acknowledgement_delivers_once_more(lab):
    await lab.publish(3)
    effects = lab.handler()
    hold = asyncio.Event()

    async def effect_then_crash(entry):
        await hold.wait()
        return DONE

    crashing = lab.handler(effect_then_crash)
    async with lab.worker(crashing, crashing=True):
        await lab.until(lambda: len(crashing.seen) == 3)
    assert await lab.pending() == 3
    # As a new process after the lease of the old one has run out.
    await lab.redis.delete(lab.lane.lease("w-00"))
    async with lab.worker(effects) as queue:
        await lab.until(lab.is_empty)
        assert queue.name == "w-00"
    assert effects.seen == crashing.seen


async def test_what_a_dead_process_held_is_taken_over_when_it_has_been_silent_for_long_enough(lab):
    await lab.publish(30)
    forever = asyncio.Event()

    async def never(entry):
        await forever.wait()

    stuck = lab.handler(never)
    async with lab.worker(stuck, crashing=True, idle_ms=60_000) as dead:
        await lab.until(lambda: bool(stuck.seen))
        await lab.until(lambda: _is(lab.pending(), 30))
        gone = dead.name
    taking_over = lab.handler()
    async with lab.worker(taking_over, idle_ms=300) as queue:
        await lab.until(lab.is_empty)
        assert queue.name != gone
    assert len(taking_over.seen) == 30


async def test_a_living_process_is_not_robbed_however_slow_it_is(lab):
    await lab.publish(30)
    go = asyncio.Event()

    async def slow(entry):
        await go.wait()
        return DONE

    slowly, idle = lab.handler(slow), lab.handler()
    async with lab.worker(slowly, idle_ms=300, prefetch=30):
        await lab.until(lambda: _is(lab.pending(), 30))
        async with lab.worker(idle, idle_ms=300):
            await asyncio.sleep(1.2)
            assert idle.seen == []
            go.set()
            await lab.until(lab.is_empty)
    assert len(slowly.seen) == 30


async def test_a_zombie_settles_nothing_that_another_has_taken_over(lab):
    await lab.publish(3)
    async with lab.queue() as zombie, lab.queue() as heir:
        await zombie.join()
        ids = [entry.id for entry in await zombie.read(10)]
        await heir.join()
        taken = await heir.claim(START, held=[], room=10, idle_ms=0)
        assert [entry.id for entry in taken.entries] == ids
        assert [entry.deliveries for entry in taken.entries] == [2, 2, 2]
        assert await zombie.ack(ids) == ids
        assert await zombie.renew(ids) == ids
        assert await zombie.delay([Delayed(ids[0], 0, 1)]) == ids[:1]
        await zombie.release(ids, 1000)
        assert await lab.pending() == 3
        assert await heir.ack(ids) == []
        assert await lab.is_empty()


async def test_a_zombie_whose_name_was_given_away_settles_nothing(lab):
    await lab.publish(2)
    async with lab.queue() as zombie, lab.queue() as heir:
        await zombie.join()
        ids = [entry.id for entry in await zombie.read(10)]
        await lab.redis.delete(lab.lane.lease("w-00"))
        await heir.join()
        assert heir.name == zombie.name == "w-00"
        assert await zombie.ack(ids) == ids
        assert not await zombie.keep_name()
        found = await heir.claim(START, held=[], room=10)
        assert [entry.id for entry in found.entries] == ids
        await zombie.join()
        assert zombie.name == "w-01"


async def test_a_name_that_is_lost_while_joining_is_replaced(lab, monkeypatch):
    """As after a stop of some seconds: reading and the heartbeat both find out, at the same time."""
    handler = lab.handler()
    async with lab.queue(lease_ms=300) as queue:
        joined, joins = queue.join, []

        async def join():
            await joined()
            joins.append(queue.name)
            if len(joins) == 1:
                await lab.redis.set(lab.lane.lease(queue.name), "another process")
                # The heartbeat comes before this one has told anybody that it has joined.
                await lab.until(lambda: not queue.name)

        # Stopping a process hits this moment once in a few times only.
        monkeypatch.setattr(queue, "join", join)
        async with Worker(queue, handler, replace(lab.limits, idle_ms=300), lab.policy, metrics.EVENTS):
            published = await lab.publish(20)
            await lab.until(lab.is_empty)
            assert joins == ["w-00", "w-01"]
    assert sorted(handler.seen) == sorted(published)
    consumers = await lab.redis.xinfo_consumers(lab.lane.stream, lab.lane.group)
    assert {row["name"] for row in consumers} == {b"w-00", b"w-01"}


async def test_who_has_no_name_neither_reads_nor_takes_anything(lab):
    await lab.publish(1)
    async with lab.queue() as queue, lab.queue() as other:
        await queue.join()
        await lab.redis.set(lab.lane.lease(queue.name), "another process")
        assert not await queue.keep_name()
        for call in (queue.read(1), queue.claim(START, held=[], room=1), queue.ack([b"1-1"])):
            with pytest.raises(StreamLost):
                await call
        await other.join()
        assert len(await other.read(10)) == 1


async def test_a_name_is_held_while_in_use_and_free_after(lab):
    async with lab.worker(lab.handler()) as one:
        await lab.until(lambda: bool(one.name))
        holder = await lab.redis.get(lab.lane.lease("w-00"))
        assert f"/{os.getpid()}/".encode() in holder
    assert not await lab.redis.exists(lab.lane.lease("w-00"))


async def test_the_name_of_a_killed_process_of_this_machine_is_free_at_once(lab):
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()
    async with lab.queue() as queue:
        await queue.join()
        holder = (await lab.redis.get(lab.lane.lease("w-00"))).decode()
        await queue.leave()
    dead = holder.replace(f"/{os.getpid()}/", f"/{process.pid}/")
    await lab.redis.set(lab.lane.lease("w-00"), dead)
    await lab.redis.set(lab.lane.lease("w-01"), f"elsewhere/{process.pid}/aa")
    async with lab.queue() as queue, lab.queue() as other:
        await queue.join()
        await other.join()
        assert (queue.name, other.name) == ("w-00", "w-02")


async def test_a_failure_is_tried_again_with_its_history_until_it_succeeds(lab):
    failures = []

    def twice(entry):
        failures.append((entry.failures, entry.fields.get(b"first_id")))
        return DONE if entry.failures == 2 else Retry("not now")

    await lab.publish(1)
    [(first_id, _)] = await lab.redis.xrange(lab.lane.stream)
    async with lab.worker(lab.handler(twice)):
        await lab.until(lambda: len(failures) == 3)
        await lab.until(lab.is_empty)
    assert failures == [(0, None), (1, first_id), (2, first_id)]
    assert not await lab.redis.exists(lab.lane.delayed, lab.lane.bodies, lab.lane.arrivals)
    assert await lab.dead() == []


async def test_after_the_last_retry_it_is_dead_and_says_why(lab):
    await lab.publish(1, traceparent="00-1-2-01")
    handler = lab.handler(lambda _: Retry("store away"))
    async with lab.worker(handler):
        await lab.until(lambda: _has_dead(lab, 1))
    assert len(handler.seen) == 1 + lab.policy.max_retries
    [letter] = await lab.dead()
    assert letter["cause"] == Cause.EXHAUSTED
    assert letter["detail"] == "store away"
    assert letter["attempt"] == "4"
    assert letter["id"] == "event-0"
    assert letter["traceparent"] == "00-1-2-01"
    assert await lab.is_empty()


async def test_what_is_patient_is_never_given_up(lab):
    await lab.publish(1)
    handler = lab.handler(lambda entry: DONE if entry.failures == 9 else Retry("provider away", patient=True))
    async with lab.worker(handler, policy=RetryPolicy(max_retries=1, base_s=0.001, cap_s=0.01)):
        await lab.until(lab.is_empty)
    assert len(handler.seen) == 10
    assert await lab.dead() == []


async def test_what_cannot_succeed_is_dead_at_once_and_its_neighbours_are_not(lab):
    published = await lab.publish(5)
    handler = lab.handler(
        lambda entry: Dead(Cause.PERMANENT, "no") if entry.fields[b"id"] == b"event-2" else DONE
    )
    async with lab.worker(handler):
        await lab.until(lambda: _has_dead(lab, 1))
        await lab.until(lab.is_empty)
    assert handler.seen == published
    assert [letter["id"] for letter in await lab.dead()] == ["event-2"]


async def test_a_mistake_of_the_handler_costs_one_entry_its_try_and_the_others_nothing(lab):
    def mistake(entry):
        if entry.fields[b"id"] == b"event-3" and not entry.failures:
            raise KeyError("secret of the payload")
        return DONE

    await lab.publish(6)
    handler = lab.handler(mistake)
    async with lab.worker(handler):
        await lab.until(lab.is_empty)
    assert await lab.dead() == []
    assert handler.seen.count("event-3") >= 2


async def test_a_mistake_of_ours_costs_a_batch_its_time_but_the_stage_no_worker(lab, monkeypatch):
    handler, mistakes = lab.handler(), []
    async with lab.worker(handler, idle_ms=300) as queue:
        acknowledged = queue.ack

        async def mistaken(ids):
            if len(mistakes) <= lab.limits.workers:
                mistakes.append(ids)
                raise RuntimeError("not one of those that Redis is known for")
            return await acknowledged(ids)

        # No server can be made to cause what nobody thought of.
        monkeypatch.setattr(queue, "ack", mistaken)
        for number in range(lab.limits.workers + 1):
            await lab.publish(1, start=number)
            await lab.until(lambda told=number: len(mistakes) > told)
        await lab.until(lab.is_empty)
    assert set(handler.seen) == {f"event-{number}" for number in range(lab.limits.workers + 1)}


async def test_an_outage_burns_no_attempts_and_loses_nothing(lab):
    state = {"away": True}

    def away(entry):
        if state["away"]:
            raise Outage("the context store is away")
        return DONE

    published = await lab.publish(150)
    handler = lab.handler(away)
    async with lab.worker(handler, prefetch=50) as queue:
        await lab.until(lambda: len(handler.batches) >= 12)
        counts = await queue.counts()
        # It holds what it may hold, and reads no further.
        assert (counts.waiting, counts.in_flight, counts.delayed, counts.dead) == (100, 50, 0, 0)
        state["away"] = False
        await lab.until(lab.is_empty)
    assert set(handler.seen) == set(published)
    assert await lab.dead() == []


async def test_draining_finishes_what_runs_and_hands_back_what_does_not(lab):
    published = await lab.publish(50)
    go = asyncio.Event()

    async def slow(entry):
        await go.wait()
        return DONE

    handler = lab.handler(slow)
    async with lab.worker(handler, workers=1, batch=10, prefetch=50, block_ms=5000):
        await lab.until(lambda: _is(lab.pending(), 50))
        asyncio.get_running_loop().call_later(0.3, go.set)
    assert handler.seen == published[:10]
    assert await lab.redis.xlen(lab.lane.stream) == 40
    rows = await lab.redis.xpending_range(lab.lane.stream, lab.lane.group, "-", "+", 100)
    assert {row["times_delivered"] for row in rows} == {0}
    assert min(row["time_since_delivered"] for row in rows) >= lab.limits.idle_ms
    heir = lab.handler()
    await lab.redis.set(lab.lane.lease("w-00"), "somebody/1/else")
    async with lab.worker(heir):
        await lab.until(lab.is_empty)
    assert heir.seen == published[10:]


async def test_draining_an_idle_worker_does_not_wait_for_the_read_to_time_out(lab):
    loop = asyncio.get_running_loop()
    async with lab.worker(lab.handler(), block_ms=30_000) as queue:
        await lab.until(lambda: bool(queue.name))
        await asyncio.sleep(0.1)
        started = loop.time()
    assert loop.time() - started < 3


async def test_draining_during_an_outage_hands_everything_back(lab):
    def away(entry):
        raise Outage("away")

    await lab.publish(20)
    handler = lab.handler(away)
    async with lab.worker(handler, workers=1, batch=20):
        await lab.until(lambda: bool(handler.batches))
    rows = await lab.redis.xpending_range(lab.lane.stream, lab.lane.group, "-", "+", 100)
    assert len(rows) == 20
    assert {row["times_delivered"] for row in rows} == {0}


async def test_what_kills_its_worker_again_and_again_is_found_and_its_neighbours_live(lab):
    published = await lab.publish(12)
    await lab.redis.config_resetstat()
    finished: list[str] = []
    crashes = 0
    while not finished or not await lab.is_empty():
        killed = asyncio.Event()

        async def run(entry, killed=killed):
            if entry.fields[b"id"] == b"event-5":
                killed.set()
                await asyncio.Event().wait()
            finished.append(entry.text(b"id"))
            return DONE

        handler = lab.handler(run)
        async with lab.worker(handler, crashing=True, workers=1, batch=12):
            waiting = asyncio.create_task(killed.wait())
            emptied = asyncio.create_task(lab.until(lab.is_empty))
            await asyncio.wait({waiting, emptied}, return_when=asyncio.FIRST_COMPLETED)
            for task in (waiting, emptied):
                task.cancel()
            await asyncio.gather(waiting, emptied, return_exceptions=True)
        await lab.redis.delete(lab.lane.lease("w-00"))
        crashes += 1
        assert crashes < 12
    [letter] = await lab.dead()
    assert (letter["id"], letter["cause"]) == ("event-5", Cause.CRASH_LOOP)
    assert set(finished) == set(published) - {"event-5"}


async def test_a_full_server_loses_nothing_and_work_goes_on_when_there_is_room(own_lab):
    lab = own_lab
    async with lab.queue() as queue:
        await queue.create_group()
    await lab.publish(20)
    handler = lab.handler(lambda entry: DONE if entry.failures else Retry("later"))
    used = (await lab.redis.info("memory"))["used_memory"]
    await lab.redis.config_set("maxmemory", used // 2)
    async with lab.worker(handler):
        await lab.until(lambda: len(handler.seen) >= 20)
        await asyncio.sleep(0.3)
        assert await lab.pending() == 20
        await lab.redis.config_set("maxmemory", 0)
        await lab.until(lab.is_empty)
    assert await lab.dead() == []


@pytest.mark.parametrize("after_s", [0.4])
async def test_who_says_when_to_come_again_is_believed(lab, after_s):
    loop = asyncio.get_running_loop()
    times = []

    def limited(entry):
        times.append(loop.time())
        return DONE if entry.failures else Retry("slow down", after_s=after_s)

    await lab.publish(1)
    async with lab.worker(lab.handler(limited)):
        await lab.until(lab.is_empty)
    assert times[1] - times[0] >= after_s


async def _is(value, expected):
    return await value == expected


async def _has_dead(lab, count):
    return len(await lab.dead()) == count


async def test_a_queue_tells_how_old_its_entries_are_but_for_a_few(lab):
    async with lab.queue() as queue:
        assert await queue.late_s() == 0
        await queue.join()
        await lab.publish(FEW_ENTRIES)
        await asyncio.sleep(0.3)
        assert await queue.late_s() == 0
        await lab.publish(1)
        assert await queue.late_s() < 0.3
        await asyncio.sleep(0.3)
        assert 0.3 <= await queue.late_s() < 10
        # In flight is not done.
        read = await queue.read(FEW_ENTRIES + 1)
        assert await queue.late_s() >= 0.3
        await queue.ack([read[0].id])
        assert await queue.late_s() == 0
