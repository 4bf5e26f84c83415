"""Batches: how full they are, who goes first, how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from webhook_intelligence.embeddings.batches import Batches, Bounds, Lane, Waiting
from webhook_intelligence.providers.pace import Pace
from webhook_intelligence.providers.protocol import Embedding

ONE = Embedding(np.ones(1, np.float32))
WIDE = Bounds(texts=100, tokens=10_000, bytes=1_000_000, linger_s=0.1)
FAR = 1e9


class Provider:
    """Remembers its calls; they last until it is told otherwise."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.free = asyncio.Event()
        self.free.set()

    async def ask(self, batch: list[Waiting]) -> Sequence[Embedding]:
        self.calls.append([waiting.text for waiting in batch])
        await self.free.wait()
        return [ONE] * len(batch)


def submit(
    batches: Batches, texts: Sequence[str], lane: Lane = Lane.QUERY, tokens: int = 1
) -> list[asyncio.Future]:  # type: ignore[type-arg]  # any
    return [batches.submit(text, tokens=tokens, lane=lane, deadline=FAR) for text in texts]


async def test_a_batch_is_closed_by_count_tokens_or_bytes() -> None:
    provider = Provider()
    pace = Pace(first=10, most=10)
    for bounds, tokens, size in (
        (Bounds(texts=10, tokens=10_000, bytes=10_000), 1, 10),
        (Bounds(texts=100, tokens=40, bytes=10_000), 8, 5),
        (Bounds(texts=100, tokens=10_000, bytes=30), 1, 3),
    ):
        provider.calls.clear()
        async with Batches(provider.ask, bounds, pace) as batches:
            await asyncio.gather(*submit(batches, [f"text {i:05}" for i in range(30)], tokens=tokens))
        assert [len(call) for call in provider.calls] == [size] * (30 // size)
        assert [text for call in provider.calls for text in call] == [f"text {i:05}" for i in range(30)]


async def test_a_text_that_is_too_much_goes_alone() -> None:
    provider = Provider()
    async with Batches(
        provider.ask, Bounds(texts=10, tokens=10, bytes=1000), Pace(first=1, most=1)
    ) as batches:
        await asyncio.gather(
            *submit(batches, ["a"]), *submit(batches, ["huge"], tokens=50), *submit(batches, ["b"])
        )
    assert provider.calls == [["a"], ["huge"], ["b"]]


async def test_one_that_is_alone_waits_for_company_as_long_as_the_linger() -> None:
    provider = Provider()
    clock = asyncio.get_running_loop().time
    async with Batches(provider.ask, WIDE, Pace(first=4, most=4)) as batches:
        began = clock()
        await asyncio.gather(*submit(batches, ["alone"]))
        assert 0.1 <= clock() - began < 1.0
        for i in range(6):
            submit(batches, [f"late {i}"])
            await asyncio.sleep(0.001)
    assert provider.calls == [["alone"], [f"late {i}" for i in range(6)]]


async def test_a_full_batch_does_not_wait() -> None:
    provider = Provider()
    patient = Bounds(texts=3, tokens=100, bytes=1000, linger_s=60)
    async with asyncio.timeout(5), Batches(provider.ask, patient, Pace(first=1, most=1)) as batches:
        first = submit(batches, ["a", "b"])
        await asyncio.sleep(0)
        await asyncio.gather(*first, *submit(batches, ["c"]))
    assert provider.calls == [["a", "b", "c"]]


async def test_queries_go_before_events_and_these_before_backfill() -> None:
    provider = Provider()
    provider.free.clear()
    bounds = Bounds(texts=2, tokens=100, bytes=1000)
    async with Batches(provider.ask, bounds, Pace(first=1, most=1)) as batches:
        submit(batches, ["first"])
        await asyncio.sleep(0.001)
        submit(batches, ["old 1", "old 2"], Lane.BACKFILL)
        submit(batches, ["event 1", "event 2"], Lane.EVENT)
        submit(batches, ["query 1"], Lane.QUERY)
        provider.free.set()
    assert provider.calls == [["first"], ["query 1", "event 1"], ["event 2", "old 1"], ["old 2"]]


async def test_where_a_call_is_no_journey_a_query_waits_for_nothing_beside_it() -> None:
    provider = Provider()
    provider.free.clear()
    bounds = Bounds(texts=10, tokens=100, bytes=1000, mixed=False)
    async with Batches(provider.ask, bounds, Pace(first=1, most=1)) as batches:
        submit(batches, ["first"])
        await asyncio.sleep(0.001)
        submit(batches, ["old"], Lane.BACKFILL)
        submit(batches, ["event 1", "event 2"], Lane.EVENT)
        submit(batches, ["query 1"], Lane.QUERY)
        provider.free.set()
    assert provider.calls == [["first"], ["query 1"], ["event 1", "event 2"], ["old"]]


@pytest.mark.parametrize("pace", [Pace(first=4, most=4), Pace(first=4, most=4, kept_for_queries=1)])
async def test_bulk_work_leaves_a_call_free_for_queries(pace: Pace) -> None:
    provider = Provider()
    provider.free.clear()
    bounds = Bounds(texts=1, tokens=100, bytes=1000)
    async with Batches(provider.ask, bounds, pace) as batches:
        submit(batches, [f"old {i}" for i in range(8)], Lane.BACKFILL)
        await asyncio.sleep(0.001)
        assert len(provider.calls) == 3
        submit(batches, ["query"])
        await asyncio.sleep(0.001)
        assert provider.calls[3] == ["query"]
        provider.free.set()
    assert len(provider.calls) == 9


async def test_the_pace_halves_once_per_round_and_grows_with_answers() -> None:
    pace = Pace(first=8, most=16)
    for _ in range(5):
        pace.limited(0.0)
    assert pace.allowed == 4
    for _ in range(200):
        pace.answered()
    assert pace.allowed == 16
    pace.limited(0.5)
    assert 0.3 < pace.held_s <= 0.5
    fixed = Pace(first=2, most=2)
    fixed.answered()
    assert (fixed.allowed, fixed.kept_for_queries) == (2, 0)
    assert Pace(first=2, most=2, kept_for_queries=1).kept_for_queries == 1


async def test_what_the_call_raises_goes_to_all_of_the_batch_and_no_further() -> None:
    async def ask(batch: list[Waiting]) -> Sequence[Embedding]:
        if batch[0].text == "bad":
            raise ValueError("no")
        return [ONE] * len(batch)

    async with Batches(ask, Bounds(texts=2, tokens=100, bytes=1000), Pace(first=1, most=1)) as batches:
        bad, along, good = submit(batches, ["bad", "along", "good"])
        results = await asyncio.gather(bad, along, good, return_exceptions=True)
    assert [type(result) for result in results] == [ValueError, ValueError, Embedding]
