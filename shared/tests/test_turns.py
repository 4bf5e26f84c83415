"""Lanes take turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from webhook_shared.coalesce import Coalescer
from webhook_shared.turns import Turns


def taken(turns: Turns[str]) -> str:
    found = []
    while turns:
        first = turns.first()
        assert turns.popleft() == first
        found.append(first)
    return " ".join(found)


def test_lanes_take_turns_and_keep_their_order() -> None:
    turns: Turns[str] = Turns(lambda item: item[0])
    for item in ("a1", "a2", "a3", "a4", "b1", "c1", "b2"):
        turns.append(item)
    assert len(turns) == 7
    assert taken(turns) == "a1 b1 c1 a2 b2 a3 a4"


def test_a_new_lane_waits_for_one_round_at_most() -> None:
    turns: Turns[str] = Turns(lambda item: item[0])
    for number in range(100):
        turns.append(f"a{number}")
        turns.append(f"b{number}")
    turns.popleft()
    turns.append("quiet")
    assert taken(turns).split().index("quiet") <= 2


def test_nothing_stays_of_lanes_in_which_nothing_waits() -> None:
    turns: Turns[int] = Turns(lambda item: item)
    for number in range(1000):
        turns.append(number)
        turns.popleft()
    assert (len(turns), len(turns._queues), len(turns._next)) == (0, 0, 0)


async def test_batches_are_made_of_all_lanes() -> None:
    batches: list[list[str]] = []
    gate = asyncio.Event()

    async def flush(batch: list[str]) -> Sequence[str]:
        batches.append(batch)
        await gate.wait()
        return batch

    async with Coalescer(
        flush, max_items=4, max_weight=100, weigh=len, lane=lambda item: item[0]
    ) as coalescer:
        first = coalescer.submit("a0")
        await asyncio.sleep(0)
        waiting = [coalescer.submit(item) for item in ("a1", "a2", "a3", "a4", "a5", "b1")]
        gate.set()
        assert await asyncio.gather(first, *waiting) == ["a0", "a1", "a2", "a3", "a4", "a5", "b1"]
    assert batches[1:] == [["a1", "b1", "a2", "a3"], ["a4", "a5"]]
