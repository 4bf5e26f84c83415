"""Gateways and consumers that are killed while SQS is used, while both queues are, and after the cut.

Starting each of them anew takes too long for every run: `make rehearsal`.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest
from webhook.consumer.v1.consumer_admin_service_pb2 import GetBacklogRequest, StageBacklog
from webhook.consumer.v1.consumer_admin_service_pb2_grpc import ConsumerAdminServiceStub
from webhook_shared import redis as store
from webhook_shared.rpc.channel import connected
from webhook_shared.sqs.parity import compare

from shared.tests.sqs_server import queue_on
from tests.migration.mortal import Mortal, graveyard
from tests.migration.town import INTERNAL_KEY, Town, drained

#: The server takes its time for each event that comes while processes start.
SENDERS_PAUSE_S = 1.0

pytestmark = [
    pytest.mark.skipif(not os.environ.get("WEBHOOK_TEST_LONG"), reason="long: make rehearsal"),
    pytest.mark.timeout(900),
]


@dataclass
class Mortals:
    """The gateway and the consumer of a town, each replaced by another when it has been killed."""

    town: Town
    graveyard: list[Mortal]
    gateway: Mortal | None = None
    consumer: Mortal | None = None

    async def consume(self, **migration: Any) -> str:
        """Kill the consumer, and start one with these settings; its RPC door."""
        if self.consumer:
            self.consumer.kill()
        self.consumer = Mortal(self.town.consumer_settings(**migration))
        self.graveyard.append(self.consumer)
        (port,) = (await self.consumer.up()).ports
        return f"127.0.0.1:{port}"

    async def take(self, **migration: Any) -> None:
        """Kill the gateway, and start one with these settings."""
        if self.gateway:
            self.gateway.kill()
        self.gateway = Mortal(self.town.gateway_settings(**migration))
        self.graveyard.append(self.gateway)
        _, port = (await self.gateway.up()).ports
        self.town.gateway = f"127.0.0.1:{port}"


async def test_who_is_killed_on_sqs_and_while_both_are_written_loses_nothing_and_doubles_nothing(
    town: Town, server: str, redis: store.Client
) -> None:
    async with queue_on(server) as made:
        url = {"sqs_queue_url": made.url}
        modes: tuple[dict[str, Any], ...] = (
            {"backend": "sqs", **url},
            # Half of what comes goes through either queue, and Redis's half is copied.
            {"backend": "sqs", "dual_write": True, "redis_share_percent": 50, **url},
            {"dual_write": True, "consume_sqs": True, **url},
        )
        town.pause_s = SENDERS_PAUSE_S
        with graveyard() as dead:
            mortals = Mortals(town, dead)
            await asyncio.gather(mortals.consume(**modes[0]), mortals.take(**modes[0]))
            async with town.sending():
                for mode in modes:
                    await town.more(8)
                    await mortals.take(**mode)
                    await town.more(8)
                    door = await mortals.consume(**mode)
                await town.more(8)
            stages = await _stages(door)
            await drained(made, redis)
            kept = await town.kept()
        parity = await compare(redis, window_s=300, settle_s=0)
    assert town.wrong == []
    assert set(kept) >= set(town.acknowledged.values())
    assert set(kept.values()) == {1}
    # An event that nobody was told of is there once or not at all: each delivery became one.
    assert len(kept) == len(set(town.acknowledged.values())) == len(town.acknowledged)
    assert await redis.xlen("webhook-events-dlq") == 0
    # Nothing is in SQS alone that was copied, and what a killed gateway had still to copy is named.
    missing = {event_id for gap in parity.gaps for event_id in gap.ids}
    assert missing <= set(kept)
    assert [(stage.stage, stage.estimated, stage.unreachable) for stage in stages][-1] == ("sqs", True, False)


async def _stages(door: str) -> list[StageBacklog]:
    async with connected(door, key=INTERNAL_KEY, deadline_s=5) as channel:
        stub = ConsumerAdminServiceStub(channel)
        return list((await stub.GetBacklog(GetBacklogRequest())).stages)
