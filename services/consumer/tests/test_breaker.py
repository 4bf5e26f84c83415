"""What keeps failing is left alone for a while, and nobody else waits for it."""

import pytest
from webhook_consumer.entry import DONE, Cause, Dead, Failure, Retry
from webhook_consumer.failures.breaker import BreakerPolicy, Breakers, Held, State, Tally
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryPolicy
from webhook_consumer.metrics import breaker_state

POLICY = BreakerPolicy(failures=4, share=0.5, open_s=0.1, longest_open_s=0.3, probes=2, probe_lease_s=0.1)
PATIENT = RetryPolicy(max_retries=1000, base_s=0.005, cap_s=0.02)


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.ms = 1_700_000_000_000

    def __call__(self):
        return self.ms

    def passes(self, seconds):
        self.ms += round(seconds * 1000)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breakers(lab, clock):
    return Breakers(lab.redis, "events", POLICY, clock_ms=clock)


def holds(lab, policy=POLICY):
    return Holds(Breakers(lab.redis, "events", policy), period_s=0.02)


async def opened(breakers, tool="github"):
    await breakers.observe({tool: Tally(bad=4)})


async def test_it_opens_when_enough_failed_and_not_before(breakers):
    assert await breakers.observe({"github": Tally(ok=1, bad=3)}) == (frozenset(), {})
    _, held = await breakers.observe({"github": Tally(bad=1)})
    assert held == {"github": Held(State.OPEN, due=False)}
    # What was begun before it opened changes nothing.
    assert (await breakers.observe({"github": Tally(ok=100)}))[1] == held
    assert await breakers.probe({"github": 5}) == {"github": 0}


async def test_failures_among_many_that_go_well_do_not_open_it(breakers):
    _, held = await breakers.observe({"github": Tally(ok=50, bad=20)})
    assert held == {}
    _, held = await breakers.observe({"github": Tally(bad=60)})
    assert held["github"].state is State.OPEN


async def test_what_says_nothing_of_the_next_event_opens_nothing(lab, breakers):
    mine = holds(lab)
    for _ in range(50):
        mine.failed("github", Dead(Cause.PERMANENT, "no"))
        mine.failed("github", Dead(Cause.UNDECODABLE, "no"))
        for failure in (Failure.RATE_LIMITED, Failure.UNREADABLE, Failure.CONTENDED):
            mine.failed("github", Retry("later", failure=failure))
    await mine.exchange()
    assert await breakers.all() == []
    for _ in range(4):
        mine.failed("github", Retry("away"))
    await mine.exchange()
    assert [one.state for one in await breakers.all()] == [State.OPEN]


async def test_half_open_lets_few_through_and_closes_when_they_do_well(breakers, clock):
    await opened(breakers)
    clock.passes(0.11)
    _, held = await breakers.observe({})
    assert held == {"github": Held(State.OPEN, due=True)}
    assert await breakers.probe({"github": 5, "jira": 7}) == {"github": 2, "jira": 7}
    assert await breakers.probe({"github": 5}) == {"github": 0}
    _, held = await breakers.observe({"github": Tally(ok=1)})
    assert held == {"github": Held(State.HALF_OPEN, due=True)}
    _, held = await breakers.observe({"github": Tally(ok=1)})
    assert held == {}


async def test_a_probe_that_fails_opens_it_for_twice_as_long(breakers, clock):
    await opened(breakers)
    for trips in (2, 3, 4):
        clock.passes(0.31)
        assert await breakers.probe({"github": 1}) == {"github": 1}
        await breakers.observe({"github": Tally(bad=1)})
        [breaker] = await breakers.all()
        assert (breaker.state, breaker.trips) == (State.OPEN, trips)
        assert breaker.until_ms - breaker.since_ms == min(100 * 2 ** (trips - 1), 300)


async def test_a_probe_of_a_process_that_died_is_given_to_another(breakers, clock):
    await opened(breakers)
    clock.passes(0.11)
    assert await breakers.probe({"github": 2}) == {"github": 2}
    assert await breakers.probe({"github": 2}) == {"github": 0}
    clock.passes(0.11)
    assert await breakers.probe({"github": 2}) == {"github": 2}


async def test_a_probe_that_tells_nothing_makes_room_for_the_next(breakers, clock):
    await opened(breakers)
    clock.passes(0.11)
    assert await breakers.probe({"github": 9}) == {"github": 2}
    await breakers.observe({"github": Tally(neither=2)})
    assert await breakers.probe({"github": 9}) == {"github": 2}


