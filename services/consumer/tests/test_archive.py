"""Processed events are kept, found, expired and forgotten; who dies on the way loses and doubles nothing."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from webhook_consumer.archive import metrics as archive_metrics
from webhook_consumer.archive import search as archive_search
from webhook_consumer.archive.events import Archived, Chunk, Damaged
from webhook_consumer.archive.facade import Archive
from webhook_consumer.archive.search import Wanted
from webhook_consumer.archive.segments import EVENTS, INDEX, Segments, Unreadable
from webhook_consumer.archive.settings import ArchiveSection
from webhook_consumer.archive.waiting import HELD, STREAM, Waiting
from webhook_consumer.entry import DONE, Entry, Outage, Retry
from webhook_shared.objects import opening as object_store
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.master_keys import MasterKeys

from shared.tests.s3_server import make_bucket, moto_server, section_of

MASTER = SecretStr("a-master-key-for-the-tests-only-0123456789")
NOON_MS = 1_795_392_000_000
HOUR_MS = 3_600_000
SETTINGS = ArchiveSection()


def fields(number: int, *, received_ms: int = 0, **changed: bytes) -> dict[bytes, bytes]:
    at_ms = received_ms or NOON_MS + number
    made = {
        b"id": f"event-{number:04}".encode(),
        b"tenant": b"acme",
        b"tool": b"github",
        b"type": b"issues",
        b"received": str(at_ms).encode(),
        b"schema": b"1",
        b"sealed": os.urandom(40) + str(number).encode(),
    }
    return made | {name.encode(): value for name, value in changed.items()}


class Dead(BaseException):
    """The process is gone."""


class Mortal:
    """A store of objects, and a process that dies before or after one of its calls."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.calls: list[str] = []
        self.dies_at = ""

    async def _done(self, step: str, work: Callable[[], Any]) -> Any:
        step = f"{step} {len([one for one in self.calls if one.startswith(step)])}"
        self.calls.append(step)
        if self.dies_at == f"before {step}":
            raise Dead
        result = await work()
        if self.dies_at == f"after {step}":
            raise Dead
        return result

    async def put(self, name: str, content: bytes) -> None:
        await self._done(f"put {_kind(name)}", lambda: self.store.put(name, content))

    async def get(self, name: str) -> bytes:
        found: bytes = await self._done(f"get {_kind(name)}", lambda: self.store.get(name))
        return found

    async def part(self, name: str, start: int, length: int) -> bytes:
        return await self.store.part(name, start, length)

    async def names(self, prefix: str, *, after: str = "", most: int = 1000) -> list[str]:
        return await self.store.names(prefix, after=after, most=most)

    async def delete(self, name: str) -> None:
        await self._done(f"delete {_kind(name)}", lambda: self.store.delete(name))


def _kind(name: str) -> str:
    return "events" if name.startswith(EVENTS) else "index" if name.startswith(INDEX) else "other"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(params=["directory", "bucket"])
async def store(request: Any, tmp_path: Path, server: str) -> AsyncIterator[ObjectStore]:
    if request.param == "directory":
        (tmp_path / "cold").mkdir()
        yield DirectoryObjectStore(tmp_path / "cold")
        return
    async with object_store.opened(section_of(server, make_bucket(server))) as bucket:
        yield bucket


@pytest.fixture
def folder(tmp_path: Path) -> DirectoryObjectStore:
    (tmp_path / "cold").mkdir()
    return DirectoryObjectStore(tmp_path / "cold")


def archive_of(redis: Client, store: ObjectStore, **changed: Any) -> Archive:
    return Archive(redis, store, MASTER, SETTINGS.model_copy(update=changed))


async def keep(redis: Client, *entries: dict[bytes, bytes]) -> None:
    """As stage one does."""
    assert await Waiting(redis, limit_bytes=2**30).add(Chunk.of(entries))


async def every(archive: Archive, wanted: Wanted | None = None, *, newest_first: bool = False) -> list[str]:
    portions = archive.catalogue.portions(wanted or Wanted(), newest_first=newest_first)
    return [found.row.event_id async for portion in portions for found in portion.events]


def ids(*numbers: int) -> list[str]:
    return [f"event-{number:04}" for number in numbers]


