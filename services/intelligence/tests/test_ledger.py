"""Tokens and money: kept, and refused before they are spent."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_intelligence.costs.budgets import Budget, Budgets, Spent, take
from webhook_intelligence.costs.ledger import Entry, Ledger, Payer
from webhook_intelligence.costs.prices import NANO, Price, Prices, Usage
from webhook_intelligence.costs.tokens import Calibration
from webhook_shared.errors import Unavailable
from webhook_shared.redis import Client, connect
from webhook_shared.settings import RedisSection

MODEL = "gpt-test"
# A token sent costs a thousandth of a dollar, a token made twice that.
PRICES = Prices({MODEL: Price(1000.0, 2000.0)})
ACME = Payer("acme", "embed")
NOON = dt.datetime(2026, 11, 23, 12, tzinfo=dt.UTC)


class Clock:
    now = NOON

    def __call__(self) -> dt.datetime:
        return self.now


@asynccontextmanager
async def books(
    redis: RedisSection, budget: Budget | None = None, *, clock: Clock | None = None, **tenants: Budget
) -> AsyncIterator[Ledger]:
    client = connect(redis)
    async with Ledger(client, PRICES, Budgets(budget or Budget(), tenants), now=clock or Clock()) as ledger:
        yield ledger
    await client.aclose()


async def spend(ledger: Ledger, payer: Payer, tokens: int) -> bool:
    reservation = await ledger.reserve(payer, MODEL, [Usage(tokens)])
    if reservation.admitted[0]:
        ledger.settle(reservation, Usage(tokens))
    return reservation.admitted[0]


async def test_what_is_spent_outlives_the_process(valkey: RedisSection) -> None:
    async with books(valkey) as ledger:
        await spend(ledger, ACME, 1000)
        await spend(ledger, ACME, 500)
        reservation = await ledger.reserve(Payer("acme", "summarize"), MODEL, [Usage(10, 10)])
        ledger.settle(reservation, Usage(20, 30))
        await spend(ledger, Payer("globex", "embed"), 7)
    async with books(valkey) as ledger:
        assert await ledger.entries("acme", 1) == [
            Entry(NOON.date(), MODEL, "embed", Usage(1500), 1_500 * NANO // 1000),
            Entry(NOON.date(), MODEL, "summarize", Usage(20, 30), 80 * NANO // 1000),
        ]
        assert (await ledger.spent("acme")).day == 1_580 * NANO // 1000
        assert (await ledger.spent("globex")).tokens == 7


async def test_a_budget_holds_item_by_item(valkey: RedisSection) -> None:
    async with books(valkey, Budget(daily_usd=1.0)) as ledger:
        reservation = await ledger.reserve(ACME, MODEL, [Usage(600), Usage(600), Usage(400), Usage(1)])
        assert reservation.admitted == (True, False, True, False)
        assert await ledger.spent("acme") == Spent(NANO, NANO, 1000)


async def test_what_was_set_aside_and_not_used_is_given_back(valkey: RedisSection) -> None:
    async with books(valkey, Budget(daily_usd=1.0)) as ledger:
        reservation = await ledger.reserve(ACME, MODEL, [Usage(900)])
        assert not await spend(ledger, ACME, 200)
        ledger.settle(reservation, Usage(0))
        await ledger.write()
        assert await spend(ledger, ACME, 900)


async def test_many_processes_together_keep_the_budget(valkey: RedisSection) -> None:
    budget = Budget(daily_usd=1.0)
    async with books(valkey, budget) as one, books(valkey, budget) as other:
        outcomes = await asyncio.gather(
            *(spend(ledger, ACME, 10) for _ in range(100) for ledger in (one, other))
        )
    assert sum(outcomes) == 100


async def test_one_tenant_can_not_spend_what_is_anothers(valkey: RedisSection) -> None:
    async with books(valkey, Budget(daily_usd=1.0), rich=Budget(daily_usd=100.0)) as ledger:
        assert not await spend(ledger, ACME, 1001)
        assert await spend(ledger, Payer("rich", "embed"), 1001)
        assert await spend(ledger, ACME, 1000)
        assert await spend(ledger, Payer("globex", "embed"), 1000)


async def test_tomorrow_is_another_day_but_not_another_month(valkey: RedisSection) -> None:
    clock = Clock()
    async with books(valkey, Budget(daily_usd=1.0, monthly_usd=1.5), clock=clock) as ledger:
        assert await spend(ledger, ACME, 1000)
        assert not await spend(ledger, ACME, 1)
        clock.now = NOON + dt.timedelta(days=1)
        assert not await spend(ledger, ACME, 501)
        assert await spend(ledger, ACME, 500)
        clock.now = NOON + dt.timedelta(days=10)
        assert await spend(ledger, ACME, 1000)
        days = [entry.day for entry in await ledger.entries("acme", 30)]
        assert days == [(NOON + dt.timedelta(days=days)).date() for days in (10, 1, 0)]


async def test_tokens_have_a_budget_too(valkey: RedisSection) -> None:
    async with books(valkey, Budget(daily_tokens=100)) as ledger:
        free = await ledger.reserve(ACME, "a model without a price", [Usage(60), Usage(60)])
        assert free.admitted == (True, False)


async def test_without_a_budget_nothing_is_asked_of_redis(redis_server: Any) -> None:
    async with books(redis_server.settings) as ledger:
        redis_server.kill()
        assert await spend(ledger, ACME, 10**9)
        with pytest.raises(Unavailable, match="ledger"):
            await ledger.spent("acme")
        redis_server.start()
        await redis_server.answering()


async def test_while_redis_is_away_budgets_hold_and_nothing_is_forgotten(redis_server: Any) -> None:
    async with books(redis_server.settings, Budget(daily_usd=1.0)) as ledger:
        assert await spend(ledger, ACME, 400)
        assert await ledger.write()
        redis_server.kill()
        assert await spend(ledger, ACME, 400)
        assert not await spend(ledger, ACME, 400)
        assert not await ledger.write()
        redis_server.start()
        await redis_server.answering()
        assert await ledger.write()
        assert (await ledger.spent("acme")).tokens == 800
        assert not await spend(ledger, ACME, 400)
        assert await spend(ledger, ACME, 200)
    async with books(redis_server.settings) as ledger:
        ((entry),) = await ledger.entries("acme", 1)
        assert entry.usage == Usage(1000)


async def test_estimates_learn_from_what_is_billed(valkey: RedisSection) -> None:
    async with books(valkey) as ledger:
        for _ in range(60):
            reservation = await ledger.reserve(ACME, MODEL, [Usage(100)])
            ledger.settle(reservation, Usage(150))
        assert ledger.calibration.expected(MODEL, Usage(1000)).input_tokens == pytest.approx(1500, abs=10)
    async with books(valkey, Budget(daily_tokens=10**6)) as ledger:
        async with asyncio.timeout(5):
            while ledger.calibration.expected(MODEL, Usage(100)) == Usage(100):
                await asyncio.sleep(0)
        reservation = await ledger.reserve(ACME, MODEL, [Usage(100)])
        assert reservation.tokens == pytest.approx(150, abs=2)


def test_a_bill_that_is_absurd_does_not_spoil_the_estimates() -> None:
    calibration = Calibration()
    for _ in range(100):
        calibration.learn(MODEL, Usage(100), Usage(10**9))
    assert calibration.expected(MODEL, Usage(100)).input_tokens <= 500
    calibration = Calibration()
    calibration.restore({f"in|{MODEL}": "rubbish", "in|other": "1e9"})
    assert calibration.expected(MODEL, Usage(100)) == Usage(100)


async def test_names_with_separators_in_them_stay_apart(valkey: RedisSection) -> None:
    async with books(valkey) as ledger:
        for model in ("a|b", "b"):
            reservation = await ledger.reserve(Payer("acme", "embed"), model, [Usage(5)])
            ledger.settle(reservation, Usage(5))
        models = [entry.model for entry in await ledger.entries("acme", 1)]
    assert models == ["a|b", "b"]


@given(
    limits=st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2000)),
    batches=st.lists(st.lists(st.integers(0, 1500), min_size=1, max_size=6), min_size=1, max_size=4),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_script_reckons_as_the_process_does(
    redis: Client, limits: tuple[int, int, int], batches: list[list[int]]
) -> None:
    await redis.flushall()
    budget = Budget(float(limits[0]), float(limits[1]), limits[2])
    ledger = Ledger(redis, PRICES, Budgets(budget), now=Clock())
    spent = Spent()
    for batch in batches:
        items = [(PRICES.nano_usd(MODEL, Usage(tokens)), tokens) for tokens in batch]
        expected, spent = take(budget, spent, items)
        reservation = await ledger.reserve(ACME, MODEL, [Usage(tokens) for tokens in batch])
        assert list(reservation.admitted) == expected
        if budget.is_limited:
            assert await ledger.spent("acme") == spent


def test_prices() -> None:
    assert Prices({}).nano_usd("text-embedding-3-small", Usage(1_000_000)) == 20_000_000
    assert Prices({}).nano_usd("gpt-4-turbo", Usage(1000, 1000)) == 40_000_000
    assert not Prices({}).knows("somebody's model")
    assert Prices({}, free=frozenset({"gpt-4-turbo"})).nano_usd("gpt-4-turbo", Usage(1000)) == 0
