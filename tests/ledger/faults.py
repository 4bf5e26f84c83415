"""What may go wrong, each as something that can be done to a running system and undone again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from webhook_ops.dev.ports import free_addresses
from webhook_shared.redis import Client, ResponseError

from conftest import RedisServer
from tests.ledger.clock import Clock
from tests.ledger.proxy import Proxy
from tests.system import House

STREAM, GROUP = "webhook-events", "webhook-processors"
SECOND_CONSUMER = "consumer-2"
# How long a consumer may be silent before another takes over what it holds; longer than that it is stopped.
CLAIM_IDLE_S = 2
STOPPED_S = 3 * CLAIM_IDLE_S
LASTS_S = 4.0
OFTEN_S = 0.2
LATENCY_S = 0.2
# Above what an empty system uses: a little more load and the server takes no writes.
MEMORY_MARGIN_BYTES = 64 * 1024
# Room for some more entries, and for a part of the next: a full disk cuts where it likes.
DISK_MARGIN_BYTES = 20_001
HOUR_S = 3600


@dataclass(frozen=True)
class Ground:
    """What faults are done to.

    Attributes:
        house: The system; its way to Redis is the proxy.
        server: The Redis.
        proxy: The line to it.
        client: Past the proxy.
        clocks: Those of Redis and of everybody else; None where clocks can't be had.
    """

    house: House
    server: RedisServer
    proxy: Proxy
    client: Client
    clocks: tuple[Clock, Clock] | None


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        name: For the table.
        strike: Does it, and has undone it when it returns.
        is_quick: Whether the short form has it, too.
        needs_clocks: Whether it can only be made where clocks can be had.
    """

    name: str
    strike: Callable[[Ground], Coroutine[Any, Any, None]]
    is_quick: bool = False
    needs_clocks: bool = False


def _killed(process: str) -> Fault:
    async def strike(ground: Ground) -> None:
        ground.house.system.kill(process)
        await ground.house.system.healthy(process)

    return Fault(f"SIGKILL of {process}", strike)


async def _drained(ground: Ground) -> None:
    async with ground.house.without("consumer"):
        await asyncio.sleep(1)


async def _zombie(ground: Ground) -> None:
    async with second_consumer(ground.house):
        first = ground.house.system.processes["consumer"].pid
        os.kill(first, signal.SIGSTOP)
        try:
            await asyncio.sleep(STOPPED_S)
        finally:
            os.kill(first, signal.SIGCONT)
        await asyncio.sleep(1)


async def _redis_killed(ground: Ground) -> None:
    ground.server.kill()
    await asyncio.sleep(1)
    ground.server.start()
    await ground.server.answering()


async def _redis_stopped(ground: Ground) -> None:
    ground.server.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(LASTS_S)
    finally:
        ground.server.send(signal.SIGCONT)


async def _slow(ground: Ground) -> None:
    ground.proxy.delay_s = LATENCY_S
    await asyncio.sleep(LASTS_S)
    ground.proxy.delay_s = 0.0


async def _dead_line(ground: Ground) -> None:
    ground.proxy.is_dead = True
    await asyncio.sleep(LASTS_S)
    ground.proxy.is_dead = False
    ground.proxy.cut()


async def _resets(ground: Ground) -> None:
    for _ in range(round(LASTS_S / OFTEN_S)):
        ground.proxy.cut()
        await asyncio.sleep(OFTEN_S)


async def _scripts_forgotten(ground: Ground) -> None:
    for _ in range(round(LASTS_S / OFTEN_S)):
        await ground.client.script_flush()
        await asyncio.sleep(OFTEN_S)


async def _group_destroyed(ground: Ground) -> None:
    for _ in range(3):
        await ground.client.xgroup_destroy(STREAM, GROUP)
        await asyncio.sleep(1)


