"""The spool on a real disk: bounded, in order, and still there after a kill."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sqlite3
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Unavailable
from webhook_gateway.publishing import spool as spooling
from webhook_gateway.publishing.durability import Assurance
from webhook_gateway.publishing.keeping import drained
from webhook_gateway.publishing.spool import EVENT_OVERHEAD_BYTES, opened
from webhook_gateway.publishing.stream import Publisher

from gateway.tests.publications import apart


def spool_in(directory, *, max_events: int = 1000, max_bytes: int = 2**20):
    return opened(directory, max_events=max_events, max_bytes=max_bytes)


def ids(held) -> list[str]:
    return [each.publication.event_id for each in held]


async def test_what_was_kept_is_found_again_whole_and_in_order(tmp_path):
    events = [
        apart(f"e{i}", quarantined=i % 2 == 1, durability=i % 4, received_ms=1_700_000_000_000 + i)
        for i in range(20)
    ]
    async with spool_in(tmp_path) as spool:
        kept = [result for part in (events[:7], events[7:]) for result in await spool.keep(part)]
        assert kept == [Accepted(event.event_id, event.quarantined) for event in events]
    async with spool_in(tmp_path) as spool:
        assert [each.publication for each in await spool.read(0)] == events
        assert spool.events == 20
        assert spool.size_bytes == sum(len(event.sealed) + EVENT_OVERHEAD_BYTES for event in events)
        assert spool.oldest_ms == events[0].received_ms
        assert spool.oldest_age_s == pytest.approx(time.time() - 1_700_000_000, abs=5)


async def test_a_killed_process_leaves_all_that_it_promised(tmp_path):
    # It says each id only once the spool has said that it is kept.
    program = f"""
import asyncio, pathlib, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_spool import apart, spool_in
async def main():
    async with spool_in(pathlib.Path({str(tmp_path)!r}), max_events=10**6, max_bytes=2**30) as spool:
        n = 0
        while True:
            batch = [apart(f"e{{n + i}}", sealed=bytes(1500)) for i in range(16)]
            await spool.keep(batch)
            n += len(batch)
            print(n, flush=True)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while int((promised := await process.stdout.readline()) or 0) < 320:
            assert promised
    process.send_signal(signal.SIGKILL)
    rest = (await process.stdout.read()).split()
    await process.wait()
    count = int(rest[-1] if rest else promised)
    async with spool_in(tmp_path) as spool:
        assert spool.events >= count
        assert ids(await spool.read(0))[:100] == [f"e{i}" for i in range(100)]


async def test_reading_goes_on_after_a_position_and_in_bounded_portions(tmp_path, monkeypatch):
    monkeypatch.setattr(spooling, "BATCH_EVENTS", 4)
    monkeypatch.setattr(spooling, "BATCH_BYTES", 4500)
    async with spool_in(tmp_path) as spool:
        await spool.keep([apart(f"s{i}") for i in range(5)])
        await spool.keep([apart(f"b{i}", sealed=bytes(1000)) for i in range(5)])
        first = await spool.read(0)
        assert ids(first) == ["s0", "s1", "s2", "s3"]
        await spool.drop(first)
        assert ids(second := await spool.read(first[-1].position)) == ["s4", "b0", "b1", "b2"]
        assert ids(await spool.read(second[1].position)) == ["b1", "b2", "b3"]


async def test_positions_never_come_again(tmp_path):
    async with spool_in(tmp_path) as spool:
        await spool.keep([apart("a")])
        (first,) = await spool.read(0)
        await spool.drop([first])
    async with spool_in(tmp_path) as spool:
        await spool.keep([apart("b")])
        assert ids(await spool.read(first.position)) == ["b"]


async def test_a_delivery_is_held_as_often_as_its_window_allows(tmp_path):
    def again(event_id: str, occurrences: int = 1) -> Publication:
        return apart(event_id, dedup_key="k", occurrences_allowed=occurrences)

    async with spool_in(tmp_path) as spool:
        assert await spool.keep([again("a"), again("b"), again("a")]) == [
            Accepted("a", quarantined=False),
            Duplicate("a"),
            Accepted("a", quarantined=False),
        ]
        assert await spool.keep([again("c")]) == [Duplicate("a")]
        assert await spool.keep([again("d", 2)]) == [Accepted("d", quarantined=False)]
        assert spool.first_of(again("e", 2)) == Duplicate("a")
        assert spool.first_of(again("e", 3)) is None
        assert await spool.keep([again("q")._replace(quarantined=True)]) == [Accepted("q", quarantined=True)]
    async with spool_in(tmp_path) as spool:
        assert spool.first_of(again("e")) == Duplicate("a")
        held = await spool.read(0)
        await spool.drop(held[:1])
        assert spool.first_of(again("e")) == Duplicate("d")
        await spool.drop(held[1:])
        assert spool.first_of(again("e")) is None


async def test_past_the_bound_nothing_is_kept_and_room_is_used_again(tmp_path):
    async with spool_in(tmp_path, max_events=3) as spool:
        results = await spool.keep([apart(f"e{i}") for i in range(5)])
        assert [type(result) for result in results] == [Accepted] * 3 + [Unavailable] * 2
        assert results[-1].retry_after_s >= 10
        assert spool.is_full
        assert not spool.takes_events
        # What is there already costs nothing.
        assert await spool.keep([apart("x", dedup_key="key of e1"), apart("y")]) == [
            Duplicate("e1"),
            results[-1],
        ]
        await spool.drop((await spool.read(0))[:1])
        assert await spool.keep([apart("e9")]) == [Accepted("e9", quarantined=False)]
        assert spool.events == 3

    async with spool_in(tmp_path, max_bytes=2**20) as spool:
        await spool.drop(await spool.read(0))
        big = [apart(f"b{i}", sealed=bytes(2**18)) for i in range(4)]
        results = await spool.keep([*big, apart("small")])
        assert [type(result) for result in results] == [Accepted] * 3 + [Unavailable, Accepted]
        assert spool.size_bytes <= 2**20


