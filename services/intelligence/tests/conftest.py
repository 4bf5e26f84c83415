"""The service on a real socket, with a real cache and the real local model."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.providers.local import LocalEmbeddings
from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running
from webhook_shared.redis import connect
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.settings import RedisSection

INTERNAL_KEY = "an internal key of the tests, long enough"


@pytest.fixture(scope="session")
def local() -> Iterator[LocalEmbeddings]:
    """The local model, loaded once."""
    model = LocalEmbeddings.load(name="all-MiniLM-L6-v2")
    yield model
    model.close()


@dataclass(frozen=True)
class House:
    """A running service, and a way in with any credential."""

    port: int
    redis: RedisSection
    stack: AsyncExitStack

    async def stub(self, *, roles: tuple[Role, ...], tenants: tuple[str, ...]) -> IntelligenceServiceStub:
        client = connect(self.redis)
        _, secret = await ApiKeys(client).mint("a test", tenants, roles)
        await client.aclose()
        return await self.stub_with(secret)

    async def stub_with(self, credential: str) -> IntelligenceServiceStub:
        channel: grpc.aio.Channel = await self.stack.enter_async_context(
            connected(f"127.0.0.1:{self.port}", key=SecretStr(credential), deadline_s=60)
        )
        return IntelligenceServiceStub(channel)


Started = Callable[..., Awaitable[House]]


@asynccontextmanager
async def serving(redis: RedisSection, **environ: str) -> AsyncIterator[House]:
    settings = IntelligenceSettings.load(
        file=None,
        environ={
            "REDIS_ADDRESSES": redis.addresses[0],
            "WEBHOOK_INTERNAL_KEY": INTERNAL_KEY,
            "WEBHOOK_LISTEN_ADDRESS": "127.0.0.1:0",
            **environ,
        },
    )
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(running(settings))
        yield House(service.port, redis, stack)


@pytest.fixture
async def start(valkey: RedisSection) -> AsyncIterator[Started]:
    """Starts the service with the given environment."""
    async with AsyncExitStack() as stack:

        async def started(redis: RedisSection = valkey, **environ: str) -> House:
            return await stack.enter_async_context(serving(redis, **environ))

        yield started


@pytest.fixture
async def house(start: Started) -> House:
    """The service as it runs with no key at all."""
    return await start()


@pytest.fixture
async def stub(house: House) -> IntelligenceServiceStub:
    """A caller who may do everything for one tenant."""
    return await house.stub(roles=(Role.READER, Role.WRITER), tenants=("acme",))


def counted(name: str, **labels: str) -> float:
    """What a metric says now."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
