"""Contexts lie in a bucket as well as they do in a directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from webhook_context import keys

from services.context.tests.test_tiers import ISSUE, full, known, lifecycle, without_place
from shared.tests.s3_server import Line, failing_line, listed, make_bucket, moto_server, section_of


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
