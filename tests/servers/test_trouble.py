"""Servers that are not well, or not set as they should be: waited for, warned of, or refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs
from webhook_gateway.outcome import Accepted
from webhook_gateway.publishing.stream import MISSING
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

from tests.servers import machines
from tests.servers.machines import Machine, Place, until
from tests.servers.queue import Line, publication

pytestmark = pytest.mark.asyncio(loop_scope="function")

SERVERS: dict[str, Callable[[], str]] = {"redis-6.2": machines.redis_6, "valkey-9": machines.valkey}


@pytest_asyncio.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """A server of one's own, not started."""
    made = Machine(machines.valkey(), tmp_path / "server")
    yield made
    made.stop()


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_disk_that_fails_stops_new_events_and_loses_none(machine: Machine, kind: str) -> None:
    machine.binary = SERVERS[kind]()
    # Nothing can be renamed to this, not even by root.
    (machine.directory / "dump.rdb" / "full").mkdir(parents=True)
    machine.start()
    await machine.answering()
    settings = RedisSection(addresses=(machine.address,))
    async with Line(Place(kind, settings, [machine], settings)) as line:
        await line.publish(1)
        await line.admin.config_set("save", "3600 1")
        await line.admin.execute_command("BGSAVE")

        async def failing() -> bool:
            return bool((await line.admin.info("persistence"))["rdb_last_bgsave_status"] == "err")

        await until(failing)
        assert await line.door(patience_s=0.05).publish([publication(2)]) == [MISSING]
        with pytest.raises(store.UnwritableError):
            await line.client.set("anything", 1)
        assert line.door().gave_up is False
        await line.admin.config_set("stop-writes-on-bgsave-error", "no")
        assert await line.publish(2) == [Accepted("event-2", False)]


async def test_a_server_that_still_reads_its_disk_is_waited_for(machine: Machine) -> None:
    machine.start("--enable-debug-command", "local")
    await machine.answering()
    async with machine.plain() as client:
        await client.execute_command("DEBUG", "POPULATE", 300_000)
        await client.save()
    machine.stop()
    machine.start("--appendonly", "no", "--loading-process-events-interval-bytes", "1024")
    settings = RedisSection(addresses=(machine.address,))
    async with Line(Place("loading", settings, [machine], settings)) as line:
        door = line.door(patience_s=10)

        async def loading() -> bool:
            try:
                await line.client.set("anything", 1)
            except store.REDIS_TROUBLE as error:
                return "loading" in str(error).lower()
            raise AssertionError("it was too fast")

        await until(loading, pause_s=0.001)
        assert await line.door(patience_s=0.001).publish([publication(1)]) == [MISSING]
        with capture_logs() as said:
            async with store.opened(settings) as client:
                assert await client.dbsize() >= 300_000
        assert "redis.waiting" in {record["event"] for record in said}
        assert await door.publish([publication(1)]) == [Accepted("event-1", False)]


async def _said(machine: Machine, **settings: str) -> dict[str, dict[str, object]]:
    async with machine.plain() as client:
        for name, value in settings.items():
            await client.config_set(name.replace("_", "-"), value)
    with capture_logs() as said:
        async with store.opened(RedisSection(addresses=(machine.address,))):
            pass
    return {str(line["event"]): dict(line) for line in said}


async def test_settings_that_lose_events_are_named(machine: Machine) -> None:
    machine.start()
    await machine.answering()
    said = await _said(machine)
    assert set(said) == {"redis.known"}
    assert said["redis.known"]["form"] == "single"
    said = await _said(machine, appendonly="no", maxmemory_policy="volatile-lru")
    assert said["redis.not_durable"]["consequence"] == "a restart loses what is queued"
    assert said["redis.evicting"]["policy"] == "volatile-lru"
    assert said["redis.evicting"]["log_level"] == "warning"


async def _without_config(client: object) -> None:
    await client.execute_command("ACL", "SETUSER", "default", "-config")  # type: ignore[attr-defined]  # Redis


async def _without_info(client: object) -> None:
    await client.execute_command("ACL", "SETUSER", "default", "-info", "-config", "-command")  # type: ignore[attr-defined]  # Redis


@pytest.mark.parametrize("forbid", [_without_config, _without_info])
async def test_who_may_not_look_is_told_so_and_works(
    machine: Machine, forbid: Callable[[object], Awaitable[None]]
) -> None:
    machine.start()
    await machine.answering()
    async with machine.plain() as client:
        await forbid(client)
    settings = RedisSection(addresses=(machine.address,))
    with capture_logs() as said:
        async with store.opened(settings) as opened:
            assert await opened.form() == "single"
            server = await store.look(opened)
    assert "redis.guard_skipped" in {line["event"] for line in said}
    assert not server.settings_readable
    assert not server.missing
    async with Line(Place("blind", settings, [machine], settings)) as line:
        assert await line.publish(1) == [Accepted("event-1", False)]
