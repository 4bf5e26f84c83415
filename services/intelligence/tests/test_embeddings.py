"""Vectors from a remote provider: each text once, among callers and replicas, and nobody's by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr
from webhook_intelligence.costs.budgets import Budgets
from webhook_intelligence.costs.ledger import Ledger, Payer
from webhook_intelligence.costs.prices import Prices
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.embeddings.leases import Leases
from webhook_intelligence.embeddings.single_flight import Embeddings, Outcome
from webhook_intelligence.providers.openai import OpenAIEmbeddings
from webhook_intelligence.providers.openai_calls import FIRST_IN_FLIGHT, OpenAICalls
from webhook_intelligence.providers.protocol import Embedding
from webhook_shared.errors import ServiceError
from webhook_shared.redis import Client

from services.intelligence.tests import openai_server as fake

DAY = timedelta(days=1)
ACME, GLOBEX = Payer("acme", "embed"), Payer("globex", "embed")


@asynccontextmanager
async def replica(
    redis: Client,
    server: fake.Server,
    *,
    dimension: int = 64,
    batch_texts: int = 100,
    model: str = "text-embedding-3-small",
    shared: bool = False,
    keep: timedelta = DAY,
    lease_s: float = 3.0,
) -> AsyncIterator[Embeddings]:
    """One process's worth of the service, without its socket."""
    async with AsyncExitStack() as stack:
        calls = await stack.enter_async_context(OpenAICalls(SecretStr("sk-good"), server.url))
        provider = OpenAIEmbeddings(calls, model, dimension)
        ledger = await stack.enter_async_context(Ledger(redis, Prices({}), Budgets()))
        yield await stack.enter_async_context(
            Embeddings(
                provider,
                EmbeddingCache(redis, provider.model, keep, shared=shared),
                ledger,
                batch_texts=batch_texts,
                linger_s=0.01,
                leases=Leases(redis, lease_s=lease_s),
            )
        )


def good(_: str, body: dict[str, Any]) -> fake.Answer:
    return fake.embeddings(body)


def texts_sent(server: fake.Server) -> list[str]:
    return [text for request in server.requests for text in request["input"]]


def vectors(outcomes: list[Outcome]) -> list[np.ndarray]:
    return [outcome.vector for outcome in outcomes if isinstance(outcome, Embedding)]


async def test_ten_thousand_equal_calls_are_one_request(redis: Client) -> None:
    async with fake.serving(good, delay_s=0.05) as server, replica(redis, server) as embeddings:
        asked = [embeddings.embed(ACME, ["the same"], timeout_s=30) for _ in range(10_000)]
        found = await asyncio.gather(*asked)
        assert all(isinstance(outcome, Embedding) for (outcome,) in found)
        assert len(server.requests) == 1


async def test_the_fewest_requests_that_the_limits_allow(redis: Client) -> None:
    async with fake.serving(good, delay_s=0.01) as server, replica(redis, server) as embeddings:

        async def caller(number: int) -> None:
            texts = [f"caller {number} text {i}" for i in range(20)]
            assert len(vectors(await embeddings.embed(ACME, texts, timeout_s=30))) == 20

        await asyncio.gather(*(caller(number) for number in range(100)))
        # One more than needed is for a machine so busy that texts are late for their batch.
        assert 20 <= len(server.requests) <= 22
        assert max(len(request["input"]) for request in server.requests) == 100