async def _full(ground: Ground) -> None:
    used = int((await ground.client.info("memory"))["used_memory"])
    await ground.client.config_set("maxmemory", used + MEMORY_MARGIN_BYTES)
    try:
        await asyncio.sleep(LASTS_S)
    finally:
        await ground.client.config_set("maxmemory", 0)


async def _readers_unblocked(ground: Ground) -> None:
    for _ in range(round(LASTS_S / OFTEN_S)):
        for client in await ground.client.client_list():
            if client["cmd"] == "xreadgroup":
                try:
                    await ground.client.client_unblock(int(client["id"]), error=True)
                except ResponseError:
                    continue
        await asyncio.sleep(OFTEN_S)


async def _disk_full(ground: Ground) -> None:
    ground.server.limit_files(await _file_bytes(ground) + DISK_MARGIN_BYTES)
    await asyncio.sleep(LASTS_S)
    if ground.server.has_ended:
        # As it does with `appendfsync always`. Somebody makes room and starts it again.
        ground.server.kill()
        ground.server.start()
        await ground.server.answering()
    else:
        ground.server.limit_files(-1)


async def _file_bytes(ground: Ground) -> int:
    """How large the file is that Redis writes to."""
    return max(file.stat().st_size for file in ground.server.directory.rglob("*.aof*") if file.is_file())


def _jump(of_redis: bool, ahead_s: int) -> Fault:
    async def strike(ground: Ground) -> None:
        assert ground.clocks is not None
        redis, others = ground.clocks
        async with (redis if of_redis else others).wrong(ahead_s):
            await asyncio.sleep(LASTS_S)
            # That everybody has such a clock, nothing else would show.
            now_s, _ = await ground.client.time()
            assert round((now_s - time.time()) / HOUR_S) * HOUR_S == (ahead_s if of_redis else 0)
            assert all(others.is_of(each.pid) for each in ground.house.system.processes.values())

    whose = "clock of Redis" if of_redis else "clocks of all but Redis"
    where = "ahead" if ahead_s > 0 else "behind"
    return Fault(f"{whose} an hour {where} for {LASTS_S:g} s, then right again", strike, needs_clocks=True)


@asynccontextmanager
async def second_consumer(house: House) -> AsyncIterator[None]:
    """One more process that works on the same queue."""
    rpc, metrics = free_addresses(2)
    command = house.system.processes["consumer"].command
    environ = {**command.env, "WEBHOOK_LISTEN_ADDRESS": rpc, "WEBHOOK_METRICS_ADDRESS": metrics}
    supervisor = house.system._supervisor
    await supervisor.start(replace(command, name=SECOND_CONSUMER, env=environ))
    try:
        yield
    finally:
        await supervisor.stop(SECOND_CONSUMER)


FAULTS = (
    *(_killed(name) for name in ("gateway", "security", "consumer", "intelligence", "context")),
    Fault("SIGTERM of consumer with a full buffer", _drained),
    Fault(f"consumer stopped for {STOPPED_S} s, another takes over, then it goes on", _zombie),
    Fault("SIGKILL of Redis, back after 1 s", _redis_killed),
    Fault(f"Redis stopped for {LASTS_S:g} s", _redis_stopped),
    Fault(f"{LATENCY_S * 1000:g} ms more to Redis and back", _slow),
    Fault(f"line to Redis dead for {LASTS_S:g} s, connections open", _dead_line),
    Fault(f"every connection to Redis reset, five times a second for {LASTS_S:g} s", _resets, is_quick=True),
    Fault("SCRIPT FLUSH, five times a second", _scripts_forgotten),
    Fault("XGROUP DESTROY, three times", _group_destroyed, is_quick=True),
    Fault("blocked reads ended by the server, five times a second", _readers_unblocked),
    Fault(f"Redis full (maxmemory, noeviction) for {LASTS_S:g} s", _full),
    Fault(f"disk full under Redis for {LASTS_S:g} s", _disk_full),
    *(_jump(of_redis, ahead_s) for of_redis in (True, False) for ahead_s in (HOUR_S, -HOUR_S)),
)