async def test_a_chunk_has_what_the_gateway_wrote() -> None:
    traced = fields(2, traceparent=b"00-aa-bb-01", attempt=b"3", first_id=b"1-0")
    entries = [fields(1), traced, fields(3, received=b"soon"), fields(4, received=str(NOON_MS * 9).encode())]
    del entries[2][b"type"]
    chunk = Chunk.of(entries)
    events = chunk.events(latest_ms=NOON_MS + HOUR_MS)
    assert [event.event_id for event in events] == ids(1, 2, 3, 4)
    assert [event.sealed for event in events] == [one[b"sealed"] for one in entries]
    assert events[1].traceparent == "00-aa-bb-01"
    assert events[2].type == ""
    # No time at all, and one from the future, count as now.
    assert [event.received_ms for event in events[2:]] == [NOON_MS + HOUR_MS] * 2
    for event, offset in zip(events, chunk.offsets(), strict=True):
        assert chunk.data[offset:].startswith(event.sealed)
    for damaged in (
        Chunk(chunk.data[:-1], chunk.sizes),
        Chunk(chunk.data, chunk.sizes[:-1]),
        Chunk(b"", b""),
    ):
        with pytest.raises(Damaged):
            damaged.events()


async def test_events_are_found_before_and_after_they_lie_in_segments(
    redis: Client, store: ObjectStore
) -> None:
    archive = archive_of(redis, store)
    await keep(redis, fields(1), fields(3, tool=b"gitlab"))
    await archive.flush()
    await keep(redis, fields(2, tenant=b"rival"), fields(4, type=b"push"))
    sealed = {}
    for _ in range(2):
        assert await every(archive) == ids(1, 2, 3, 4)
        assert await every(archive, newest_first=True) == ids(4, 3, 2, 1)
        for wanted, there in (
            (Wanted(tool="gitlab"), ids(3)),
            (Wanted(type="push"), ids(4)),
            (Wanted(tenant="rival"), ids(2)),
            (Wanted(event_id="event-0003"), ids(3)),
            (Wanted(from_ms=NOON_MS + 2, until_ms=NOON_MS + 4), ids(2, 3)),
            (Wanted(may_see=lambda tenant: tenant == "rival"), ids(2)),
            (Wanted(from_ms=NOON_MS + HOUR_MS), []),
        ):
            assert await every(archive, wanted) == there
        async for portion in archive.catalogue.portions(Wanted()):
            for found in portion.events:
                content = await archive.catalogue.sealed(found)
                assert sealed.setdefault(found.row.event_id, content) == content
                assert content.endswith(str(int(found.row.event_id[-4:])).encode())
        await archive.flush()
    assert await redis.xlen(STREAM) == 0
    assert not await redis.exists(HELD)


async def test_an_event_that_waited_when_it_was_found_is_read_from_its_segment(
    redis: Client, folder: ObjectStore
) -> None:
    archive = archive_of(redis, folder)
    entry = fields(1)
    await keep(redis, entry)
    found = await archive.catalogue.find("event-0001", lambda _: True)
    assert found is not None
    assert found.segment is None
    await archive.flush()
    assert await archive.catalogue.sealed(found) == entry[b"sealed"]
    await archive.forget("acme")
    assert await archive.catalogue.sealed(found) is None


async def test_pages_go_through_overlapping_segments_without_gap_or_repetition(
    redis: Client, folder: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_search, "MOST_INDEXES", 2)
    archive = archive_of(redis, folder)
    day_ms = 24 * HOUR_MS
    times = {number: NOON_MS - (number % 3) * day_ms + (number * 7919) % 50 for number in range(60)}
    for start in range(0, 60, 6):
        await keep(redis, *(fields(n, received_ms=times[n]) for n in range(start, start + 6)))
        if start != 54:
            await archive.flush()
    in_order = sorted(times, key=lambda n: (times[n], n))
    assert await every(archive) == ids(*in_order)
    for size in (4, 100):
        seen, token, pages = [], "", 0
        while token or not pages:
            page = await archive.catalogue.page(Wanted(), size, token)
            assert len(page.events) <= size
            seen += [found.row.event_id for found in page.events]
            token, pages = page.token, pages + 1
            assert pages < 200
        assert seen == ids(*reversed(in_order))
    portions = archive.catalogue.portions(Wanted(), after=f"{times[0]:013d} event-0000 acme")
    behind = [found.row.event_id async for portion in portions for found in portion.events]
    assert behind == ids(*in_order[in_order.index(0) + 1 :])
    for bad in ("mine", "bm9uZQ=="):
        with pytest.raises(ValueError, match="page token"):
            await archive.catalogue.page(Wanted(), 1, bad)


