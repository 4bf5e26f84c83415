"""Contexts lie in a bucket as well as they do in a directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from webhook_context.parts.tiers import tiering
from webhook_context.store import keys
from webhook_shared import redis as servers
from webhook_shared.objects import s3 as objects_s3
from webhook_shared.objects.protocol import ObjectTrouble

from services.context.tests.test_segments import COLD, EVERYTHING, HOT, Recorded, Yard, lies, webhook
from services.context.tests.test_tiers import ISSUE, full, known, lifecycle, without_place
from shared.tests.s3_server import Line, failing_line, listed, lose_all, make_bucket, moto_server, section_of


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
async def line(server: str) -> AsyncIterator[Line]:
    async with failing_line(server) as up:
        yield up


async def test_contexts_lie_in_a_bucket(
    server: str, line: Line, *, open_house: Any, valkey: Any, make: Any, payload: Any, redis: Any
) -> None:
    name = make_bucket(server)
    sections = {"cold_storage": section_of(line.url, name), "context_lifecycle": lifecycle()}
    async with open_house(valkey, **sections) as house:
        before = await known(house, make, payload)
        # The write arrives, its answer does not; what is read back is damaged once.
        line.faults = ["lost", "ok", "flipped"]
        (told, _) = await house.move("COLD", ISSUE)
        if told.transitions[0].status.code:
            assert told.transitions[0].status.reason == "COLD_STORE_UNREACHABLE"
            await house.move("COLD", ISSUE)
        for fault in ("ok", "torn", "flipped", "500"):
            line.faults = [fault]
            after = await full(house)
            assert without_place(after.context) == without_place(before.context)
        pointer = (await redis.hget(keys.context("acme", ISSUE), "pointer")).decode()
        assert pointer in listed(server, name)
        assert "octo" not in pointer
        await house.delete(ISSUE)
        assert pointer not in listed(server, name)


async def test_segments_lie_in_a_bucket(server: str, line: Line, valkey: Any, make: Any) -> None:
    client = servers.connect(valkey)
    async with objects_s3.bucket(section_of(line.url, make_bucket(server))) as store:
        cold = Recorded(store)
        yard = Yard(tiering(client, cold, webhook(valkey)), cold, client, {})
        ids = await yard.fill(make, 6)
        await yard.move(ids)
        for fault in ("ok", "torn", "flipped", "lost"):
            line.faults = [fault]
            await yard.holds(ids[:1])
        name = lies((await yard.pointers(ids))[0]).segment
        await yard.parts.small.cold_packs.forget("acme", await yard.pointers(ids[:1]))
        await yard.parts.small.cold_packs.rewrite("acme", await yard.pointers(ids[1:2]))
        assert name not in await yard.objects()
        await yard.holds(ids[1:])
    await client.aclose()


FULL = "HTTP/1.1 507 Insufficient Storage\r\nConnection: close\r\nContent-Length: 59\r\n\r\n"
FULL += "<Error><Code>InsufficientStorage</Code><Message/></Error>  "


async def test_a_bucket_that_is_full_slow_or_gone_costs_nothing_but_time(
    server: str, line: Line, *, valkey: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = servers.connect(valkey)
    name = make_bucket(server)
    async with objects_s3.bucket(section_of(line.url, name)) as store:
        yard = Yard(tiering(client, Recorded(store), webhook(valkey)), Recorded(store), client, {})
        ids = await yard.fill(make, 4)
        # The tenant's key must have its copy before.
        await yard.move(ids[3:])
        for faults, deadline_s in ((FULL, 60.0), ("slow", 0.2)):
            monkeypatch.setattr(objects_s3, "DEADLINE_S", deadline_s)
            line.faults = [faults] * 8
            work = (yard.parts.transitions.move("acme", one, COLD) for one in ids[:3])
            for done in await asyncio.gather(*work, return_exceptions=True):
                assert getattr(done, "reason", "") == "COLD_STORE_UNREACHABLE"
            line.faults = []
            monkeypatch.setattr(objects_s3, "DEADLINE_S", 60.0)
            await yard.holds(ids)
        await yard.move(ids)
        await yard.holds(ids)
        lose_all(server)
        for read in await yard.parts.store.read("acme", ids, EVERYTHING):
            assert getattr(read, "reason", "") == "COLD_STORE_UNREACHABLE"
        (done,) = await asyncio.gather(
            yard.parts.transitions.move("acme", ids[0], HOT), return_exceptions=True
        )
        assert getattr(done, "reason", "") == "COLD_STORE_UNREACHABLE"
        with pytest.raises(ObjectTrouble, match="NoSuchBucket"):
            await yard.parts.small.cold_packs.forget("acme", await yard.pointers(ids[:1]))
    await client.aclose()
