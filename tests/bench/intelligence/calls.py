"""How few calls a provider gets: equal texts, distinct texts, texts that are known."""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import SecretStr
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.embeddings.cache import EmbeddingCache
from webhook_intelligence.embeddings.single_flight import REMEMBERED_S
from webhook_intelligence.providers.protocol import Embedding, EmbeddingModel
from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running
from webhook_shared.redis import connect
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import RedisSection

from services.intelligence.tests import openai_server as provider
from tests.bench.context.house import cpu_s, echoing
from tests.bench.ingest.house import free_ports, process

KEY = "a key for measuring only, long enough"
TENANT = "bench"
TEXTS = 10_000
CALLERS = 100
# gRPC's core turns requests away at random where more than 1,000 wait to be taken up by one server.
AT_ONCE = 800
PROVIDER_DELAY_S = 0.1
DIMENSIONS = 256
#: Short vectors: the client and the provider, who are not measured, share the processors.
CONFIGURATION = f"webhook: {{ai: {{embedding: {{dimensions: {DIMENSIONS}}}}}}}"
KNOWN_CALLS = 2000
KNOWN_PER_S = 100


@asynccontextmanager
async def service(redis: RedisSection, url: str, **environ: str) -> AsyncIterator[Any]:
    """The real service on a socket, with a provider at an address."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIGURATION)
        file.flush()
        settings = IntelligenceSettings.load(file=Path(file.name), environ=_environment(redis, url, environ))
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(running(settings))
        channel = connected(f"127.0.0.1:{up.port}", key=SecretStr(KEY), deadline_s=120)
        yield IntelligenceServiceStub(await stack.enter_async_context(channel))


@asynccontextmanager
async def _process(redis: RedisSection, url: str) -> AsyncIterator[tuple[Any, psutil.Process]]:
    """As `service`, in a process of its own, as an operator starts it."""
    [port] = free_ports(1)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(CONFIGURATION)
        file.flush()
        own = {
            "WEBHOOK_CONFIG": file.name,
            "WEBHOOK_LISTEN_ADDRESS": f"127.0.0.1:{port}",
            "WEBHOOK_LOG_LEVEL": "warning",
        }
        command = [sys.executable, "-m", "webhook_intelligence"]
        async with (
            process(command, _environment(redis, url, own), port) as started,
            connected(f"127.0.0.1:{port}", key=SecretStr(KEY), deadline_s=120) as channel,
        ):
            yield IntelligenceServiceStub(channel), started


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
    """How long a call takes whose vector is in Redis, and no longer at hand in the process.

    Calls come at a moderate pace, whether or not the last one was answered: what is measured is the service,
    not a queue before it. Between them go calls to a bare grpc.aio method that answers with the same bytes,
    also a process of its own, as the floor of this machine.
    """
    async with provider.serving(_good) as server, _process(redis, server.url) as (stub, started):
        texts = [f"known {i}" for i in range(KNOWN_CALLS)]
        for at in range(0, KNOWN_CALLS, 500):
            answer = await stub.Embed(pb.EmbedRequest(texts=texts[at : at + 500], tenant=TENANT))
        del answer.results[1:]
        await asyncio.sleep(REMEMBERED_S + 0.5)
        asked = len(server.requests)
        hits_ms: list[float] = []
        floor_ms: list[float] = []

        async def timed(call: Awaitable[object], took_ms: list[float]) -> None:
            began = time.perf_counter()
            await call
            took_ms.append(1000 * (time.perf_counter() - began))

        async with echoing(answer.SerializeToString()) as (echo, _), asyncio.TaskGroup() as group:
            began, began_cpu = time.perf_counter(), cpu_s(started)
            for number, text in enumerate(texts):
                await asyncio.sleep(max(0.0, began + number / KNOWN_PER_S - time.perf_counter()))
                request = pb.EmbedRequest(texts=[text], tenant=TENANT)
                group.create_task(timed(stub.Embed(request), hits_ms))
                await asyncio.sleep(max(0.0, began + (number + 0.5) / KNOWN_PER_S - time.perf_counter()))
                group.create_task(timed(echo(request.SerializeToString()), floor_ms))
        return {
            "cache_hit_p50_ms": round(float(np.percentile(hits_ms, 50)), 3),
            "cache_hit_p99_ms": round(float(np.percentile(hits_ms, 99)), 3),
            "cache_hit_floor_p50_ms": round(float(np.percentile(floor_ms, 50)), 3),
            "cache_hit_floor_p99_ms": round(float(np.percentile(floor_ms, 99)), 3),
            "cache_hit_cpu_us": round(1e6 * (cpu_s(started) - began_cpu) / KNOWN_CALLS),
            "cache_misses_of_known": len(server.requests) - asked,
        }


async def looked_up(redis: RedisSection) -> dict[str, Any]:
    """Processor time of one look into the cache, with so many callers at once; they share round trips."""
    client = connect(redis)
    cache = EmbeddingCache(client, EmbeddingModel("local", "bench", "", 384), timedelta(hours=1))
    keys = [cache.key(TENANT, f"looked up {i}") for i in range(KNOWN_CALLS)]
    unit = np.full(384, 384**-0.5, np.float32)
    await cache.keep({key: Embedding(unit, tokens=1) for key in keys})
    figures = {"cache_look_misses": 0}
    for callers in (1, 32):
        left = iter(keys)

        async def caller(left: Iterator[str]) -> None:
            for key in left:
                # On a machine that is too busy a look gives up.
                figures["cache_look_misses"] += (await cache.find([key]))[0] is None

        began_cpu = time.process_time()
        await asyncio.gather(*(caller(left) for _ in range(callers)))
        spent_s = time.process_time() - began_cpu
        figures[f"cache_look_cpu_us_of_{callers}"] = round(1e6 * spent_s / KNOWN_CALLS)
    await client.aclose()
    return figures
