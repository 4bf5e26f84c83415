"""Where the entries of each stage live, partition by partition."""

from __future__ import annotations

from webhook_shared.partitions import Partitions, possible
from webhook_shared.redis import Client, slot_of

from webhook_consumer.queue.redis import Lane
from webhook_consumer.settings import ConsumerSection


def event_lanes(consumer: ConsumerSection, *, on_cluster: bool) -> list[Lane]:
    """Stage one's lanes, one per partition that is published to."""
    return [
        _event_lane(consumer, stream, on_cluster=on_cluster)
        for stream in Partitions(consumer.stream, consumer.partitions).streams
    ]


def enrichment_lane(consumer: ConsumerSection, *, on_cluster: bool) -> Lane:
    """Stage two's."""
    section = consumer.enrichment
    dead_letters = f"{section.stream}-dlq"
    return Lane(
        "enrichment",
        section.stream,
        section.consumer_group,
        _beside(section.stream, dead_letters) if on_cluster else dead_letters,
    )


async def left_behind(client: Client, consumer: ConsumerSection, *, on_cluster: bool) -> list[Lane]:
    """Lanes that are no longer published to, as the number of partitions has changed, and hold something.

    Raises:
        REDIS_TROUBLE: Redis does not answer.
    """
    current = set(Partitions(consumer.stream, consumer.partitions).streams)
    lanes = [
        _event_lane(consumer, stream, on_cluster=on_cluster)
        for stream in possible(consumer.stream)
        if stream not in current
    ]
    # Almost always there is none, and one command says so.
    if not await client.exists(*(key for lane in lanes for key in lane.places)):
        return []
    return [lane for lane in lanes if await client.exists(*lane.places)]


def _event_lane(consumer: ConsumerSection, stream: str, *, on_cluster: bool) -> Lane:
    dead_letters = consumer.dead_letter_stream
    number = stream.removeprefix(consumer.stream).removeprefix(":")
    if number or on_cluster:
        dead_letters = _beside(stream, dead_letters)
    return Lane("events", stream, consumer.consumer_group, dead_letters, number)


def _beside(stream: str, name: str) -> str:
    """A name in the slot of a stream: its own where it is there already."""
    if slot_of(("GET", name)) == slot_of(("GET", stream)):
        return name
    return f"{name}:{{{stream}}}"