async def test_it_forgets_failures_that_are_long_ago(lab, clock):
    breakers = Breakers(lab.redis, "events", BreakerPolicy(failures=4, window_s=0.05), clock_ms=clock)
    await breakers.observe({"github": Tally(bad=3)})
    assert [one.bad for one in await breakers.all()] == [3]
    clock.passes(0.11)
    assert (await breakers.observe({"github": Tally(bad=3)}))[1] == {}
    clock.passes(0.11)
    await breakers.observe({})
    assert await breakers.all() == []


async def test_a_breaker_that_somebody_scribbled_on_counts_as_closed(lab, breakers):
    await lab.redis.hset("breakers:{tools}:events", mapping={"github": "{", "jira": "[]", "slack": "7"})
    assert await breakers.probe({"github": 3, "jira": 2, "slack": 1}) == {"github": 3, "jira": 2, "slack": 1}
    assert (await breakers.observe({"github": Tally(bad=9)}))[1]["github"].state is State.OPEN


async def test_a_clock_that_was_set_back_does_not_keep_it_open(lab, breakers):
    far = '{"state":1,"since":1,"till":99999999999999,"trips":1}'
    await lab.redis.hset("breakers:{tools}:events", "github", far)
    assert (await breakers.observe({}))[1] == {"github": Held(State.OPEN, due=True)}
    assert await breakers.probe({"github": 1}) == {"github": 1}


async def test_an_open_breaker_parks_its_own_tool_and_nobody_else_waits(lab):
    away = True
    tried = []

    def answer(entry):
        if entry.tool != "github":
            return DONE
        tried.append(entry.failures)
        return Retry("the other side fails") if away else DONE

    await lab.publish(40)
    mine = holds(lab)
    handler = lab.handler(answer)
    async with lab.worker(handler, policy=PATIENT, parts={"holds": mine}) as queue:
        await lab.until(lambda: mine.some)
        others = await lab.publish(60, start=40, tool="jira")
        await lab.until(lambda: set(others) <= set(handler.seen))
        # All but those that are being tried.
        await lab.until(lambda: _counts(queue, parked=40 - POLICY.probes))
        assert breaker_state.labels("github", "events")._value.get() in {State.OPEN, State.HALF_OPEN}
        attempts = len(tried)
        away = False
        await lab.until(lab.is_empty)
        await lab.until(lambda: not mine.some)
    assert await lab.dead() == []
    # Put aside forty, and only the ones that were tried have a try less.
    assert len(tried) - attempts < 60
    assert set(handler.seen) == {f"event-{number}" for number in range(100)}
    assert breaker_state.labels("github", "events")._value.get() == State.CLOSED


async def test_what_is_put_aside_has_no_attempt_counted_and_keeps_its_age(lab):
    longer = BreakerPolicy(failures=1, open_s=60.0)
    await opened(Breakers(lab.redis, "events", longer))
    await lab.publish(3, attempt="2")
    [(first_id, _), *_] = await lab.redis.xrange(lab.lane.stream)
    mine = holds(lab, longer)
    await mine.exchange()
    seen = []
    handler = lab.handler(lambda entry: seen.append((entry.failures, entry.fields[b"first_id"])) or DONE)
    async with lab.worker(handler, parts={"holds": mine}) as queue:
        await lab.until(lambda: _counts(queue, parked=3))
        assert (await queue.counts()).oldest_ms is not None
        await lab.redis.delete("breakers:{tools}:events")
        await lab.until(lambda: len(seen) == 3)
    assert seen[0] == (2, first_id)
    assert not await lab.redis.exists(lab.lane.parked, lab.lane.bodies, lab.lane.arrivals)


async def test_a_breaker_outlives_the_process_that_opened_it(lab):
    async def away(entry):
        return Retry("away")

    await lab.publish(20)
    longer = BreakerPolicy(failures=4, open_s=60.0)
    first = holds(lab, longer)
    async with lab.worker(lab.handler(away), policy=PATIENT, crashing=True, parts={"holds": first}):
        await lab.until(lambda: first.some)
    await lab.redis.delete(lab.lane.lease("w-00"))
    heir = lab.handler()
    mine = holds(lab, longer)
    await mine.exchange()
    async with lab.worker(heir, idle_ms=300, parts={"holds": mine}) as queue:
        await lab.until(lambda: _counts(queue, parked=20))
        await lab.publish(5, start=20)
        await lab.until(lambda: _counts(queue, parked=25))
        assert heir.seen == []
        await Breakers(lab.redis, "events", longer).reset("github")
        await lab.until(lab.is_empty)
    assert len(heir.seen) == 25


async def test_tools_without_number_do_not_fill_the_memory(lab):
    mine = holds(lab)
    for number in range(3000):
        mine.failed(f"tool-{number}", Retry("no"))
    assert len(mine._tallies) <= 1000


async def _counts(queue, *, parked):
    return (await queue.counts()).parked >= parked
