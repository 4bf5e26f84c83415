"""A provider that is down is left alone, by all replicas together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr
from webhook_intelligence.providers import breaker as breakers
from webhook_intelligence.providers.breaker import FAILURES, Breaker
from webhook_intelligence.providers.openai import OpenAIEmbeddings
from webhook_intelligence.providers.openai_calls import OpenAICalls
from webhook_shared.errors import Unavailable
from webhook_shared.redis import Client, connect

from services.intelligence.tests import openai_server as fake


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakers, "FIRST_PAUSE_S", 0.3)
    monkeypatch.setattr(breakers, "LONGEST_PAUSE_S", 0.6)


async def test_replicas_open_it_together_and_send_one_probe(redis: Client) -> None:
    one, other = (Breaker(redis, "openai", "m") for _ in range(2))
    for i in range(FAILURES):
        assert await one.ask() == 0
        await (one if i % 2 else other).failed()
    assert 0 < await one.ask() <= 0.3
    assert 0 < await other.ask() <= 0.3
    await asyncio.sleep(0.31)
    assert [await one.ask(), await other.ask() > 0] == [0, True]
    await one.failed()
    # Twice as long as before.
    assert 0.3 < await other.ask() <= 0.6
    await asyncio.sleep(0.61)
    assert await other.ask() == 0
    await other.answered()
    assert [await one.ask(), await other.ask()] == [0, 0]


async def test_models_have_one_each(redis: Client) -> None:
    down, up = Breaker(redis, "openai", "down"), Breaker(redis, "openai", "up")
    for _ in range(FAILURES):
        await down.failed()
    assert await down.ask() > 0
    assert await up.ask() == 0


async def test_without_redis_each_counts_for_itself(redis_server: Any) -> None:
    client = connect(redis_server.settings)
    redis_server.kill()
    breaker = Breaker(client, "openai", "m")
    for _ in range(FAILURES):
        await breaker.failed()
    assert await breaker.ask() > 0
    await asyncio.sleep(0.31)
    assert await breaker.ask() == 0
    assert await breaker.ask() > 1
    await breaker.answered()
    assert await breaker.ask() == 0
    await client.aclose()


async def test_an_outage_costs_no_more_than_probes_and_heals(redis: Client) -> None:
    is_up = False

    def handler(_: str, body: dict[str, Any]) -> fake.Answer:
        return fake.embeddings(body) if is_up else fake.refused(503)

    async with fake.serving(handler) as server:
        breaker = Breaker(redis, "openai", "m")
        async with OpenAICalls(SecretStr("sk-good"), server.url, breaker) as calls:
            embeddings = OpenAIEmbeddings(calls, "text-embedding-3-small", 8)
            loop = asyncio.get_running_loop()
            began, refused = loop.time(), 0
            while loop.time() - began < 1.0:
                with pytest.raises(Unavailable):
                    await embeddings.embed(["a"], deadline=loop.time() + 0.05)
                refused += 1
                await asyncio.sleep(0.002)
            assert refused > 5
            # 5 that open it, then one after each pause of 0.3, 0.6, 0.6...
            assert len(server.requests) <= FAILURES + 2
            is_up = True
            await asyncio.sleep(0.65)
            await embeddings.embed(["a"], deadline=loop.time() + 5)


async def test_a_caller_without_patience_does_not_open_it(redis: Client) -> None:
    breaker = Breaker(redis, "openai", "m")
    async with OpenAICalls(SecretStr("sk-good"), "http://127.0.0.1:9/v1", breaker) as calls:
        slow = OpenAIEmbeddings(calls, "text-embedding-3-small", 8)
        for _ in range(FAILURES + 1):
            with pytest.raises(Unavailable):
                await slow.embed(["a"], deadline=asyncio.get_running_loop().time())
    assert await breaker.ask() == 0
