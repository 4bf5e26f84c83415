"""How few calls a provider gets: equal texts, distinct texts, texts that are known, an outage."""

from __future__ import annotations

import asyncio
import math
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.embeddings import REMEMBERED_S
from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running
from webhook_shared.channel import connected
from webhook_shared.settings import RedisSection

from services.intelligence.tests import openai_server as provider

KEY = "a key for measuring only, long enough"
TENANT = "bench"
TEXTS = 10_000
CALLERS = 100
# gRPC's core turns requests away at random where more than 1,000 wait to be taken up by one server.
AT_ONCE = 800
PROVIDER_DELAY_S = 0.1
DIMENSIONS = 256
KNOWN_CALLS = 2000
OUTAGE_S = 10.0
EVENTS_PER_S = 100


@asynccontextmanager
async def service(redis: RedisSection, url: str, **environ: str) -> AsyncIterator[Any]:
    """The real service on a socket, with a provider at an address."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # Short vectors: the client and the provider, who are not measured, share the processors.
        file.write(f"webhook: {{ai: {{embedding: {{dimensions: {DIMENSIONS}}}}}}}")
        file.flush()
        settings = IntelligenceSettings.load(file=Path(file.name), environ=_environment(redis, url, environ))
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(running(settings))
        channel = connected(f"127.0.0.1:{up.port}", key=SecretStr(KEY), deadline_s=120)
        yield IntelligenceServiceStub(await stack.enter_async_context(channel))


def _environment(redis: RedisSection, url: str, environ: dict[str, str]) -> dict[str, str]:
    return {
        "REDIS_ADDRESSES": redis.addresses[0],
        "WEBHOOK_INTERNAL_KEY": KEY,
        "WEBHOOK_LISTEN_ADDRESS": "127.0.0.1:0",
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": url,
        "AI_SUMMARIZATION_MODEL": "extractive",
        **environ,
    }


def _good(_: str, body: dict[str, Any]) -> provider.Answer:
    return provider.embeddings(body)


async def equal(redis: RedisSection) -> dict[str, Any]:
    """Provider calls for ten thousand equal calls, as many at once as one server takes."""
    async with (
        provider.serving(_good, delay_s=PROVIDER_DELAY_S) as server,
        service(redis, server.url) as stub,
    ):
        request = pb.EmbedRequest(texts=["the same for everybody"], tenant=TENANT)
        free = asyncio.Semaphore(AT_ONCE)

        async def call() -> None:
            async with free:
                answer = await stub.Embed(request)
                assert not answer.results[0].status.code

        await asyncio.gather(*(call() for _ in range(TEXTS)))
        return {f"calls_for_equal_{TEXTS}": len(server.requests)}


async def distinct(redis: RedisSection) -> dict[str, Any]:
    """The fewest calls that the limits allow, over those that were made, for texts of a hundred callers."""
    async with (
        provider.serving(_good, delay_s=PROVIDER_DELAY_S) as server,
        service(redis, server.url) as stub,
    ):

        async def caller(number: int) -> None:
            texts = [f"caller {number}, event {i}" for i in range(TEXTS // CALLERS)]
            answer = await stub.Embed(pb.EmbedRequest(texts=texts, tenant=TENANT))
            assert all(not result.status.code for result in answer.results)

        async def one_by_one(number: int) -> None:
            for i in range(TEXTS // CALLERS // 10):
                text = f"caller {number}, lone event {i}"
                answer = await stub.Embed(pb.EmbedRequest(texts=[text], tenant=TENANT))
                assert not answer.results[0].status.code

        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
        took_s, made = time.perf_counter() - began, len(server.requests)
        await asyncio.gather(*(one_by_one(number) for number in range(CALLERS)))
        lone, lone_texts = len(server.requests) - made, TEXTS // 10
        batch = max(len(request["input"]) for request in server.requests)
        return {
            "batch_efficiency": round(math.ceil(TEXTS / batch) / made, 4),
            "batch_efficiency_one_by_one": round(math.ceil(lone_texts / batch) / lone, 4),
            "distinct_texts_per_s": round(TEXTS / took_s),
        }


async def known(redis: RedisSection) -> dict[str, Any]:
    """How long a call takes whose vector is in Redis, and no longer at hand in the process."""
    async with provider.serving(_good) as server, service(redis, server.url) as stub:
        texts = [f"known {i}" for i in range(KNOWN_CALLS)]
        for at in range(0, KNOWN_CALLS, 500):
            await stub.Embed(pb.EmbedRequest(texts=texts[at : at + 500], tenant=TENANT))
        await asyncio.sleep(REMEMBERED_S + 0.5)
        asked = len(server.requests)
        took_ms = []
        for text in texts:
            began = time.perf_counter()
            await stub.Embed(pb.EmbedRequest(texts=[text], tenant=TENANT))
            took_ms.append(1000 * (time.perf_counter() - began))
        return {
            "cache_hit_p50_ms": round(float(np.percentile(took_ms, 50)), 3),
            "cache_hit_p99_ms": round(float(np.percentile(took_ms, 99)), 3),
            "cache_misses_of_known": len(server.requests) - asked,
        }


async def outage(redis: RedisSection) -> dict[str, Any]:
    """A provider that is away for a while under a steady stream of texts: who asks it, and what is lost."""
    away = False

    def handler(path: str, body: dict[str, Any]) -> provider.Answer:
        return provider.refused(503) if away else _good(path, body)

    async with provider.serving(handler, delay_s=0.02) as server, service(redis, server.url) as stub:
        await stub.Embed(pb.EmbedRequest(texts=["before"], tenant=TENANT))
        waiting = [f"during the outage, event {i}" for i in range(int(OUTAGE_S * EVENTS_PER_S))]
        left: list[str] = []

        async def send(texts: list[str]) -> None:
            # What is refused comes again, as the consumer has it.
            request = pb.EmbedRequest(texts=texts, tenant=TENANT, priority=pb.PRIORITY_EVENT)
            answer = await stub.Embed(request, timeout=5)
            left.extend(text for text, one in zip(texts, answer.results, strict=True) if one.status.code)

        away, before = True, len(server.requests)
        tasks = []
        for at in range(0, len(waiting), 10):
            tasks.append(asyncio.create_task(send(waiting[at : at + 10])))
            await asyncio.sleep(10 / EVENTS_PER_S)
        during = len(server.requests) - before
        away, began = False, time.perf_counter()
        await asyncio.gather(*tasks)
        while left:
            again, left = left, []
            await asyncio.gather(*(send(again[at : at + 200]) for at in range(0, len(again), 200)))
            await asyncio.sleep(0.2 if left else 0)
        return {
            "outage_s": OUTAGE_S,
            "outage_calls": during,
            "outage_caught_up_s": round(time.perf_counter() - began, 2),
            "outage_lost": 0,
        }
