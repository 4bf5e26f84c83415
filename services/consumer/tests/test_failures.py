"""Each kind of failure on its own terms, and no more retries than the work allows."""

import asyncio

import grpc
import pytest
from webhook_consumer.entry import DONE, Cause, Dead, Failure, Outage, Retry
from webhook_consumer.failures import blame
from webhook_consumer.failures.holds import Holds
from webhook_consumer.failures.retry import RetryBudget, RetryPolicy, RetryTerms
from webhook_consumer.metrics import over_budget
from webhook_consumer.policies import breaker_policy, retry_budget, retry_policy
from webhook_consumer.settings import ConsumerSection
from webhook_consumer.workers import handling
from webhook_shared.errors import Internal, InvalidArgument, ResourceExhausted, ServiceError, Unavailable

TERMS = RetryPolicy(3, 1.0, 10.0, {Failure.RATE_LIMITED: RetryTerms(20, 2.0, 300.0)})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_each_kind_of_failure_has_its_own_terms():
    limited = Retry("slow down", failure=Failure.RATE_LIMITED)
    assert TERMS.delay_s(Retry("away"), 4) is None
    assert TERMS.delay_s(limited, 4) is not None
    assert TERMS.delay_s(limited, 20) is not None
    assert TERMS.delay_s(limited, 21) is None
    assert max(TERMS.delay_s(limited, 15) for _ in range(500)) > 200


def test_who_is_beyond_the_budget_waits_for_the_cap_or_as_long_as_was_said():
    delays = [TERMS.delay_s(Retry("away"), 1, hurry=False) for _ in range(500)]
    assert min(delays) >= 5
    assert max(delays) <= 10
    told = Retry("slow down", after_s=600.0, failure=Failure.RATE_LIMITED)
    assert TERMS.delay_s(told, 1, hurry=False) >= 600


def test_the_budget_is_a_share_of_recent_work_and_a_reserve():
    clock = Clock()
    budget = RetryBudget(0.2, 5, 10.0, clock)
    assert [budget.spend("github") for _ in range(7)] == [True] * 5 + [False] * 2
    assert budget.spend("jira")
    budget.earn("github", 50)
    assert sum(budget.spend("github") for _ in range(50)) == 10
    # What was long ago counts no more, neither as work nor as retry.
    clock.now = 11.0
    assert not budget.spend("github")
    clock.now = 40.0
    assert sum(budget.spend("github") for _ in range(50)) == 5


def test_tools_without_number_share_a_budget():
    budget = RetryBudget(0.0, 1, 10.0, Clock())
    spent = sum(budget.spend(f"tool-{number}") for number in range(5000))
    assert spent < 1100
    assert len(budget._retries[0]) < 1100


async def test_retries_beyond_the_budget_are_late_and_not_lost(lab):
    before = over_budget.labels("github", "events")._value.get()
    handler = lab.handler(lambda entry: DONE if entry.failures else Retry("away"))
    published = await lab.publish(12)
    slow = RetryPolicy(3, 0.001, 0.6)
    async with lab.worker(handler, policy=slow, parts={"budget": RetryBudget(0.0, 4, 60.0)}) as queue:
        await lab.until(lambda: len(handler.seen) >= 12)
        await lab.until(lambda: _delayed(queue, 8))
        assert over_budget.labels("github", "events")._value.get() == before + 8
        await lab.until(lab.is_empty)
    assert len(handler.seen) == 24
    assert set(handler.seen) == set(published)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (InvalidArgument("no"), Dead(Cause.PERMANENT, "INVALID_ARGUMENT/FIELD_INVALID: no")),
        (Internal("oops"), Retry("INTERNAL/INTERNAL: oops")),
        (
            Unavailable("STORE_UNREACHABLE", "away", retry_after_s=7.0),
            Retry("UNAVAILABLE/STORE_UNREACHABLE: away", after_s=7.0, failure=Failure.AWAY),
        ),
        (
            ResourceExhausted("BUDGET", "enough", retry_after_s=30.0),
            Retry("RESOURCE_EXHAUSTED/BUDGET: enough", after_s=30.0, failure=Failure.RATE_LIMITED),
        ),
    ],
)
def test_what_an_error_means_for_its_entry(error, outcome):
    assert blame.failure(error) == outcome


async def test_who_is_told_to_wait_does_not_ask_for_halves_of_it():
    calls = []

    async def limited(items):
        calls.append(len(items))
        raise ResourceExhausted("BUDGET", "enough", retry_after_s=3.0)

    results = await blame.each(limited, range(64))
    assert calls == [64]
    assert {result.retry_after_s for result in results} == {3.0}

    async def too_large(items):
        calls.append(len(items))
        if len(items) > 16:
            raise ServiceError(grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED", "message too large")
        return [None] * len(items)

    assert await blame.each(too_large, range(64)) == [None] * 64


async def test_a_handler_that_hangs_costs_its_entry_tries_and_its_neighbours_nothing(lab):
    async def hang(entry):
        if entry.fields[b"id"] == b"event-3":
            await asyncio.Event().wait()
        return DONE

    published = await lab.publish(8)
    handler = lab.handler(hang)
    async with lab.worker(handler, policy=RetryPolicy(1, 0.001, 0.01), handler_s=0.1):
        await lab.until(lambda: _has_dead(lab, 1))
        await lab.until(lab.is_empty)
    [letter] = await lab.dead()
    assert (letter["id"], letter["cause"], letter["attempt"]) == ("event-3", "exhausted", "2")
    assert "did not come to an end" in letter["detail"]
    assert set(handler.seen) == set(published)


async def test_an_entry_that_gets_no_answer_while_others_do_is_to_blame(lab, monkeypatch):
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 0.02)

    def answer(entry):
        if entry.fields[b"id"] == b"event-2":
            raise Outage("the store did not answer in time", is_silence=True)
        return DONE

    async def others(queue):
        for start in range(10, 500, 10):
            await lab.publish(10, start=start)
            await asyncio.sleep(0.01)

    await lab.publish(5)
    handler = lab.handler(answer)
    async with lab.worker(handler, policy=RetryPolicy(0, 0.001, 0.01), workers=2, batch=5) as queue:
        await asyncio.gather(others(queue), lab.until(lambda: _has_dead(lab, 1)))
        await lab.until(lab.is_empty)
    [letter] = await lab.dead()
    assert letter["id"] == "event-2"
    assert "no answer in time while others had theirs" in letter["detail"]


