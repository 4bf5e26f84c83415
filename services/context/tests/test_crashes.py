"""Killed at every step of every transition, with writers at work: no acknowledged version lost or stale.

The default run strikes at least once at every step in every way; WEBHOOK_TEST_CRASHES=10000 makes it longer.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from webhook.context.v1.context_pb2 import Tier
from webhook_context import messages
from webhook_context.domain.contexts import Appended, Change, Context
from webhook_context.parts.tiers import Tiering, tiering
from webhook_context.settings import ContextLifecycleSection
from webhook_context.store import keys
from webhook_context.store.assembly import View
from webhook_context.store.tiers_redis import Timing
from webhook_shared import redis as store
from webhook_shared.errors import Aborted, ServiceError
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.settings import RedisSection

from services.context.tests.conftest import webhook_of
from services.context.tests.doom import WAYS, Doom, DoomedStore, doomed_redis

EVERYTHING = View(events=1000, payloads=True)
HOT, WARM, COLD = Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD
# Each with the number of its steps; the dropping of what it leaves behind is among them.
MOVES = {(HOT, WARM): 9, (HOT, COLD): 9, (WARM, COLD): 8, (WARM, HOT): 4, (COLD, WARM): 10, (COLD, HOT): 6}
CASES = [(*move, step, way) for move, steps in MOVES.items() for step in range(steps) for way in WAYS]
CRASHES = int(os.environ.get("WEBHOOK_TEST_CRASHES", "200"))


@dataclass
class House:
    """The store as it is, and the part of it that dies."""

    live: Tiering
    doomed: Tiering
    doom: Doom
    objects: Path
    client: Any


@dataclass
class Acknowledged:
    """What writers were told is there."""

    events: dict[str, bytes] = field(default_factory=dict)
    title: str = ""
    version: int = 0


@asynccontextmanager
async def mortal_house(valkey: RedisSection, tmp_path: Path, **sections: Any) -> AsyncIterator[House]:
    """A store over a directory, twice: once as it is, once as somebody uses it who dies of it."""
    settings = ContextLifecycleSection(grace_duration=timedelta(milliseconds=1))
    webhook = webhook_of(valkey, context_lifecycle=settings, **sections)
    timing = Timing(lease_ms=1, drop_after_ms=1)
    port, cold, doom = int(valkey.addresses[0].rpartition(":")[2]), DirectoryObjectStore(tmp_path), Doom()
    async with doomed_redis(port, doom) as reached:
        client = store.connect(valkey)
        dying = store.connect(RedisSection(addresses=(f"127.0.0.1:{reached}",)))
        live = tiering(client, cold, webhook, timing)
        doomed = tiering(dying, DoomedStore(cold, doom), webhook, timing)
        yield House(live=live, doomed=doomed, doom=doom, objects=tmp_path, client=client)
        await dying.aclose()
        await client.aclose()


@pytest.fixture
async def house(valkey: RedisSection, tmp_path: Path) -> AsyncIterator[House]:
    async with mortal_house(valkey, tmp_path) as up:
        yield up


async def append(house: House, make: Any, told: Acknowledged, context_id: str, events: int = 1) -> None:
    fresh = {f"e{len(told.events) + n}": os.urandom(200) for n in range(events)}
    made = [make(event_id, context_id, payload=payload) for event_id, payload in fresh.items()]
    results = await house.live.store.append([messages.entry("acme", append) for append in made])
    assert isinstance(results[-1], Appended)
    told.events |= fresh
    told.version = results[-1].version


async def retitle(house: House, told: Acknowledged, context_id: str) -> None:
    title = f"title {told.version}"
    changed = await house.live.store.update(Change("acme", context_id, title=title))
    told.title, told.version = title, changed.version


async def moved(parts: Tiering, context_id: str, target: Tier.ValueType) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await parts.transitions.move("acme", context_id, target)
                return
            except Aborted:
                await asyncio.sleep(0.002)


async def holds(house: House, told: Acknowledged, context_id: str) -> None:
    held = await house.live.store.read_one("acme", context_id, EVERYTHING)
    assert isinstance(held, Context)
    payloads = zip(held.events, held.payloads, strict=True)
    assert {event.event_id: payload for event, payload in payloads} == told.events
    assert [event.event_id for event in held.events] == list(told.events)
    assert held.event_count == len(told.events)
    assert held.version == told.version
    assert held.facts.word("title") == told.title


async def _is_tidy(house: House, context_id: str) -> None:
    async with asyncio.timeout(10):
        while True:
            await house.live.transitions.drop("acme", context_id)
            state = (await house.live.tiers.states("acme", [context_id]))[0]
            if not state.drop_ms:
                break
            await asyncio.sleep(0.002)
    packs = await house.client.hkeys(keys.packs("acme", context_id))
    assert [pack.decode() for pack in packs] == ([state.pointer] if state.tier == WARM else [])
    fields = await house.client.hgetall(keys.context("acme", context_id))
    beside = int(fields[b"count"]) - int(fields.get(b"packed", 0))
    for kind in (b"e:", b"p:"):
        assert sum(name.startswith(kind) for name in fields) == beside
    assert await house.client.llen(keys.order("acme", context_id)) == beside


async def _crash(house: House, make: Any, case: Any, context_id: str, chance: random.Random) -> bool:
    source, target, step, way = case
    told = Acknowledged()
    await append(house, make, told, context_id, 3)
    await retitle(house, told, context_id)
    await moved(house.live, context_id, source)

    house.doom.revive(at=step, way=way)

    async def mover() -> None:
        try:
            await house.doomed.transitions.move("acme", context_id, target)
            await house.doomed.transitions.drop("acme", context_id)
        except (ServiceError, ObjectTrouble, *REDIS_TROUBLE):
            pass

    async def writer() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(chance.random() * 0.006)
            await append(house, make, told, context_id)
            if chance.random() < 0.3:
                await retitle(house, told, context_id)

    await asyncio.gather(mover(), writer())
    died = house.doom.dead
    await holds(house, told, context_id)

    # Whoever comes next finishes the work.
    await moved(house.live, context_id, target)
    await holds(house, told, context_id)
    if chance.random() < 0.3:
        await append(house, make, told, context_id)
        await moved(house.live, context_id, chance.choice([HOT, WARM, COLD]))
        await holds(house, told, context_id)
    await _is_tidy(house, context_id)
    return died


async def test_a_crash_loses_nothing(house: House, make: Any) -> None:
    chance, done, deaths = random.Random(20260301), list[str](), 0
    for number, case in enumerate(cycle(CASES)):
        context_id = f"c{number}"
        # A writer can make a move shorter than that: then it dies of nothing.
        deaths += await _crash(house, make, case, context_id, chance)
        done.append(context_id)
        if deaths >= CRASHES:
            break
    # No object is left that nothing points to.
    states = await house.live.tiers.states("acme", done)
    kept = [path for path in (house.objects / "v1").rglob("*") if path.is_file()]
    assert len(kept) == sum(state.tier == COLD for state in states) > 0
