"""Behind Sentinels: a master that is replaced on purpose, and one that dies, while writers go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import pytest
import pytest_asyncio
from typer.testing import CliRunner
from webhook_ops.cli import app
from webhook_ops.failover import Failover, FailoverRefused
from webhook_shared import redis as store
from webhook_shared.redis.connection import Address
from webhook_shared.redis.sentinel import ask, clients_of
from webhook_shared.settings import RedisSection

from tests.servers import machines
from tests.servers.ledger import Ledger
from tests.servers.machines import MASTER, Machine, Place, until
from tests.servers.queue import Line

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A master with two replicas and three Sentinels of its own, to be hurt."""
    found = await machines.trio(tmp_path_factory.mktemp("trio"), machines.valkey(), down_after_ms=400)
    yield found
    found.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def line(place: Place) -> AsyncIterator[Line]:
    async with Line(place) as found:
        yield found


async def master(place: Place) -> Machine:
    """Who is it at the moment, in the eyes of all."""
    sentinels = clients_of([Address.parse(each) for each in place.settings.addresses], place.settings)
    found: list[str] = []

    async def agreed() -> bool:
        ports = [(await ask(each, "MASTER", MASTER))["port"] for each in sentinels]
        found[:] = ports
        return len(set(ports)) == 1

    await until(agreed)
    for each in sentinels:
        await each.aclose()
    return next(machine for machine in place.machines if machine.port == int(found[0]))


async def cli(place: Place, *arguments: str) -> tuple[int, str, str]:
    environ = {"REDIS_ADDRESSES": ",".join(place.settings.addresses), "REDIS_SENTINEL_ENABLED": "true"}
    # In a thread: the command has an event loop of its own.
    result = await asyncio.to_thread(CliRunner().invoke, app, ["failover", *arguments], env=environ)
    return result.exit_code, result.stdout, result.stderr


async def present(line: Line) -> set[str]:
    rows: Any = await line.client.xrange("webhook-events")
    return {fields[b"id"].decode() for _, fields in rows}


async def test_a_planned_failover_loses_nothing_and_the_old_master_follows(line: Line, place: Place) -> None:
    before = await master(place)
    code, out, _ = await cli(place, "--dry-run", "--json")
    told: Mapping[str, object] = orjson.loads(out)
    assert (code, told["master"], told["sentinels"]) == (0, before.address, 3)
    # Nobody consumes: what was acknowledged must be there.
    async with Ledger(line) as ledger:
        await ledger.more(200)
        code, out, err = await cli(place)
        assert (code, err) == (0, "")
        assert "the replicas have every write" in out
        await ledger.more(200)
    after = await master(place)
    assert after is not before
    assert ledger.acknowledged - await present(line) == set()
    async with before.plain() as client:
        await until(lambda: _is_slave(client))


async def _is_slave(client: Any) -> bool:
    role = await client.execute_command("ROLE")
    return bool(role[0] == b"slave" and role[3] == b"connected")


async def test_a_master_that_dies_is_replaced_and_everybody_finds_the_next_one(
    line: Line, place: Place
) -> None:
    await line.client.flushall()
    dying = await master(place)
    ledger = Ledger(line)
    async with line.queue() as queue, ledger.worker(queue):
        async with ledger:
            await ledger.more()
            # As a machine that hangs: its connections stay open.
            assert dying.process is not None
            dying.process.send_signal(signal.SIGSTOP)
            await ledger.more(100)
        dying.process.send_signal(signal.SIGCONT)
        await ledger.settled()
    assert ledger.lost == set()


async def test_a_failover_that_would_lose_writes_is_refused(place: Place) -> None:
    def tell(step: str) -> None:
        raise AssertionError(step)

    async def whole() -> bool:
        try:
            async with Failover(place.settings, tell) as change:
                return len((await change.plan()).replicas) == 2
        except FailoverRefused:
            return False

    # Who was replaced before follows the next one by now.
    await until(whole)
    async with Failover(place.settings, tell, most_lag_bytes=-1) as change:
        with pytest.raises(FailoverRefused, match="lacks more than"):
            await change.run()
    unknown = place.settings.model_copy(update={"master_name": "nobody"})
    async with Failover(unknown, tell) as change:
        with pytest.raises(FailoverRefused, match="knows a master 'nobody'"):
            await change.run()
    one = place.settings.model_copy(update={"addresses": place.settings.addresses[:1]})
    async with Failover(one, tell) as change:
        with pytest.raises(FailoverRefused, match="1 of 3 Sentinels answer here"):
            await change.run()
    with pytest.raises(FailoverRefused, match="no Sentinels"):
        async with Failover(RedisSection(), tell):
            pass


async def test_a_sentinel_that_is_taken_for_a_server_is_told_apart(place: Place) -> None:
    with pytest.raises(RuntimeError, match=r"is a Sentinel: set redis\.sentinel_enabled"):
        async with store.opened(RedisSection(addresses=place.settings.addresses)):
            pass