async def test_the_id_of_an_event_says_where_to_look(redis: Client, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    counting = Mortal(DirectoryObjectStore(tmp_path / "cold"))
    archive = archive_of(redis, counting)
    moment = NOON_MS - 30 * 24 * HOUR_MS
    event_id = str(uuid.UUID(int=moment << 80 | 7 << 76 | 2 << 62 | 12345))
    for hour in range(-20, 20, 4):
        await keep(redis, fields(hour + 100, received_ms=moment + hour * HOUR_MS))
        await archive.flush()
    await keep(redis, fields(1, id=event_id.encode(), received_ms=moment + 5))
    await archive.flush()
    counting.calls.clear()
    found = await archive.catalogue.find(event_id, lambda _: True)
    assert found is not None
    assert len([call for call in counting.calls if call.startswith("get index")]) <= 2


async def test_neither_names_nor_objects_tell_anything(redis: Client, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    archive = archive_of(redis, DirectoryObjectStore(tmp_path / "cold"))
    await keep(redis, fields(1, sealed=b"a sealed event"))
    await archive.flush()
    files = [file for file in (tmp_path / "cold").rglob("*") if file.is_file()]
    assert len(files) == 2
    for file in files:
        for told in (b"acme", b"github", b"issues", b"event-0001", b"a sealed event"):
            assert told not in file.read_bytes()
            assert told.decode() not in str(file)


async def test_a_damaged_segment_is_named_and_never_taken_for_an_empty_one(
    redis: Client, tmp_path: Path
) -> None:
    (tmp_path / "cold").mkdir()
    store = DirectoryObjectStore(tmp_path / "cold")
    await keep(redis, fields(1))
    await archive_of(redis, store).flush()
    for root, read in ((EVENTS, "sealed"), (INDEX, "index")):
        archive = archive_of(redis, store)
        found = await archive.catalogue.find("event-0001", lambda _: True)
        [name] = await store.names(root)
        whole = await store.get(name)
        for damaged in (whole[:-1], whole[:40] + b"!" + whole[41:], b"", b"WHA1"):
            await store.put(name, damaged)
            with pytest.raises(Unreadable):
                await (archive.catalogue.sealed(found) if read == "sealed" else every(archive))
        await store.put(name, whole)


async def test_what_is_away_is_trouble_and_not_an_empty_archive(redis: Client, tmp_path: Path) -> None:
    archive = archive_of(redis, DirectoryObjectStore(tmp_path / "not mounted"))
    await keep(redis, fields(1))
    with pytest.raises(ObjectTrouble):
        await every(archive)


# --- dying --------------------------------------------------------------------------------------------

STEPS = ["put events 0", "get events 0", "put index 0", "get index 0"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_dies_while_writing_loses_and_doubles_nothing(
    redis: Client, folder: ObjectStore, when: str, step: str
) -> None:
    mortal = Mortal(folder)
    await keep(redis, *(fields(n) for n in range(5)))
    mortal.dies_at = f"{when} {step}"
    with pytest.raises(Dead):
        await archive_of(redis, mortal).flush()
    # Dead or not: each event is there, once.
    heir = archive_of(redis, folder)
    assert await every(heir) == ids(*range(5))
    await keep(redis, fields(5))
    await heir.flush()
    assert await redis.xlen(STREAM) == 0
    assert await every(heir) == ids(*range(6))
    assert await every(heir, newest_first=True) == ids(*reversed(range(6)))


async def test_who_dies_between_writing_and_dropping_doubles_nothing(
    redis: Client, folder: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep(redis, *(fields(n) for n in range(5)))

    async def dead(*_: Any) -> None:
        raise Dead

    with monkeypatch.context() as patched:
        patched.setattr(Waiting, "drop", dead)
        with pytest.raises(Dead):
            await archive_of(redis, folder).flush()
    assert await redis.xlen(STREAM) == 1
    heir = archive_of(redis, folder)
    assert await every(heir) == ids(*range(5))
    await heir.flush()
    # Two segments have them now.
    assert len(await folder.names(INDEX)) == 2
    assert await every(heir) == ids(*range(5))


async def test_what_a_dead_writer_left_is_swept(
    redis: Client, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    mortal = Mortal(store)
    mortal.dies_at = "after put events 0"
    await keep(redis, fields(1))
    with pytest.raises(Dead):
        await archive_of(redis, mortal).flush()
    heir = archive_of(redis, store)
    await heir.flush()
    assert len(await store.names(EVENTS)) == 2
    await heir.archiver.sweep()
    assert len(await store.names(EVENTS)) == 2, "somebody may be writing it"
    monkeypatch.setattr("webhook_consumer.archive.archiver.LEFTOVER_AGE_MS", 0)
    await heir.archiver.sweep()
    assert len(await store.names(EVENTS)) == len(await store.names(INDEX)) == 1
    assert await every(heir) == ids(1)


async def test_what_is_not_there_as_written_is_not_dropped(redis: Client, folder: ObjectStore) -> None:
    class Flipping(Mortal):
        async def get(self, name: str) -> bytes:
            found = await self.store.get(name)
            return found[:-1] + bytes([found[-1] ^ 1])

    class Swallowing(Mortal):
        async def put(self, name: str, content: bytes) -> None:
            pass

    await keep(redis, fields(1))
    for bad in (Flipping(folder), Swallowing(folder)):
        with pytest.raises(ObjectTrouble, match="NotAsWritten"):
            await archive_of(redis, bad).flush()
        assert await redis.xlen(STREAM) == 1
    await archive_of(redis, folder).flush()
    assert await every(archive_of(redis, folder)) == ids(1)


@pytest.mark.parametrize("step", ["delete index 0", "delete events 0"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_who_dies_while_sweeping_leaves_no_half(
    redis: Client, folder: ObjectStore, when: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook_consumer.archive.archiver.LEFTOVER_AGE_MS", 0)
    segments = Segments(folder, MASTER)
    [event] = Chunk.of([fields(1)]).events()
    await segments.write([event], written_ms=NOON_MS - HOUR_MS * 24 * 400)
    mortal = Mortal(folder)
    mortal.dies_at = f"{when} {step}"
    with pytest.raises(Dead):
        await archive_of(redis, mortal).archiver.sweep()
    heir = archive_of(redis, folder)
    found = await heir.catalogue.find("event-0001", lambda _: True)
    assert found is None or await heir.catalogue.sealed(found) == event.sealed
    await heir.archiver.sweep()
    assert await folder.names("archive/") == []


# --- retention ----------------------------------------------------------------------------------------


async def test_what_has_been_kept_for_long_enough_goes_and_the_rest_is_counted(
    redis: Client, folder: ObjectStore
) -> None:
    archive = archive_of(redis, folder, retention=timedelta(hours=2))
    segments = Segments(folder, MASTER)
    now_ms = int(time.time() * 1000)
    for number, hours in ((1, 3), (2, 1), (3, 0)):
        events = Chunk.of([fields(number), fields(number + 10)]).events()
        await segments.write(events, written_ms=now_ms - hours * HOUR_MS)
    swept = await archive.archiver.sweep()
    assert (swept.events, swept.expired_events) == (4, 2)
    assert swept.oldest_ms == now_ms - HOUR_MS
    assert await every(archive) == ids(2, 3, 12, 13)
    await archive.archiver.step()
    assert archive_metrics.events._value.get() == 4
    assert archive_metrics.size._value.get() == swept.bytes > 0
    assert archive_metrics.oldest_age._value.get() == pytest.approx(3600, abs=60)


# --- forgetting ---------------------------------------------------------------------------------------


async def test_events_are_forgotten_wherever_they_are_and_stay_forgotten(
    redis: Client, store: ObjectStore
) -> None:
    archive = archive_of(redis, store)
    await keep(redis, *(fields(n) for n in range(4)))
    await keep(redis, fields(4, tenant=b"rival"))
    await archive.flush()
    await keep(redis, fields(5), fields(6))
    [(written,)] = [{segment.written_ms async for segment in Segments(store, MASTER).all()}]
    assert await archive.forget("acme", {"event-0001", "event-0005"}) == 1
    assert await every(archive) == ids(0, 2, 3, 4, 6)
    times = {segment.written_ms async for segment in Segments(store, MASTER).all()}
    assert written in times, "what was rewritten keeps its retention"
    # A late copy: somebody died before he could acknowledge it.
    await keep(redis, fields(1), fields(7))
    await archive.flush()
    assert await every(archive) == ids(0, 2, 3, 4, 6, 7)
    assert await archive.forget("acme", {"event-0001", "event-0005"}) == 0

    await archive.forget("acme")
    assert await every(archive) == ids(4)
    await keep(redis, fields(2))
    late = fields(8, received_ms=int(time.time() * 1000) + 5)
    await asyncio.sleep(0.01)
    await keep(redis, late)
    await archive.flush()
    assert await every(archive) == ids(4, 8), "what comes after it was forgotten is another matter"


async def test_an_archiver_that_has_read_what_is_being_forgotten_does_not_bring_it_back(
    redis: Client, folder: ObjectStore
) -> None:
    archive = archive_of(redis, folder)

    class Slow(Mortal):
        """While the segment is being written, its event is forgotten elsewhere."""

        async def put(self, name: str, content: bytes) -> None:
            if not self.calls:
                self.calls.append("once")
                assert await archive.forgotten.note("acme", {"event-0001"})
            await self.store.put(name, content)

    await keep(redis, fields(1), fields(2))
    await archive_of(redis, Slow(folder)).flush()
    assert await every(archive) == ids(2)
    assert len(await folder.names(INDEX)) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [*STEPS, "delete index 0", "delete events 0"])
async def test_who_dies_while_forgetting_forgets_the_next_time(
    redis: Client, folder: ObjectStore, when: str, step: str
) -> None:
    await keep(redis, *(fields(n) for n in range(3)))
    await archive_of(redis, folder).flush()
    mortal = Mortal(folder)
    mortal.dies_at = f"{when} {step}"
    with suppress(Dead):
        await archive_of(redis, mortal).forget("acme", {"event-0001"})
    heir = archive_of(redis, folder)
    assert set(ids(0, 2)) <= set(await every(heir))
    await heir.forget("acme", {"event-0001"})
    assert await every(heir) == ids(0, 2)


# --- keeping ------------------------------------------------------------------------------------------


class Stage:
    """Done with everything, or what it is told."""

    def __init__(self, outcome: Any = DONE) -> None:
        self.outcome = outcome

    async def handle(self, entries: Any) -> Any:
        return [self.outcome] * len(entries)


def entries(*numbers: int, **changed: bytes) -> list[Entry]:
    return [Entry(f"{n}-0".encode(), fields(n, **changed)) for n in numbers]


async def test_what_a_stage_has_done_is_kept_and_nothing_else(redis: Client, folder: ObjectStore) -> None:
    archive = archive_of(redis, folder)
    stage = archive.of(Stage())
    await asyncio.gather(stage.handle(entries(1, 2)), stage.handle(entries(3)))
    assert await redis.xlen(STREAM) == 1, "batches that end together are written together"
    await stage.handle(entries(4, replay=b"a-replay"))
    await archive.of(Stage(Retry("later"))).handle(entries(5))
    await archive_of(redis, folder, enabled=False).of(Stage()).handle(entries(6))
    assert await every(archive) == ids(1, 2, 3)
    await stage.handle(entries(7, 8, sealed=os.urandom(700_000)))
    assert await redis.xlen(STREAM) == 3, "large ones are not put into one value"
    assert await every(archive) == ids(1, 2, 3, 7, 8)


async def test_a_full_archive_counts_and_does_not_hold_up_anybody(redis: Client, folder: ObjectStore) -> None:
    archive = archive_of(redis, folder, waiting_limit=2**20)
    stage = archive.of(Stage())
    skipped = archive_metrics.skipped._value.get()
    for number in range(4):
        assert await stage.handle(entries(number, sealed=os.urandom(400_000))) == [DONE]
    assert archive_metrics.skipped._value.get() - skipped == 2
    await archive.flush()
    await stage.handle(entries(9))
    assert await every(archive) == ids(0, 1, 9)


async def test_a_server_without_memory_is_no_reason_not_to_acknowledge(
    redis: Client, folder: ObjectStore
) -> None:
    archive = archive_of(redis, folder)
    await keep(redis, fields(1))
    stage = archive.of(Stage())
    await stage.handle(entries(2))
    await redis.config_set("maxmemory", 1)
    try:
        assert await stage.handle(entries(3)) == [DONE]
        await archive.archiver.write()
        assert await redis.xlen(STREAM) == 0, "and what waits makes room"
    finally:
        await redis.config_set("maxmemory", 0)
    assert await every(archive) == ids(1, 2)


async def test_a_redis_that_is_away_is_an_outage(redis_server: Any, folder: ObjectStore) -> None:
    from webhook_shared import redis as store

    client = store.connect(redis_server.settings)
    stage = archive_of(client, folder).of(Stage())
    await stage.handle(entries(1))
    redis_server.stop()
    with pytest.raises(Outage):
        await stage.handle(entries(2))
    await client.aclose()


# --- at work ------------------------------------------------------------------------------------------


@asynccontextmanager
async def at_work(*archives: Archive) -> AsyncIterator[None]:
    if not archives:
        yield
        return
    async with archives[0].at_work(), at_work(*archives[1:]):
        yield


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_archivers_at_work_write_once_and_one_goes_on_for_another(
    redis: Client, folder: ObjectStore
) -> None:
    soon = timedelta(milliseconds=100)
    first, second = (archive_of(redis, folder, segment_age=soon) for _ in range(2))

    async def is_written() -> bool:
        return await redis.xlen(STREAM) == 0

    async with at_work(second):
        async with at_work(first):
            await keep(redis, *(fields(n) for n in range(10)))
            await until(is_written)
            assert len(await folder.names(INDEX)) == 1
        await keep(redis, fields(10))
        await until(is_written)
    assert await every(first) == ids(*range(11))
    assert await redis.keys("archive:*lease*") == []


async def test_an_archiver_goes_on_when_the_store_is_back(redis: Client, tmp_path: Path) -> None:
    place = tmp_path / "cold"
    place.write_text("not a directory")
    archive = archive_of(redis, DirectoryObjectStore(place), segment_age=timedelta(milliseconds=100))
    failures = archive_metrics.failures._value.get()

    async def has_failed() -> bool:
        return bool(archive_metrics.failures._value.get() > failures)

    async def is_written() -> bool:
        return await redis.xlen(STREAM) == 0

    async with archive.at_work():
        await keep(redis, fields(1))
        await until(has_failed)
        place.unlink()
        await until(is_written)
    assert await every(archive) == ids(1)


async def test_segments_of_every_master_key_are_read_with_the_latest_alone(
    redis: Client, folder: DirectoryObjectStore
) -> None:
    """The first one's as an earlier version wrote them."""
    first, last = SecretStr(MASTER.get_secret_value()[::-1]), MASTER
    keys = MasterKeys(last, [first])
    made = Archived("event-1", "acme", "github", "issues", NOON_MS, "1", "", b"sealed")
    [old] = await Segments(folder, keys).write([made])
    for name in (INDEX + old.stem, EVENTS + old.stem):
        sealed = await folder.get(name)
        await folder.delete(name)
        await folder.put(name, b"WHA1" + sealed[len(b"WHA2") + 8 :])
    await master_key_record.change_over(redis, keys, folder, keys.newest)
    [new] = await Segments(folder, keys).write([made._replace(event_id="event-2")])
    await master_key_record.retire(redis, folder, keys.newest.id)

    alone = MasterKeys(last)
    await master_key_record.settle(redis, alone, folder)
    segments = Segments(folder, alone)
    assert [row.event_id for one in (old, new) for row in await segments.index(one)] == ["event-1", "event-2"]
    with pytest.raises(Unreadable, match="is needed"):
        await Segments(folder, SecretStr("quite-another-key-0123456789-abcdefgh")).index(new)
