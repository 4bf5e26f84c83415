"""The processes that are measured, each started as an operator would start it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from webhook_shared.redis import Client, connect

from conftest import RedisServer
from tests.bench.ingest.deliveries import SECRET

STARTED_WITHIN_S = 30.0
PEERS = Path("var/bench/peers/node_modules").resolve()


@dataclass(frozen=True)
class Contestant:
    """One way to receive webhooks.

    Attributes:
        name: For the report.
        ports: Where it takes them.
        client: Of the Redis that it puts them into.
        kept: How many it has put there.
        leaves: Patterns of the keys that a round leaves behind.
        processes: What it consists of, by name.
    """

    name: str
    ports: Sequence[int]
    client: Client
    kept: Callable[[], Awaitable[int]]
    leaves: Sequence[str]
    processes: Mapping[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """CPU time that each of its processes has used, seconds."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}

    def memory_mb(self) -> dict[str, float]:
        """What of each process is in memory, MB."""
        return {name: round(process.memory_info().rss / 1e6, 1) for name, process in self.processes.items()}


@dataclass(frozen=True)
class Store:
    """A Redis for one or several contestants."""

    server: RedisServer
    client: Client
    process: psutil.Process

    async def version(self) -> str:
        """Of the server."""
        info = await self.client.info("server")
        return str(info.get("valkey_version") or info["redis_version"])


@asynccontextmanager
async def storing(appendfsync: str) -> AsyncIterator[Store]:
    """A server of its own, with an append-only file."""
    with tempfile.TemporaryDirectory(prefix="webhook-bench-") as directory:
        server = RedisServer(Path(directory), appendfsync=appendfsync)
        server.start()
        try:
            await server.answering()
            client = connect(server.settings)
            info = await client.info("server")
            yield Store(server, client, psutil.Process(info["process_id"]))
            await client.aclose()
        finally:
            server.kill()


@asynccontextmanager
async def ours(store: Store, *, name: str = "ours", gateways: int = 1) -> AsyncIterator[Contestant]:
    """Security, and one gateway or several."""
    security_port, *ports = free_ports(1 + 2 * gateways)
    environ = {
        **_base(store.server),
        "WEBHOOK_SECURITY_ADDRESS": f"127.0.0.1:{security_port}",
        "WEBHOOK_INTERNAL_KEY": "an internal key for measuring only, 0123456789",
        "ENCRYPTION_MASTER_KEY": "a master key for measuring only, 0123456789",
        "WEBHOOK_LOG_LEVEL": "warning",
    }
    async with AsyncExitStack() as stack:
        processes = {
            "security": await stack.enter_async_context(
                process([sys.executable, "-m", "webhook_security"], environ, security_port)
            )
        }
        for number in range(gateways):
            http, rpc = ports[2 * number : 2 * number + 2]
            addresses = {
                "WEBHOOK_HTTP_ADDRESS": f"127.0.0.1:{http}",
                "WEBHOOK_GATEWAY_ADDRESS": f"127.0.0.1:{rpc}",
            }
            processes[f"gateway{number + 1 if number else ''}"] = await stack.enter_async_context(
                process([sys.executable, "-m", "webhook_gateway"], environ | addresses, http)
            )
        yield Contestant(
            name=name,
            ports=ports[::2],
            client=store.client,
            kept=partial(store.client.xlen, "webhook-events"),
            leaves=("webhook-events", "dedup:*"),
            processes={**processes, "redis": store.process},
        )


@asynccontextmanager
async def plain(store: Store) -> AsyncIterator[Contestant]:
    """Starlette and redis-py."""
    [port] = free_ports(1)
    command = [sys.executable, "-m", "uvicorn", "tests.bench.ingest.plain:app"]
    command += ["--http", "httptools", "--loop", "uvloop", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    async with process(command, _base(store.server), port) as receiver:
        yield Contestant(
            name="plain",
            ports=[port],
            client=store.client,
            kept=partial(store.client.xlen, "plain-events"),
            leaves=("plain-events", "plain:*"),
            processes={"receiver": receiver, "redis": store.process},
        )


@asynccontextmanager
async def node(store: Store) -> AsyncIterator[Contestant]:
    """Fastify, @octokit/webhooks and BullMQ.

    Raises:
        FileNotFoundError: They are not installed (`make peers`).
    """
    if not (PEERS / "bullmq").is_dir():
        raise FileNotFoundError("Fastify and BullMQ are not installed: make peers")
    [port] = free_ports(1)
    environ = _base(store.server) | {"NODE_PATH": str(PEERS), "NODE_ENV": "production"}
    async with process(["node", "tests/bench/peers/receiver.cjs", str(port)], environ, port) as receiver:
        yield Contestant(
            name="node",
            ports=[port],
            client=store.client,
            kept=partial(store.client.llen, "bull:node-events:wait"),
            leaves=("bull:*",),
            processes={"receiver": receiver, "redis": store.process},
        )


def _base(server: RedisServer) -> dict[str, str]:
    return {
        "REDIS_ADDRESSES": f"127.0.0.1:{server.port}",
        "GITHUB_WEBHOOK_SECRET": SECRET,
    }


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@asynccontextmanager
async def process(command: list[str], environ: Mapping[str, str], port: int) -> AsyncIterator[psutil.Process]:
    """A process that listens on a port of this machine; PATH and HOME are always in its environment."""
    started = await asyncio.create_subprocess_exec(*command, env={**_inherited(), **environ})
    try:
        await _listening(started, port)
        yield psutil.Process(started.pid)
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    async with asyncio.timeout(STARTED_WITHIN_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
    raise RuntimeError("a process ended before it listened; its reason stands above")