async def test_the_same_text_in_a_batch_is_sent_once_whoever_asks(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        found = await asyncio.gather(
            embeddings.embed(ACME, ["x", "x", "x", "y"], timeout_s=30),
            embeddings.embed(GLOBEX, ["y", "x"], timeout_s=30),
        )
        assert sorted(texts_sent(server)) == ["x", "y"]
        mine, others = map(vectors, found)
        assert (mine[0] == mine[2]).all()
        assert (mine[3] == others[0]).all()


async def test_two_replicas_ask_once(redis: Client) -> None:
    async with (
        fake.serving(good, delay_s=0.1) as server,
        replica(redis, server) as one,
        replica(redis, server) as other,
    ):
        texts = [f"text {i}" for i in range(50)]
        first, second = await asyncio.gather(
            one.embed(ACME, texts, timeout_s=30), other.embed(ACME, texts[::-1], timeout_s=30)
        )
        assert sorted(texts_sent(server)) == sorted(texts)
        assert np.abs(np.array(vectors(first)) - np.array(vectors(second)[::-1])).max() < 1e-3
    assert not await redis.keys("*:asked")


async def test_a_dead_replica_is_replaced_by_one_that_waits(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server, lease_s=0.2) as embeddings:
        dead = Leases(redis, lease_s=0.2)
        keys = [embeddings._cache.key("acme", text) for text in ("a", "b")]  # as it would
        assert await dead.take(keys) == set(keys)
        began = asyncio.get_running_loop().time()
        found = await embeddings.embed(ACME, ["a", "b"], timeout_s=30)
        assert len(vectors(found)) == 2
        assert 0.1 < asyncio.get_running_loop().time() - began < 2


async def test_waiting_for_another_replica_ends_with_the_deadline(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        slow = Leases(redis)
        key = embeddings._cache.key("acme", "a")  # as it would
        await slow.take([key])
        async with slow.held([key]):
            (outcome,) = await embeddings.embed(ACME, ["a"], timeout_s=0.2)
        assert isinstance(outcome, ServiceError)
        assert outcome.reason == "PROVIDER_UNREACHABLE"
        assert not server.requests


async def test_the_poisoned_text_fails_alone_for_all_replicas(redis: Client) -> None:
    def poisoned(_: str, body: dict[str, Any]) -> fake.Answer:
        return fake.refused(400) if "poison" in body["input"] else fake.embeddings(body)

    async with (
        fake.serving(poisoned) as server,
        replica(redis, server) as one,
        replica(redis, server) as other,
    ):
        texts = [*(f"text {i}" for i in range(30)), "poison"]
        for found in await asyncio.gather(*(r.embed(ACME, texts, timeout_s=30) for r in (one, other))):
            assert len(vectors(found)) == 30
            assert isinstance(found[30], ServiceError)
            assert found[30].reason == "PROVIDER_REFUSED"


async def test_an_outage_in_the_middle_of_a_hunt_costs_that_half_alone(redis: Client) -> None:
    def bad_day(_: str, body: dict[str, Any]) -> fake.Answer:
        if "poison" in body["input"]:
            return fake.refused(400)
        return fake.refused(503) if "text 0" in body["input"] else fake.embeddings(body)

    async with fake.serving(bad_day) as server, replica(redis, server) as embeddings:
        found = await embeddings.embed(ACME, ["text 0", "text 1", "poison", "text 3"], timeout_s=1)
        reasons = [outcome.reason if isinstance(outcome, ServiceError) else "" for outcome in found]
        assert reasons == ["PROVIDER_UNREACHABLE", "PROVIDER_UNREACHABLE", "PROVIDER_REFUSED", ""]


async def test_long_texts_go_in_pieces_and_come_back_as_one(redis: Client) -> None:
    sent: dict[str, int] = {}

    def handler(_: str, body: dict[str, Any]) -> fake.Answer:
        assert sum(len(text) for text in body["input"]) < 250_000 * 4
        sent.update({text: len(text) for text in body["input"]})
        return fake.embeddings(body)

    async with fake.serving(handler) as server, replica(redis, server) as embeddings:
        long = "".join(f"word{i:05} " for i in range(12_000))
        whole, short = await embeddings.embed(ACME, [long, "short"], timeout_s=30)
        assert isinstance(whole, Embedding)
        assert isinstance(short, Embedding)
        assert (whole.truncated, whole.pieces, short.pieces) == (False, 5, 1)
        # The texts of a batch may stand in any order.
        pieces = sorted(text.split()[0] for text in sent if text != "short")
        assert sum(len(text) for text in sent if text != "short") in {len(long), len(long) - 1}
        assert pieces[0] == "word00000"
        parts = [fake.vector_of(text, 64) for text in sent if text != "short"]
        weights = [length for text, length in sent.items() if text != "short"]
        mean = np.average([part / np.linalg.norm(part) for part in parts], axis=0, weights=weights)
        assert float(whole.vector @ (mean / np.linalg.norm(mean))) > 0.999
        # The cache knows that it was pooled.
        (again,) = await embeddings.embed(ACME, [long], timeout_s=30)
        assert isinstance(again, Embedding)
        assert again.pieces == 5


async def test_no_request_exceeds_the_tokens_of_one_call(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server, batch_texts=2048) as embeddings:
        texts = [f"{i} " + "word " * 3000 for i in range(120)]
        assert len(vectors(await embeddings.embed(ACME, texts, timeout_s=30))) == 120
        assert len(server.requests) >= 2
        for request in server.requests:
            assert sum(len(text) for text in request["input"]) / 3.5 <= 250_000


# What others got wrong: docs/intelligence.md.


async def test_dimensions_are_part_of_the_key(redis: Client) -> None:
    async with fake.serving(good) as server:
        for dimension in (256, 64, 256):
            async with replica(redis, server, dimension=dimension) as embeddings:
                (vector,) = vectors(await embeddings.embed(ACME, ["hello"], timeout_s=30))
                assert vector.shape == (dimension,)
        assert len(server.requests) == 2


def test_keys_are_injective(redis: Client) -> None:
    from webhook_intelligence.providers.protocol import EmbeddingModel  # only here

    def key(tenant: str, text: str, *model: Any) -> str:
        return EmbeddingCache(redis, EmbeddingModel(*model), DAY).key(tenant, text)

    keys = [
        key("acme", "s1", "p", "m", "r", 8), key("acmes", "1", "p", "m", "r", 8),
        key("", "acmes1", "p", "m", "r", 8), key("acme", "s1", "pm", "", "r", 8),
        key("acme", "s1", "p", "mr", "", 8), key("acme", "s1", "p", "m", "r8", 8),
        key("acme", "s1", "p", "m", "r", 88), key("acme", "s1:p", "p", "m", "r", 8),
        key("acme:s1", "p", "p", "m", "r", 8),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert all(len(one) == len("emb:") + 16 + 1 + 64 for one in keys)


async def test_cached_values_hold_no_text_and_are_half_floats(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        await embeddings.embed(ACME, ["a secret plan"], timeout_s=30)
    (key,) = await redis.keys("emb:*")
    value = await redis.get(key)
    assert len(value) == 6 + 2 * 64
    assert b"secret" not in key + value


async def test_a_hit_does_not_lengthen_the_life_of_a_vector(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        await embeddings.embed(ACME, ["hello"], timeout_s=30)
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        (key,) = await redis.keys("emb:*")
        await redis.pexpire(key, 60_000)
        await embeddings.embed(ACME, ["hello"], timeout_s=30)
        assert 0 < await redis.pttl(key) <= 60_000
        assert not server.requests


async def test_sharing_between_tenants_is_opt_in(redis: Client) -> None:
    async with fake.serving(good) as server:
        for shared, requests in ((False, 2), (True, 3)):
            async with replica(redis, server, shared=shared) as embeddings:
                for payer in (ACME, GLOBEX):
                    await embeddings.embed(payer, ["hello"], timeout_s=30)
            assert len(server.requests) == requests


@pytest.mark.parametrize("status", [401, 429])
async def test_failures_do_not_multiply_with_the_texts(redis: Client, status: int) -> None:
    answer = fake.as_json(status, {"error": {"message": "no"}}, retry_after="60")
    async with (
        fake.serving(lambda *_: answer) as server,
        replica(redis, server, batch_texts=2048) as embeddings,
    ):
        found = await embeddings.embed(ACME, [f"text {i}" for i in range(2000)], timeout_s=5)
        assert all(isinstance(outcome, ServiceError) for outcome in found)
        # As many as may be under way before the first answer is back.
        assert len(server.requests) <= FIRST_IN_FLIGHT


async def test_what_is_hidden_in_a_text_makes_no_other_vector(redis: Client) -> None:
    async with fake.serving(good) as server, replica(redis, server) as embeddings:
        hidden = "pay\u200bment \u202efailed\u2069"
        await embeddings.embed(ACME, [hidden, "payment failed"], timeout_s=30)
        assert texts_sent(server) == ["payment failed"]


async def test_without_a_cache_replicas_do_not_wait_for_each_other(redis: Client) -> None:
    async with (
        fake.serving(good, delay_s=0.02) as server,
        replica(redis, server, keep=timedelta()) as one,
        replica(redis, server, keep=timedelta()) as other,
    ):
        for found in await asyncio.gather(*(r.embed(ACME, ["x"], timeout_s=5) for r in (one, other))):
            assert len(vectors(found)) == 1
        assert len(server.requests) == 2
