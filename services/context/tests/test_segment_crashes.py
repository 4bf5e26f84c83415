"""Killed at every step of writing, forgetting in, rewriting and erasing from segments, with writers at work.

The default run strikes here and there; WEBHOOK_TEST_CRASHES=10000 strikes at every step in every way.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from webhook.context.v1.context_pb2 import Tier
from webhook_context.packs.segment import open_keys, place
from webhook_context.parts.tiers import Tiering
from webhook_context.segments.settings import ContextSegmentsSection
from webhook_context.store import keys
from webhook_shared.errors import ServiceError
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE
from webhook_shared.settings import RedisSection

from services.context.tests.doom import WAYS
from services.context.tests.test_crashes import Acknowledged, House, append, holds, mortal_house, moved

COLD, HOT = Tier.TIER_COLD, Tier.TIER_HOT
TOGETHER = 3
CRASHES = int(os.environ.get("WEBHOOK_TEST_CRASHES", "10"))
SEED = int(os.environ.get("WEBHOOK_TEST_SEED", "20260301"))
DEATHS = (ServiceError, ObjectTrouble, LookupError, *REDIS_TROUBLE)


class Case(NamedTuple):
    """What dies: it is prepared by who lives on, and finished by who comes next."""

    prepare: Callable[[House, list[str]], Awaitable[Any]]
    work: Callable[[Tiering, list[str]], Awaitable[Any]]


@pytest.fixture
async def house(valkey: RedisSection, tmp_path: Path) -> AsyncIterator[House]:
    section = ContextSegmentsSection(min_contexts=1, forget_interval="0s", min_live_ratio=1)
    async with mortal_house(valkey, tmp_path, context_segments=section) as up:
        await up.client.sadd(keys.TENANTS, "acme")
        yield up


async def all_moved(house: House, ids: list[str], target: Any) -> None:
    await asyncio.gather(*(moved(house.live, one, target) for one in ids))


async def nothing(house: House, ids: list[str]) -> None:
    await asyncio.sleep(0)


async def sinking(parts: Tiering, ids: list[str]) -> None:
    work = (parts.transitions.move("acme", one, COLD) for one in ids)
    for done in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done


async def cold(house: House, ids: list[str]) -> None:
    await all_moved(house, ids, COLD)


async def rising(parts: Tiering, ids: list[str]) -> None:
    await parts.transitions.move("acme", ids[0], HOT)
    await asyncio.sleep(0.002)
    await parts.transitions.drop("acme", ids[0])


async def one_left(house: House, ids: list[str]) -> None:
    await all_moved(house, ids, COLD)
    await moved(house.live, ids[0], HOT)
    await asyncio.sleep(0.002)
    await house.live.transitions.drop("acme", ids[0])


async def compacting(parts: Tiering, ids: list[str]) -> None:
    for _ in range(2):
        for one in await parts.small.known.known("acme"):
            # Looked at now, whenever it is due.
            await parts.small.known._client.zadd(keys.segments("acme"), {one: 1})  # of the one who dies
        await parts.small.compaction.look()


async def erasing(parts: Tiering, ids: list[str]) -> None:
    (state,) = await parts.tiers.states("acme", ids[:1])
    with suppress(ServiceError):
        await parts.store.delete("acme", ids[0], "")
    await parts.transitions.drop("acme", ids[0])
    await parts.small.cold_packs.rewrite("acme", [state.pointer])


CASES = {
    "sinking": Case(nothing, sinking),
    "rising": Case(cold, rising),
    "compacting": Case(one_left, compacting),
    "erasing": Case(cold, erasing),
}


async def is_tidy(house: House, ids: list[str]) -> None:
    """Nothing is left but what contexts point to, and keys for that alone."""
    parts = house.live
    async with asyncio.timeout(20):
        while True:
            for one in ids:
                await parts.transitions.drop("acme", one)
            await compacting(parts, ids)
            states = await parts.tiers.states("acme", ids)
            lie = {str(found) for state in states if (found := place(state.pointer))}
            names = {one.partition("#")[0] for one in lie}
            left = {str(path.relative_to(house.objects)) for path in (house.objects / "v1").rglob("*.seg")}
            known = await parts.small.known.known("acme")
            is_done = left == names and len(known) == len(left) and lie == await readable(house)
            if is_done and not any(state.drop_ms for state in states):
                break
            await asyncio.sleep(0.002)


async def readable(house: House) -> set[str]:
    """The places of all members for which a key lies in the cold store."""
    keyring, found = house.live.learning.keyring, set()
    await keyring.prepare(["acme"])
    for path in (house.objects / "v1").rglob("*.keys"):
        name = str(path.relative_to(house.objects))
        home = name[: name.rindex("/") + 1]
        for member in open_keys(keyring, home, path.read_bytes()).members:
            found.add(f"{home}members.seg#{member.offset}+{member.length}")
    return found


async def crash(house: House, make: Any, case: Case, chance: random.Random, **doom: Any) -> bool:
    ids = [f"c-{chance.getrandbits(64):x}" for _ in range(TOGETHER)]
    told = {one: Acknowledged() for one in ids}
    for one in ids:
        await append(house, make, told[one], one)
    await case.prepare(house, ids)
    house.doom.revive(**doom)

    async def writer() -> None:
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.02)
            await append(house, make, told[ids[1]], ids[1])

    async def worker() -> None:
        with suppress(*DEATHS):
            await case.work(house.doomed, ids)

    await asyncio.gather(worker(), writer())
    died = house.doom.dead
    gone = ids[:1] if case is CASES["erasing"] else []
    kept = [one for one in ids if one not in gone]
    for one in kept:
        await holds(house, told[one], one)
    # Whoever comes next finishes the work.
    async with asyncio.timeout(20):
        while True:
            with suppress(ObjectTrouble):
                await erasing(house.live, ids) if gone else await all_moved(house, kept, COLD)
                break
            await asyncio.sleep(0.002)
    await is_tidy(house, ids)
    for one in kept:
        await holds(house, told[one], one)
    # The next one begins with an empty store.
    for one in kept:
        await house.live.store.delete("acme", one, "")
    await is_tidy(house, ids)
    return died


async def test_a_crash_in_segments_loses_nothing(house: House, make: Any) -> None:
    chance, deaths = random.Random(SEED), 0
    steps = {}
    for name, case in CASES.items():
        await crash(house, make, case, chance)
        steps[name] = house.doom.steps
    every = [(name, step, way) for name in CASES for step in range(steps[name]) for way in WAYS]
    while deaths < CRASHES:
        for name, step, way in chance.sample(every, len(every)):
            deaths += await crash(house, make, CASES[name], chance, at=step, way=way)
            if deaths >= CRASHES:
                break
    print(f"{deaths} crashes, none lost")