async def test_silence_that_all_meet_is_an_outage_and_nobody_is_to_blame(lab, monkeypatch):
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 0.005)
    state = {"away": True}

    def answer(entry):
        if state["away"]:
            raise Outage("no answer in time", is_silence=True)
        return DONE

    await lab.publish(30)
    handler = lab.handler(answer)
    async with lab.worker(handler):
        await lab.until(lambda: len(handler.batches) > 40)
        state["away"] = False
        await lab.until(lab.is_empty)
    assert await lab.dead() == []


async def test_the_first_answer_after_an_outage_ends_the_wait_of_all(lab, monkeypatch):
    # Whoever waits waits for minutes; only what comes anew is tried at once.
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_BASE_S", 1e6)
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 1e6)
    state = {"away": True}

    def answer(entry):
        if state["away"]:
            raise Outage("away")
        return DONE

    handler = lab.handler(answer)
    async with lab.worker(handler, workers=4, batch=1):
        await lab.publish(3)
        await lab.until(lambda: len(handler.batches) == 3)
        state["away"] = False
        await lab.publish(1, start=3)
        await lab.until(lab.is_empty)
    assert len(handler.batches) == 7


async def test_what_alone_gets_no_answer_is_not_tried_at_each_answer_of_the_others(lab, monkeypatch):
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_BASE_S", 1e6)
    monkeypatch.setattr(handling, "OUTAGE_BACKOFF_CAP_S", 1e6)

    def answer(entry):
        if entry.fields[b"id"] == b"event-0":
            raise Outage("away")
        return DONE

    handler = lab.handler(answer)
    async with lab.worker(handler, workers=2, batch=1):
        await lab.publish(1)
        await lab.until(lambda: bool(handler.batches))
        await lab.publish(30, start=1)
        await lab.until(lambda: len(set(handler.seen)) == 31)
    assert handler.seen.count("event-0") == 2


async def test_what_kept_changing_is_looked_at_again_soon_and_spends_no_budget(lab):
    default = retry_policy(ConsumerSection())
    changing = Retry("it changes", patient=True, failure=Failure.CONTENDED)
    assert all(default.delay_s(changing, 50, hurry=False) <= 5 for _ in range(200))
    before = over_budget.labels("github", "events")._value.get()
    handler = lab.handler(lambda entry: DONE if entry.failures else changing)
    await lab.publish(6)
    async with lab.worker(handler, parts={"budget": RetryBudget(0.0, 0, 60.0)}):
        await lab.until(lab.is_empty)
    assert over_budget.labels("github", "events")._value.get() == before


def test_what_can_not_be_reached_is_outlasted_and_met_again_soon_after():
    default = retry_policy(ConsumerSection())
    away = blame.failure(Unavailable("SHARD_AWAY", "one shard is being replaced"))
    delays = [default.delay_s(away, failures) for failures in range(1, 400)]
    assert max(delays) <= 5
    # Ten minutes at least, where a failure of its own ends after seconds.
    assert sum(delays) > 600
    assert default.delay_s(Retry("oops"), 4) is None


async def test_holds_that_nobody_watches_hold_nothing():
    quiet = Holds()
    quiet.went_well("github", 3)
    quiet.failed("github", Retry("away"))
    await quiet.exchange()
    await quiet.watch()
    assert not quiet.some
    assert quiet.allowances() == {}


def test_the_settings_reach_the_workers():
    consumer = ConsumerSection(
        rate_limited={"max_retries": 7, "backoff_base": "3s", "backoff_cap": "9s"},
        away={"max_retries": 4, "backoff_base": "100ms", "backoff_cap": "2s"},
        retry_budget={"share": 0.5, "reserve": 2, "window": "5s"},
        circuit_breaker={"failure_count": 4, "open_time": "2s", "probe_count": 1},
    )
    assert retry_policy(consumer).terms[Failure.RATE_LIMITED] == RetryTerms(7, 3.0, 9.0)
    assert retry_policy(consumer).terms[Failure.AWAY] == RetryTerms(4, 0.1, 2.0)
    assert [retry_budget(consumer).spend("x") for _ in range(1)] == [True]
    policy = breaker_policy(consumer)
    assert (policy.failures, policy.open_s, policy.probes, policy.share) == (4, 2.0, 1, 0.5)


async def _delayed(queue, count):
    return (await queue.counts()).delayed <= count


async def _has_dead(lab, count):
    return len(await lab.dead()) == count
