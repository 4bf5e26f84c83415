"""From SQS to Redis, back in a hurry, and over again, while senders go on: nothing lost, nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from webhook.ingest.v1 import migration_service_pb2, migration_service_pb2_grpc
from webhook_shared import redis as store
from webhook_shared.rpc.channel import connected
from webhook_shared.sqs.parity import Place, compare

from shared.tests.sqs_server import queue_on
from tests.migration.town import INTERNAL_KEY, Town, drained


class Stand:
    """A gateway or a consumer that is replaced by the next before it goes."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def put(self, next_one: Any) -> Any:
        stack = AsyncExitStack()
        up = await stack.enter_async_context(next_one)
        before, self._stack = self._stack, stack
        await before.aclose()
        return up

    @asynccontextmanager
    async def cleared(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._stack.aclose()


# Half a minute alone; beside other work it has taken more than two.
@pytest.mark.timeout(300)
async def test_moving_to_redis_and_back_and_over_again_loses_nothing_and_does_nothing_twice(
    town: Town, server: str, redis: store.Client
) -> None:
    gateways, consumers = Stand(), Stand()
    async with queue_on(server) as made:
        url = {"sqs_queue_url": made.url}
        async with gateways.cleared(), consumers.cleared():
            await consumers.put(town.consumer_with(backend="sqs", **url))
            await gateways.put(town.gateway_with(backend="sqs", **url))
            async with town.sending():
                await town.more(40)
                # 1. What goes through Redis is copied from now on; at first that is nothing.
                both = {"backend": "sqs", "dual_write": True, **url}
                await consumers.put(town.consumer_with(**both))
                door = await gateways.put(town.gateway_with(**both))
                await town.more(20)
                # 2. Shift traffic.
                for percent in (50, 100):
                    assert await _ramped(door, percent) == percent
                    await town.more(30)
                # 3. Cut over: Redis alone answers, SQS has a copy.
                await gateways.put(town.gateway_with(dual_write=True, **url))
                await town.more(40)
                # 4. In a hurry, and at once: back to SQS.
                await gateways.put(town.gateway_with(backend="sqs", **url))
                await town.more(40)
                # 5. And over again, this time for good; consumers last, when SQS is empty.
                await gateways.put(town.gateway_with(dual_write=True, **url))
                await town.more(40)
                await gateways.put(town.gateway_with())
                await town.more(20)
            await drained(made, redis)
            await consumers.put(town.consumer_with())
            kept = await town.kept()
        parity = await compare(redis, window_s=300, settle_s=0)
    assert town.wrong == []
    assert town.repeated > 10
    assert len(set(town.acknowledged.values())) == len(town.acknowledged) > 250
    assert set(kept) == set(town.acknowledged.values())
    assert set(kept.values()) == {1}
    assert await redis.xlen("webhook-events-dlq") == 0
    assert parity.gaps == []
    assert parity.counts[Place.REDIS_QUEUED] == parity.counts[Place.SQS_QUEUED] > 100


async def _ramped(door: str, percent: int) -> int:
    async with connected(door, key=INTERNAL_KEY, deadline_s=5) as channel:
        stub = migration_service_pb2_grpc.MigrationServiceStub(channel)
        request = migration_service_pb2.RampMigrationRequest(redis_share_percent=percent)
        return (await stub.RampMigration(request)).redis_share_percent
