"""A Cluster whose primary is replaced by its replica: when somebody says so, and when it dies.

A plain run has the newest server; `make failovers` the oldest, too, and more of everything.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio
from webhook_gateway.publishing.durability import Durability

from tests.servers import machines
from tests.servers.ledger import Ledger
from tests.servers.machines import Place, is_master, pair_of, until
from tests.servers.queue import Line

pytestmark = pytest.mark.asyncio(loop_scope="module")

IS_LONG = bool(os.environ.get("WEBHOOK_TEST_LONG"))
BINARIES = {"valkey-9": machines.valkey} | ({"redis-6.2": machines.redis_6} if IS_LONG else {})
ROUNDS = 5 if IS_LONG else 1
MANY = 200 if IS_LONG else 40
NODE_TIMEOUT_MS = 500


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=BINARIES)
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """Three masters; that of the events has a replica."""
    found = await machines.cluster(
        tmp_path_factory.mktemp("promotion"),
        BINARIES[request.param](),
        node_timeout_ms=NODE_TIMEOUT_MS,
        replica_of="webhook-events",
    )
    yield found
    found.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def line(place: Place) -> AsyncIterator[Line]:
    async with Line(place) as found:
        await found.admin.flushall()
        yield found


async def test_a_replica_that_takes_over_when_told_loses_nothing_and_repeats_nothing(
    line: Line, place: Place
) -> None:
    ledger = Ledger(line)
    async with line.queue() as queue, ledger.worker(queue):
        async with ledger:
            for _ in range(ROUNDS):
                await ledger.more(MANY)
                _, replica = await pair_of(place)
                async with replica.plain() as client:
                    await client.execute_command("CLUSTER FAILOVER")
                    await until(partial(is_master, client))
                await ledger.more(MANY)
        await ledger.settled()
    assert (ledger.lost, ledger.repeated) == (set(), set())


async def _refused_more(ledger: Ledger) -> None:
    before = ledger.refused
    await until(lambda: ledger.refused > before)


async def test_a_primary_that_dies_takes_nothing_along_that_was_promised_to_be_replicated(
    line: Line, place: Place
) -> None:
    ledger = Ledger(line, durability=Durability.REPLICATED)
    async with line.queue() as queue, ledger.worker(queue):
        async with ledger:
            for _ in range(ROUNDS):
                await ledger.more(MANY)
                primary, replica = await pair_of(place)
                primary.stop()
                async with replica.plain() as client:
                    await until(partial(is_master, client))
                # Alone it can promise nothing: whoever asks for a replica is asked to come again.
                await _refused_more(ledger)
                primary.start(*machines.as_node(NODE_TIMEOUT_MS))
                await ledger.more(MANY)
        await ledger.settled()
    # What a replica has not heard of, an acknowledgement by a worker, say, comes again: effects bear that.
    assert ledger.lost == set()
