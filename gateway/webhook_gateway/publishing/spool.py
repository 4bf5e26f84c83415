"""Keeps sealed events on this machine's disk while Redis is away: bounded, in order, fsynced.

One SQLite file and one thread that touches it: a batch is one transaction and one fsync, and the event
loop never waits for the disk. Nothing is acknowledged before it is in the file; whatever kills the process,
the next one that opens the directory finds it there. (Measured at 64 events of 1.5 KB a batch: SQLite keeps
47,000 events a second, an append-only file of our own 80,000. Neither is what limits us.)
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from webhook_gateway import metrics
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Published, Unavailable
from webhook_gateway.publishing.claims import Claims

log = structlog.get_logger()

FILE = "events.sqlite"
KEY = "webhook.gateway.spool.directory"
# What an event costs beside its sealed bytes, on disk and in the index in memory.
EVENT_OVERHEAD_BYTES = 512
# Of one read, which is one batch to Redis.
BATCH_EVENTS = 128
BATCH_BYTES = 8 * 2**20
FULL_RETRY_AFTER_S = 30.0
# So long a disk that failed counts as unfit, unless it is seen to work before.
FAILED_FOR_S = 10.0
# What we leave free on the disk: whoever empties the spool writes, too, and we are not alone there.
RESERVE_BYTES = 16 * 2**20
# An empty file that is larger is made small again.
SLACK_BYTES = 2**20

_FULL = Unavailable("spool", FULL_RETRY_AFTER_S)
_COLUMNS = ", ".join(f'"{name}"' for name in Publication._fields)
_VALUES = ", ".join("?" * len(Publication._fields))
# Positions only ever grow, so that whoever reads on after one misses nothing.
_TABLE = f"CREATE TABLE IF NOT EXISTS events (position INTEGER PRIMARY KEY AUTOINCREMENT, {_COLUMNS})"
_INSERT = f"INSERT INTO events ({_COLUMNS}) VALUES ({_VALUES})"  # noqa: S608  # names of our own fields
_SELECT = f"SELECT position, {_COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608  # likewise
# All but the sealed bytes: of these how many, in front.
_INDEX = "SELECT length(sealed), {} FROM events ORDER BY position".format(  # noqa: S608  # likewise
    _COLUMNS.replace('"sealed"', "x''")
)
_OLDEST = "SELECT received_ms FROM events ORDER BY position LIMIT 1"

T = TypeVar("T")


class Held(NamedTuple):
    """An event in the spool; its place and its size there."""

    position: int
    size_bytes: int
    publication: Publication


class Spool:
    """What Redis does not have yet. Made by `opened`.

    Attributes:
        events: How many.
        size_bytes: Sealed bytes and `EVENT_OVERHEAD_BYTES` for each.
        oldest_ms: When the first of them was received, Unix milliseconds; 0 where there is none.
    """

    def __init__(
        self,
        directory: Path,
        database: sqlite3.Connection,
        thread: Executor,
        *,
        max_events: int,
        max_bytes: int,
    ) -> None:
        self._directory = directory
        self._database = database
        self._thread = thread
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._failed_at_s = float("-inf")
        # Of what is held; only what is committed.
        self._claims = Claims()
        self.events = 0
        self.size_bytes = 0
        self.oldest_ms = 0
        metrics.spool_oldest_age.set_function(lambda: self.oldest_age_s)

    @property
    def oldest_age_s(self) -> float:
        """How long ago the first event was received, seconds."""
        return max(0.0, time.time() - self.oldest_ms / 1000) if self.oldest_ms else 0.0

    @property
    def is_full(self) -> bool:
        """Whether not even a small event fits."""
        return self.events >= self._max_events or self.size_bytes + EVENT_OVERHEAD_BYTES > self._max_bytes

    @property
    def is_failing(self) -> bool:
        """Whether the disk has just refused to keep something."""
        return time.monotonic() - self._failed_at_s < FAILED_FOR_S

    @property
    def takes_events(self) -> bool:
        """Whether an event would be kept, as far as is known."""
        return not (self.is_full or self.is_failing)

    def first_of(self, publication: Publication) -> Duplicate | None:
        """The event that this delivery repeats, if the spool holds as many of them as may pass."""
        return self._claims.first_of(publication)

    async def keep(self, publications: Sequence[Publication]) -> list[Published]:
        """Keep each, or say why not; in order. What is answered `Accepted` is on the disk."""
        if self.is_full and all(self.first_of(each) is None for each in publications):
            metrics.spool_refused.labels("full").inc(len(publications))
            return [_FULL] * len(publications)
        return await self._run(lambda: self._keep(publications))

    async def read(self, after: int) -> list[Held]:
        """The next events behind a position, oldest first: a batch of them at most.

        Raises:
            sqlite3.Error: The disk does not give them.
        """
        return await self._run(lambda: self._read(after))

    async def drop(self, held: Sequence[Held]) -> None:
        """Forget events that are safe elsewhere.

        Raises:
            sqlite3.Error: The disk does not take it; they are still there.
        """
        await self._run(lambda: self._drop(held))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- in the thread --------------------------------------------------------------------------

    def load(self) -> None:
        """Learn what the file holds."""
        for length, *values in self._database.execute(_INDEX):
            self._claims.add(_event(values))
            self.events += 1
            self.size_bytes += length + EVENT_OVERHEAD_BYTES
        self._show()

    def _keep(self, publications: Sequence[Publication]) -> list[Published]:
        batch = _Batch(self._claims, self._max_events - self.events, self._max_bytes - self.size_bytes)
        results = [batch.take(publication) for publication in publications]
        if not batch.taken:
            return results
        try:
            _leave_free(self._directory, RESERVE_BYTES)
            with self._database:
                self._database.executemany(_INSERT, batch.taken)
        except (OSError, sqlite3.Error) as error:
            self._failed_at_s = time.monotonic()
            log.error("spool.failed", error=_kind(error), events=len(batch.taken))
            metrics.spool_refused.labels("disk").inc(len(batch.taken))
            # All of them: what was recognised may have been recognised by what is not there now.
            return [_FULL] * len(publications)
        self._failed_at_s = float("-inf")
        for publication in batch.taken:
            self._claims.add(publication)
        self.events += len(batch.taken)
        self.size_bytes += batch.size_bytes
        metrics.spool_kept.inc(len(batch.taken))
        self._show()
        return results

    def _read(self, after: int) -> list[Held]:
        held: list[Held] = []
        total_bytes = 0
        with closing(self._database.execute(_SELECT, (after, BATCH_EVENTS))) as rows:
            for position, *values in rows:
                event = _event(values)
                size_bytes = len(event.sealed) + EVENT_OVERHEAD_BYTES
                held.append(Held(position, size_bytes, event))
                total_bytes += size_bytes
                if total_bytes >= BATCH_BYTES:
                    break
        return held

    def _drop(self, held: Sequence[Held]) -> None:
        with self._database:
            self._database.executemany(
                "DELETE FROM events WHERE position = ?", [(each.position,) for each in held]
            )
        for _, size_bytes, publication in held:
            self._claims.drop(publication)
            self.events -= 1
            self.size_bytes -= size_bytes
        try:
            if not self.events:
                self._give_room_back()
            self._show()
        except sqlite3.Error as error:
            # They are gone all the same.
            log.warning("spool.not_tidied", error=_kind(error))

    def _give_room_back(self) -> None:
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._database.execute("PRAGMA page_size").fetchone()
        if pages * page_bytes > SLACK_BYTES:
            self._database.execute("VACUUM")
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _show(self) -> None:
        oldest = self._database.execute(_OLDEST).fetchone()
        self.oldest_ms = oldest[0] if oldest else 0
        metrics.spool_events.set(self.events)
        metrics.spool_bytes.set(self.size_bytes)


class _Batch:
    """What of a batch goes to disk, and what is said of each once it is there.

    Attributes:
        taken: What to write.
        size_bytes: Of what is taken.
    """

    def __init__(self, held: Claims, room_events: int, room_bytes: int) -> None:
        self._claims = Claims(held)
        self._room_events = room_events
        self._room_bytes = room_bytes
        self.taken: list[Publication] = []
        self.size_bytes = 0

    def take(self, publication: Publication) -> Published:
        """Take it, unless it is here already or there is no room."""
        if publication in self._claims:
            return Accepted(publication.event_id, publication.quarantined)
        if (first := self._claims.first_of(publication)) is not None:
            return first
        size_bytes = len(publication.sealed) + EVENT_OVERHEAD_BYTES
        if len(self.taken) >= self._room_events or self.size_bytes + size_bytes > self._room_bytes:
            metrics.spool_refused.labels("full").inc()
            return _FULL
        self.taken.append(publication)
        self._claims.add(publication)
        self.size_bytes += size_bytes
        return Accepted(publication.event_id, publication.quarantined)


@asynccontextmanager
async def opened(directory: Path, *, max_events: int, max_bytes: int) -> AsyncIterator[Spool]:
    """The spool in a directory of its own, which no other process has while inside.

    Args:
        directory: On a disk of this machine; made where it is missing.
        max_events: Most events.
        max_bytes: Most bytes, counted as `Spool.size_bytes`.

    Raises:
        RuntimeError: The directory can't be written, another process has it, or the file is damaged.
    """
    loop = asyncio.get_running_loop()
    with _owned(directory), ThreadPoolExecutor(1, thread_name_prefix="spool") as thread:
        try:
            database = await loop.run_in_executor(thread, _database, directory)
            spool = Spool(directory, database, thread, max_events=max_events, max_bytes=max_bytes)
            await loop.run_in_executor(thread, spool.load)
        except (OSError, sqlite3.Error) as error:
            raise RuntimeError(
                f"{KEY}: {directory / FILE} can't be used ({_kind(error)}); "
                "make its disk writable, or move the file aside: it may hold events that nobody else has"
            ) from None
        if spool.events:
            log.warning("spool.found", events=spool.events, oldest_age_s=round(spool.oldest_age_s))
        try:
            yield spool
        finally:
            if spool.events:
                log.warning("spool.left", events=spool.events, why="the next gateway here publishes them")
            await loop.run_in_executor(thread, database.close)
            _count_nothing()


def _leave_free(directory: Path, reserve_bytes: int) -> None:
    disk = os.statvfs(directory)
    if disk.f_bavail * disk.f_frsize < reserve_bytes:
        raise OSError(errno.ENOSPC, "the disk is nearly full")


def _count_nothing() -> None:
    metrics.spool_events.set(0)
    metrics.spool_bytes.set(0)
    metrics.spool_oldest_age.set_function(lambda: 0.0)


@contextmanager
def _owned(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RuntimeError(
            f"{KEY}: {directory} can't be written ({error.strerror}); make it writable, name another one, "
            "or leave it empty to do without a spool"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode() or "unknown"
            raise RuntimeError(
                f"{KEY}: {directory} is the spool of a gateway that runs (process {holder}); "
                "give each gateway a directory of its own"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _database(directory: Path) -> sqlite3.Connection:
    database = sqlite3.connect(directory / FILE)
    (directory / FILE).chmod(0o600)
    # Nobody else is here, so the index of the log needs no memory that is shared through a file.
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    with database:
        database.execute(_TABLE)
        _add_columns(database)
    # The file's own name must survive a power cut, too.
    for folder in (directory, directory.parent):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return database


def _add_columns(database: sqlite3.Connection) -> None:
    """Bring a file that an older gateway left to what an event is made of now."""
    there = {row[1] for row in database.execute("PRAGMA table_info(events)")}
    for name in Publication._fields:
        if name not in there:
            # A later field has a default, or what an older gateway kept could not be read at all.
            default: Any = Publication._field_defaults[name]
            literal = database.execute("SELECT quote(?)", (default,)).fetchone()[0]
            database.execute(f'ALTER TABLE events ADD COLUMN "{name}" DEFAULT {literal}')


def _event(values: Sequence[Any]) -> Publication:
    event = Publication(*values)
    return event._replace(quarantined=bool(event.quarantined))


def _kind(error: Exception) -> str:
    # Its text may hold a path, but no event: SQLite quotes no values.
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return f"{name}: {error}"