async def test_an_empty_spool_gives_its_disk_back(tmp_path):
    async with spool_in(tmp_path, max_bytes=2**24) as spool:
        for i in range(4):
            await spool.keep([apart(f"b{i}", sealed=os.urandom(2**20))])
        assert size_of(tmp_path) > 4 * 2**20
        await spool.drop(await spool.read(0))
        assert size_of(tmp_path) < 2**18


def size_of(directory) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


@contextmanager
def no_larger_file(size_bytes: int):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_no_more_leaves_nothing_half_written(tmp_path):
    async with spool_in(tmp_path, max_bytes=2**24) as spool:
        await spool.keep([apart("before", sealed=bytes(1000))])
        with no_larger_file(300_000):
            results = await spool.keep([apart(f"e{i}", sealed=os.urandom(100_000)) for i in range(8)])
            assert {type(result) for result in results} == {Unavailable}
            assert (spool.is_failing, spool.takes_events) == (True, False)
            # Smaller ones may still fit.
            assert await spool.keep([apart("small")]) == [Accepted("small", quarantined=False)]
            assert spool.takes_events
        assert await spool.keep([apart("after")]) == [Accepted("after", quarantined=False)]
        assert ids(await spool.read(0)) == ["before", "small", "after"]
        assert spool.events == 3
    async with spool_in(tmp_path) as spool:
        assert ids(await spool.read(0)) == ["before", "small", "after"]


async def test_the_last_of_the_disk_is_left_alone(tmp_path, monkeypatch):
    async with spool_in(tmp_path) as spool:
        monkeypatch.setattr(spooling, "RESERVE_BYTES", 2**62)
        (result,) = await spool.keep([apart("a")])
        assert isinstance(result, Unavailable)
        assert spool.events == 0
        monkeypatch.setattr(spooling, "RESERVE_BYTES", 0)
        assert await spool.keep([apart("a")]) == [Accepted("a", quarantined=False)]


async def test_what_waits_can_be_seen(tmp_path):
    def shown(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"webhook_spool_{name}")

    async with spool_in(tmp_path) as spool:
        received_ms = int((time.time() - 100) * 1000)
        await spool.keep([apart("a", received_ms=received_ms), apart("b")])
        assert shown("events") == 2
        assert shown("bytes") == spool.size_bytes
        assert shown("oldest_age_seconds") == pytest.approx(100, abs=5)
        await spool.drop(await spool.read(0))
        assert (shown("events"), shown("bytes"), shown("oldest_age_seconds")) == (0, 0, 0)


async def test_two_gateways_do_not_share_a_directory(tmp_path):
    async with spool_in(tmp_path):
        with pytest.raises(RuntimeError, match=f"process {os.getpid()}.*directory of its own"):
            async with spool_in(tmp_path):
                pass
    async with spool_in(tmp_path):
        pass


async def test_a_directory_that_can_not_be_written_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RuntimeError, match=r"gateway\.spool\.directory: .* can't be written") as refused:
            async with spool_in(directory):
                pass
        assert "\n" not in str(refused.value)


async def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path):
    content = b"no database at all, but maybe somebody's events " * 100
    (tmp_path / spooling.FILE).write_bytes(content)
    with pytest.raises(RuntimeError, match="move the file aside") as refused:
        async with spool_in(tmp_path):
            pass
    assert "\n" not in str(refused.value)
    assert (tmp_path / spooling.FILE).read_bytes() == content


async def test_a_file_of_an_older_gateway_is_read(tmp_path):
    older = [name for name in Publication._fields if name not in Publication._field_defaults]
    with sqlite3.connect(tmp_path / spooling.FILE) as database:
        columns = ", ".join(f'"{name}"' for name in older)
        database.execute(f"CREATE TABLE events (position INTEGER PRIMARY KEY AUTOINCREMENT, {columns})")
        values = apart("old")[: len(older)]
        marks = ", ".join("?" * len(older))
        database.execute(f"INSERT INTO events ({columns}) VALUES ({marks})", values)
    database.close()
    async with spool_in(tmp_path) as spool:
        assert [each.publication for each in await spool.read(0)] == [apart("old")]


async def test_a_full_disk_does_not_keep_what_waits_from_redis(tmp_path, redis):
    publisher = Publisher(redis, patience_s=1, assurance=Assurance(redis, replicas=1, timeout_s=0.1))
    met = asyncio.get_running_loop().create_future()
    met.set_result(None)
    async with spool_in(tmp_path, max_bytes=2**24) as spool:
        for part in range(3):
            await spool.keep([apart(f"e{part}-{i}", sealed=os.urandom(2000)) for i in range(128)])
        async with asyncio.timeout(10):
            with no_larger_file(300_000):
                async with drained(publisher, spool, met):
                    while await redis.xlen("webhook-events") < 384:
                        await asyncio.sleep(0.02)
                    # They can't be deleted; but they are not published over and over.
                    await asyncio.sleep(0.2)
                    assert spool.events == 384
            async with drained(publisher, spool, met):
                while spool.events:
                    await asyncio.sleep(0.02)
        assert await redis.xlen("webhook-events") == 384
