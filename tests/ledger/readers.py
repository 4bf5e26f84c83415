"""Looks for every event wherever one may be."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import grpc
from webhook.consumer.v1 import consumer_admin_service_pb2
from webhook_shared.redis import Client, connect

from tests.clients import Client as Caller
from tests.ledger.books import REPOSITORY, Kept, context_id
from tests.system import House

DRAINED_WITHIN_S = 180.0
POLL_S = 0.25
STREAMS = ("webhook-events", "webhook-quarantine")
RETRIES = "retry:{webhook-events}:entries"
#: Delayed entries are packed; their ids stand in them as text.
EVENT_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


# What the processes wrote before that, which would go with their directory.
LOG = Path("var/bench/not-drained.log")


class NotDrainedError(Exception):
    """The queue has not come to rest."""


async def drained(house: House) -> float:
    """Wait until no event is waiting, in flight or delayed in any stage; how long that took, seconds.

    Raises:
        NotDrainedError: With what is left.
    """
    started_s = time.monotonic()
    left = "nothing is known of it"
    while time.monotonic() - started_s < DRAINED_WITHIN_S:
        try:
            stages = list((await house.operator.backlog()).values())
        except grpc.aio.AioRpcError:
            stages = []
        counts = {s.stage: (s.waiting_count, s.in_flight_count, s.delayed_count) for s in stages}
        if counts and not any(map(any, counts.values())):
            return time.monotonic() - started_s
        left = str(counts) if counts else left
        await asyncio.sleep(POLL_S)
    _keep_log(house)
    raise NotDrainedError(
        f"not drained within {DRAINED_WITHIN_S:g} s: {left} (waiting, in flight, delayed); see {LOG}"
    )


def _keep_log(house: House) -> None:
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text(house.log, encoding="utf-8")


async def everything(house: House, contexts: int, repository: str = REPOSITORY) -> Kept:
    """All events of so many contexts, all dead letters, and all that still waits."""
    client = connect(house.system.plan.redis)
    try:
        waiting = await _waiting(client)
    finally:
        await client.aclose()
    names = [context_id(number, repository) for number in range(1, contexts + 1)]
    found = [context for name in names if (context := await house.operator.context(name))]
    return Kept(
        contexts={
            each.context_id: [(event.event_id, event.payload) for event in each.events] for each in found
        },
        behind=frozenset(
            each.context_id for each in found if each.enrichment.covered_event_count != each.event_count
        ),
        dead=frozenset(await _dead(house.operator)),
        waiting=frozenset(waiting),
    )


async def _dead(operator: Caller) -> set[str]:
    found: set[str] = set()
    page_token = ""
    while True:
        page = await operator.consumer_admin.ListDeadLetters(
            consumer_admin_service_pb2.ListDeadLettersRequest(page_size=500, page_token=page_token)
        )
        found |= {letter.event_id for letter in page.dead_letters}
        page_token = page.next_page_token
        if not page_token:
            return found


async def _waiting(client: Client) -> set[str]:
    found: set[str] = set()
    for stream in STREAMS:
        entries: Any = await client.xrange(stream)
        found |= {fields[b"id"].decode() for _, fields in entries}
    delayed: Any = await client.hvals(RETRIES)
    for packed in delayed:
        found |= {event_id.decode() for event_id in EVENT_ID.findall(packed)}
    return found
