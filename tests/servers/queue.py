"""A queue as its two ends see it: the gateway's publisher and the consumer's queue, on any server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Self

from webhook_consumer.lanes import event_lanes
from webhook_consumer.queue.redis import Lane, RedisQueue
from webhook_consumer.settings import ConsumerSection
from webhook_gateway.outcome import Publication, Published
from webhook_gateway.publishing.durability import Assurance, Durability
from webhook_gateway.publishing.stream import Publisher
from webhook_shared import redis as store
from webhook_shared.partitions import Partitions

from tests.servers.machines import Place

BLOCK_S = 0.05
WINDOW_MS = 60_000

Queue = RedisQueue


class Line:
    """Both ends on one server; closed on leaving."""

    def __init__(self, place: Place, *, partitions: int = 1) -> None:
        self.place = place
        self.section = ConsumerSection(partitions=partitions)
        self.admin = store.connect(place.admin)
        self.client = store.connect(place.settings)
        self._open = AsyncExitStack()
        self.publisher = self.door()

    def door(self, *, patience_s: float = 2.0, replicas: int = 1) -> Publisher:
        return Publisher(
            self.client,
            patience_s=patience_s,
            assurance=Assurance(self.client, replicas=replicas, timeout_s=0.1),
            partitions=Partitions(self.section.stream, self.section.partitions),
        )

    async def __aenter__(self) -> Self:
        self._open.push_async_callback(self.client.aclose)
        self._open.push_async_callback(self.admin.aclose)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def publish(self, *numbers: int, tool: str = "github") -> list[Published]:
        return await self.publisher.publish([publication(number, tool=tool) for number in numbers])

    @asynccontextmanager
    async def queue(self, *, lane: Lane | None = None, block_s: float = BLOCK_S) -> AsyncIterator[RedisQueue]:
        """A queue with connections of its own, as a process of the consumer has it; by default the first."""
        client, blocking = (store.connect(self.place.settings, block_s=pause) for pause in (0, block_s))
        on_cluster = await self.client.form() == "cluster"
        try:
            yield RedisQueue(
                lane or event_lanes(self.section, on_cluster=on_cluster)[0],
                client,
                blocking,
                block_ms=round(block_s * 1000),
                lease_ms=60_000,
            )
        finally:
            await client.aclose()
            await blocking.aclose()


def publication(
    number: int, *, tool: str = "github", durability: Durability = Durability.FAST, key: str = ""
) -> Publication:
    """Delivery number so much: equal numbers are deliveries of one event, and of one attempt to publish."""
    return Publication(
        event_id=f"event-{number}",
        tenant="default",
        tool=tool,
        type="push",
        received_ms=1_700_000_000_000,
        schema=1,
        sealed=b"sealed",
        traceparent="",
        dedup_key=key or f"{number:024}",
        window_ms=WINDOW_MS,
        occurrences_allowed=1,
        quarantined=False,
        durability=durability,
    )
