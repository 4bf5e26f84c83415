"""The whole path on a Cluster, its events spread over partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from webhook_shared.redis import connect

from tests.e2e.stories import STORIES
from tests.patience import eventually
from tests.servers import machines
from tests.servers.machines import Place
from tests.system import running_house

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(tmp_path: Path) -> AsyncIterator[Place]:
    """Three masters."""
    place = await machines.cluster(tmp_path / "cluster", machines.valkey())
    yield place
    place.stop()


async def test_stories_can_be_told(cluster: Place, tmp_path: Path) -> None:
    environ = {"REDIS_ADDRESSES": ",".join(cluster.settings.addresses), "WEBHOOK_PARTITIONS": "3"}
    async with running_house(tmp_path / "house", environ=environ) as house:
        for story in STORIES[:2]:
            deliveries = story.happenings(house.senders)
            event_ids = [await house.accepted(delivery) for delivery in deliveries]
            assert (await house.post(deliveries[0])).event_id == event_ids[0]
            context = await house.operator.grown(story.context_id, len(deliveries))
            assert {event.event_id for event in context.events} == set(event_ids)
            assert (context.title, context.state) == (story.title, story.state)
            await house.operator.enriched(story.context_id)

        async def drained() -> None:
            stages = await house.operator.backlog()
            assert set(stages) == {"events", "enrichment"}
            assert not any(s.waiting_count + s.in_flight_count + s.delayed_count for s in stages.values())
            assert not any(stage.dead_count for stage in stages.values())

        await eventually(drained)
        client = connect(cluster.settings)
        assert await client.exists("webhook-events:0", "webhook-events:1", "webhook-events:2") == 3
        assert not await client.exists("webhook-events")
        await client.aclose()
