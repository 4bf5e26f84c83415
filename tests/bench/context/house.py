"""A context service as an operator starts it, the bare echo, and PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
from pydantic import SecretStr
from webhook.context.v1.context_admin_service_pb2_grpc import ContextAdminServiceStub
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_shared.rpc.channel import connected

from services.security.tests.postgresql import NEEDS, PostgresServer, binary
from tests.bench.context.echo import METHOD
from tests.bench.ingest.house import Store, free_ports, process, storing

Call = Callable[[bytes], Awaitable[bytes]]

INTERNAL_KEY = "an internal key for measuring only, 0123456789"
DEADLINE_S = 300.0
GET = "/webhook.context.v1.ContextService/GetContext"
# Longer than what works in the background rests.
QUIET_S, QUIET_SHARE = 6.0, 0.05
QUIET_WITHIN_S = 1800.0
#: Nothing moves by itself while it is measured, and nothing is too small to be warm.
CONFIGURATION = """\
webhook:
  context_lifecycle:
    hot_duration: 300h
    warm_duration: 600h
    grace_duration: 0s
    promote_after_reads: 1000
    warm_from_size: 1
"""


@dataclass(frozen=True)
class House:
    """What is measured.

    Attributes:
        contexts: A stub.
        admin: Another.
        get: GetContext as bytes in, bytes out, so that the caller does as much for it as for the echo.
        store: Its Redis.
        process: The service.
        cold: Where cold contexts lie.
    """

    contexts: Any
    admin: Any
    get: Call
    store: Store
    process: psutil.Process
    cold: Path


@asynccontextmanager
async def context_house() -> AsyncIterator[House]:
    """One context service with a Redis and a directory of its own."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook-bench-")))
        configuration = directory / "config.yaml"
        configuration.write_text(CONFIGURATION, encoding="utf-8")  # before anything runs
        store = await enter(storing("everysec"))
        [port] = free_ports(1)
        environ = {
            "REDIS_ADDRESSES": store.server.settings.addresses[0],
            "WEBHOOK_CONFIG": str(configuration),
            "WEBHOOK_CONTEXT_ADDRESS": f"127.0.0.1:{port}",
            "WEBHOOK_COLD_DIRECTORY": str(directory / "cold"),
            "WEBHOOK_INTERNAL_KEY": INTERNAL_KEY,
            "ENCRYPTION_MASTER_KEY": "a master key for measuring only, 0123456789",
            "WEBHOOK_LOG_LEVEL": "warning",
        }
        running = await enter(process([sys.executable, "-m", "webhook_context"], environ, port))
        channel = await enter(
            connected(f"127.0.0.1:{port}", key=SecretStr(INTERNAL_KEY), deadline_s=DEADLINE_S)
        )
        bare = await enter(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        yield House(
            contexts=ContextServiceStub(channel),
            admin=ContextAdminServiceStub(channel),
            get=_called(bare, GET),
            store=store,
            process=running,
            cold=directory / "cold",
        )


def _called(channel: grpc.aio.Channel, method: str) -> Call:
    call: Any = channel.unary_unary(method)
    metadata = (("authorization", f"Bearer {INTERNAL_KEY}"),)

    async def answer(request: bytes) -> bytes:
        found: bytes = await call(request, metadata=metadata)
        return found

    return answer


def cpu_s(process: psutil.Process) -> float:
    """CPU time that a process has used, seconds."""
    return float(sum(process.cpu_times()[:2]))


async def quiet(house: House) -> None:
    """Wait until the service has done what it does in the background, such as indexing what was put in."""
    async with asyncio.timeout(QUIET_WITHIN_S):
        busy_s = QUIET_S
        while busy_s >= QUIET_S * QUIET_SHARE:
            before = cpu_s(house.process)
            await asyncio.sleep(QUIET_S)
            busy_s = cpu_s(house.process) - before


@asynccontextmanager
async def echoing(answer: bytes) -> AsyncIterator[tuple[Call, psutil.Process]]:
    """A method that answers with these bytes, and who serves it."""
    [port] = free_ports(1)
    with tempfile.NamedTemporaryFile(prefix="webhook-bench-") as file:
        file.write(answer)
        file.flush()
        command = [sys.executable, "-m", "tests.bench.context.echo", str(port), file.name]
        async with (
            process(command, {}, port) as server,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            yield _called(channel, METHOD), server


@asynccontextmanager
async def postgres(connections: int) -> AsyncIterator[asyncpg.Pool]:
    """A pool on a server of its own, which writes nothing through to the disk: its best case.

    Raises:
        FileNotFoundError: It is not installed.
    """
    if not binary("initdb"):
        raise FileNotFoundError(NEEDS)
    with tempfile.TemporaryDirectory(prefix="webhook-postgres-") as directory:
        server = PostgresServer(Path(directory))
        server.start(shared_buffers="512MB")
        try:
            await server.answering()
            async with asyncpg.create_pool(server.url(), max_size=connections) as pool:
                yield pool
        finally:
            server.stop()
