"""What was made of a tenant's texts is dropped when it is to be forgotten, and nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import numpy as np
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.forgetting import Forgetting, Forgotten
from webhook_intelligence.prediction import prewarming
from webhook_intelligence.prediction.observations import Observation, ObservationKind
from webhook_intelligence.prediction.predictor import Policy
from webhook_intelligence.prediction.prewarming import READ_BLOCK_S, Prewarming, forget_model
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel
from webhook_intelligence.summaries.cache import SummaryCache
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client, connect
from webhook_shared.rpc.identity import Role

MODEL = EmbeddingModel("local", "mini", "r", 2)
KEEP = timedelta(hours=1)
VECTOR = Embedding(np.array([0.6, 0.8], dtype=np.float32), truncated=False, pieces=1)


async def fill(redis: Client, *, shared: bool = False) -> None:
    vectors, answers = EmbeddingCache(redis, MODEL, KEEP, shared=shared), SummaryCache(redis, KEEP)
    for tenant in ("acme", "rival"):
        await vectors.keep({vectors.key(tenant, f"text {n} of {tenant}"): VECTOR for n in range(3)})
        await answers.keep("an answer", tenant, "a question")


def told(*counts: tuple[int, int]) -> list[Forgotten]:
    return [
        Forgotten(place, *count)
        for place, count in zip(("vectors", "summaries", "predictions"), counts, strict=True)
    ]


async def test_only_the_tenants_own_go(redis: Client) -> None:
    await fill(redis)
    # Keys of former times do not tell whose they are: they go as well.
    await redis.set("emb:" + "0" * 64, b"x")
    await redis.set("sum:" + "0" * 64, b"x")
    await redis.set("prewarm:{acme}", b"a model")
    forgetting = Forgetting(redis, shared=False)
    before = sorted(await redis.keys("*"))
    assert await forgetting.carry_out("acme", dry_run=True) == told((4, 0), (2, 0), (1, 0))
    assert sorted(await redis.keys("*")) == before
    assert await forgetting.carry_out("acme", dry_run=False) == told((4, 4), (2, 2), (1, 1))
    assert (len(await redis.keys("emb:*")), len(await redis.keys("sum:*"))) == (3, 1)
    assert await forgetting.carry_out("acme", dry_run=False) == told((0, 0), (0, 0), (0, 0))
    assert await SummaryCache(redis, KEEP).find("rival", "a question") == "an answer"
    assert await SummaryCache(redis, KEEP).find("acme", "a question") is None


async def test_shared_vectors_go_all(redis: Client) -> None:
    await fill(redis, shared=True)
    (vectors, *_) = await Forgetting(redis, shared=True).carry_out("acme", dry_run=False)
    assert vectors == Forgotten("vectors", 6, 6)
    assert await redis.keys("emb:*") == []


@pytest.fixture
async def replicas(redis: Client, valkey: Any) -> AsyncIterator[list[Prewarming]]:
    readers = [connect(valkey, block_s=READ_BLOCK_S) for _ in range(2)]
    first, second = (Prewarming(redis, reader, Policy()) for reader in readers)
    async with first, second:
        yield [first, second]
    for reader in readers:
        await reader.aclose()


async def test_every_replica_forgets_what_it_has_learned(
    redis: Client, replicas: list[Prewarming], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prewarming, "KEEP_EVERY_S", 3600.0)
    for tenant in ("acme", "rival"):
        seen = [
            Observation(float(n), ObservationKind.EVENT, f"context:{n % 3}", actor="mona") for n in range(30)
        ]
        replicas[0].note(tenant, seen)

    async def learned(tenant: str) -> list[int]:
        return [(await one.predictor(tenant)).learned_count for one in replicas]

    async def until(tenant: str, *, some: bool) -> None:
        async with asyncio.timeout(10):
            while not all(bool(count) == some for count in await learned(tenant)):
                await asyncio.sleep(0.01)

    await until("acme", some=True)
    await until("rival", some=True)
    assert await forget_model(redis, "acme", dry_run=False) > 0
    await until("acme", some=False)
    assert all(await learned("rival"))
    entries = await redis.xrange(prewarming.STREAM)
    assert {fields[b"tenant"] for _, fields in entries if b"seen" in fields} == {b"rival"}


async def test_only_our_own_may_ask(house: Any, stub: Any) -> None:
    request = pb.ForgetRequest()
    request.wanted.tenant = "acme"
    operator = await house.stub(roles=(Role.OPERATOR,), tenants=("*",))
    for caller in (stub, operator):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await caller.Forget(request)
        assert from_rpc_error(refused.value).code.name == "PERMISSION_DENIED"
