"""The processes that are measured, each started as an operator would start it."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psutil

from conftest import RedisServer
from tests.bench.ingest.deliveries import SECRET

STARTED_WITHIN_S = 30.0


@dataclass(frozen=True)
class Contestant:
    """One way to receive webhooks.

    Attributes:
        name: For the report.
        port: Where it takes them.
        stream: Where it puts them.
        processes: What it consists of, by name.
    """

    name: str
    port: int
    stream: str
    processes: Mapping[str, psutil.Process]

    def cpu_s(self) -> dict[str, float]:
        """CPU time that each of its processes has used, seconds."""
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}


@asynccontextmanager
async def ours(server: RedisServer, redis: psutil.Process) -> AsyncIterator[Contestant]:
    """Gateway and security."""
    ports = free_ports(3)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    environ = {
        **_base(server),
        "WEBHOOK_HTTP_ADDRESS": addresses[0],
        "WEBHOOK_GATEWAY_ADDRESS": addresses[1],
        "WEBHOOK_SECURITY_ADDRESS": addresses[2],
        "WEBHOOK_INTERNAL_KEY": "an internal key for measuring only, 0123456789",
        "ENCRYPTION_MASTER_KEY": "a master key for measuring only, 0123456789",
        "WEBHOOK_LOG_LEVEL": "warning",
    }
    async with AsyncExitStack() as stack:
        security = await stack.enter_async_context(_process(["-m", "webhook_security"], environ, ports[2]))
        gateway = await stack.enter_async_context(_process(["-m", "webhook_gateway"], environ, ports[0]))
        processes = {"gateway": gateway, "security": security, "redis": redis}
        yield Contestant("ours", ports[0], "webhook-events", processes)


@asynccontextmanager
async def plain(server: RedisServer, redis: psutil.Process) -> AsyncIterator[Contestant]:
    """Starlette and redis-py."""
    [port] = free_ports(1)
    command = ["-m", "uvicorn", "tests.bench.ingest.plain:app", "--http", "httptools", "--loop", "uvloop"]
    command += ["--port", str(port), "--no-access-log", "--log-level", "warning"]
    async with _process(command, _base(server), port) as receiver:
        yield Contestant("plain", port, "plain-events", {"receiver": receiver, "redis": redis})


def _base(server: RedisServer) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "REDIS_ADDRESSES": f"127.0.0.1:{server.port}",
        "GITHUB_WEBHOOK_SECRET": SECRET,
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@asynccontextmanager
async def _process(
    command: list[str], environ: Mapping[str, str], port: int
) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env=dict(environ))
    try:
        await _listening(process, port)
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


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
