"""Batches form while one is under way, and nobody waits for a timer."""

import asyncio
from collections.abc import Sequence

import pytest
from webhook_shared.coalesce import Coalescer


class Recorder:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def flush(self, batch: list[int]) -> Sequence[int | Exception]:
        self.batches.append(batch)
        await self.gate.wait()
        return [ValueError("odd") if item % 2 else item * 10 for item in batch]


async def test_arrivals_leave_together_once_the_first_batch_is_back() -> None:
    recorder = Recorder()
    async with Coalescer(recorder.flush, max_items=100) as coalescer:
        first = coalescer.submit(0)
        await asyncio.sleep(0.01)
        rest = [coalescer.submit(n) for n in (2, 4, 6)]
        await asyncio.sleep(0.01)
        assert recorder.batches == [[0]]
        recorder.gate.set()
        assert await asyncio.gather(first, *rest) == [0, 20, 40, 60]
    assert recorder.batches == [[0], [2, 4, 6]]


async def test_the_next_batch_leaves_before_the_last_one_is_answered() -> None:
    happened: list[str] = []
    back = asyncio.Event()

    async def flush(items: list[str]) -> list[str]:
        # Its call is a task of its own, as a remote call is.
        await asyncio.create_task(_note(happened, f"left {items}"))
        await back.wait()
        return items

    async with Coalescer(flush, max_items=10) as coalescer:
        first = coalescer.submit("a")
        first.add_done_callback(lambda _: happened.append("answered a"))
        await asyncio.sleep(0.01)
        second = coalescer.submit("b")
        back.set()
        assert await asyncio.gather(first, second) == ["a", "b"]
    assert happened == ["left ['a']", "left ['b']", "answered a"]


async def test_leaving_waits_until_all_are_answered() -> None:
    back = asyncio.Event()

    async def flush(items: list[int]) -> list[int]:
        await back.wait()
        return items

    async with Coalescer(flush, max_items=1, in_flight=2) as coalescer:
        futures = [coalescer.submit(item) for item in range(5)]
        back.set()
    assert all(future.done() for future in futures)


async def _note(happened: list[str], what: str) -> None:
    happened.append(what)


async def test_those_of_one_turn_share_a_batch_and_failures_are_their_own() -> None:
    recorder = Recorder()
    recorder.gate.set()
    async with Coalescer(recorder.flush, max_items=100) as coalescer:
        results = await asyncio.gather(*[coalescer.submit(n) for n in range(4)], return_exceptions=True)
    assert recorder.batches == [[0, 1, 2, 3]]
    assert [type(result) for result in results] == [int, ValueError, int, ValueError]


async def test_count_and_weight_bound_a_batch_but_never_stop_a_heavy_item() -> None:
    recorder = Recorder()
    recorder.gate.set()
    async with Coalescer(recorder.flush, max_items=3, max_weight=10, weigh=lambda n: n) as coalescer:
        await asyncio.gather(*[coalescer.submit(n) for n in (2, 2, 2, 8, 4, 50)])
    assert recorder.batches == [[2, 2, 2], [8], [4], [50]]


async def test_a_caller_who_leaves_does_not_stop_the_batch() -> None:
    recorder = Recorder()
    async with Coalescer(recorder.flush, max_items=10) as coalescer:
        leaving, staying = coalescer.submit(2), coalescer.submit(4)
        await asyncio.sleep(0.01)
        leaving.cancel()
        recorder.gate.set()
        assert await staying == 40


async def test_a_failing_flush_reaches_every_caller() -> None:
    async def flush(batch: list[int]) -> Sequence[int | Exception]:
        raise OSError("away")

    async with Coalescer(flush, max_items=10) as coalescer:
        results = await asyncio.gather(*[coalescer.submit(n) for n in range(3)], return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3


async def test_leaving_waits_for_what_is_queued() -> None:
    recorder = Recorder()
    recorder.gate.set()
    coalescer = Coalescer(recorder.flush, max_items=1)
    async with coalescer:
        futures = [coalescer.submit(n) for n in (2, 4, 6)]
    assert all(future.done() for future in futures)


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_no_more_batches_than_allowed_are_under_way(in_flight: int) -> None:
    recorder = Recorder()
    async with Coalescer(recorder.flush, max_items=1, in_flight=in_flight) as coalescer:
        futures = [coalescer.submit(n * 2) for n in range(6)]
        await asyncio.sleep(0.01)
        assert len(recorder.batches) == in_flight
        recorder.gate.set()
        await asyncio.gather(*futures)


async def test_a_batch_joins_others_only_once_it_has_grown_to_its_share_of_them() -> None:
    recorder = Recorder()
    async with Coalescer(recorder.flush, max_items=100, in_flight=2, joins_at=0.5) as coalescer:
        futures = [coalescer.submit(n * 2) for n in range(8)]
        await asyncio.sleep(0.01)
        futures += [coalescer.submit(n * 2) for n in range(3)]
        await asyncio.sleep(0.01)
        assert len(recorder.batches) == 1
        futures.append(coalescer.submit(6))
        await asyncio.sleep(0.01)
        assert [len(batch) for batch in recorder.batches] == [8, 4]
        recorder.gate.set()
        await asyncio.gather(*futures)


async def test_what_was_not_worth_a_batch_goes_when_nothing_is_under_way() -> None:
    recorder = Recorder()
    async with Coalescer(recorder.flush, max_items=100, in_flight=2, joins_at=0.5) as coalescer:
        futures = [coalescer.submit(n * 2) for n in range(8)]
        await asyncio.sleep(0.01)
        futures.append(coalescer.submit(4))
        recorder.gate.set()
        assert await futures[-1] == 40
        await asyncio.gather(*futures)
