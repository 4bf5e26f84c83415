"""Both stores of objects do the same; the bucket does it through all that network and server do to it."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from webhook_shared.objects import directory as objects_directory
from webhook_shared.objects import s3 as objects_s3
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble

from shared.tests.s3_server import (
    Line,
    failing_line,
    keep_versions,
    make_bucket,
    moto_server,
    section_of,
    versions,
)

NAME = "v1/owner/ab/context/00000000000000000001-name.pack"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
async def line(server: str) -> AsyncIterator[Line]:
    async with failing_line(server) as up:
        yield up


@pytest.fixture
async def bucket(server: str, line: Line) -> AsyncIterator[ObjectStore]:
    async with objects_s3.bucket(section_of(line.url, make_bucket(server))) as store:
        yield store


@pytest.fixture(params=["directory", "bucket", "bucket without extras"])
async def cold(request: Any, tmp_path: Path, server: str) -> AsyncIterator[ObjectStore]:
    if request.param == "directory":
        yield DirectoryObjectStore(tmp_path / "cold")
        return
    extras = request.param == "bucket"
    section = section_of(
        server,
        make_bucket(server),
        checksum_mode="when_supported" if extras else "when_required",
        conditional_writes=extras,
    )
    async with objects_s3.bucket(section) as store:
        yield store


async def test_what_is_put_is_there_until_it_is_deleted(cold: ObjectStore) -> None:
    content = os.urandom(300_000)
    await cold.put(NAME, content)
    assert await cold.get(NAME) == content
    # Names are made once: whoever writes the same again has not heard of the first time.
    await cold.put(NAME, content)
    assert await cold.part(NAME, 1000, 70) == content[1000:1070]
    assert await cold.part(NAME, len(content) - 5, 70) == content[-5:]
    assert await cold.part(NAME, len(content) + 5, 70) == b""
    await cold.delete(NAME)
    for read in (cold.get(NAME), cold.part(NAME, 0, 1)):
        with pytest.raises(ObjectMissing):
            await read
    await cold.delete(NAME)


@pytest.mark.parametrize("since", ["Enabled", "Suspended"])
async def test_what_is_deleted_leaves_no_version(server: str, since: str) -> None:
    name = make_bucket(server)
    keep_versions(server, name)
    # Without conditions, as a server that has none: so the second write makes another version.
    section = section_of(server, name, conditional_writes=False)
    async with objects_s3.bucket(section) as store:
        for content in (b"first", b"second"):
            await store.put(NAME, content)
        await store.put(f"{NAME}.other", b"begins alike")
        assert versions(server, name).count("<VersionId>") == 3
        keep_versions(server, name, since)
        await store.delete(NAME)
        with pytest.raises(ObjectMissing):
            await store.get(NAME)
        await store.delete(NAME)
        assert await store.names("v1/") == [f"{NAME}.other"]
    left = versions(server, name)
    assert left.count("<VersionId>") == 1
    assert "DeleteMarker" not in left


async def test_who_may_not_ask_for_versions_can_delete(bucket: ObjectStore, line: Line) -> None:
    await bucket.put(NAME, b"content")
    denied = b"<Error><Code>AccessDenied</Code></Error>"
    line.faults = [f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(denied)}\r\n\r\n{denied.decode()}"]
    await bucket.delete(NAME)
    with pytest.raises(ObjectMissing):
        await bucket.get(NAME)


async def test_many_at_once(cold: ObjectStore) -> None:
    names = [f"{NAME}-{n}" for n in range(20)]
    await asyncio.gather(*(cold.put(name, name.encode()) for name in names))
    assert await asyncio.gather(*(cold.get(name) for name in names)) == [name.encode() for name in names]


async def test_a_large_one_goes_in_parts(bucket: ObjectStore, line: Line) -> None:
    content = os.urandom(objects_s3.MULTIPART_FROM_BYTES + 1)
    await bucket.put(NAME, content)
    assert line.seen == ["POST", "PUT", "PUT", "PUT", "POST"]
    assert await bucket.get(NAME) == content


@pytest.mark.parametrize("fault", ["500", "lost"])
async def test_a_write_outlasts_faults(bucket: ObjectStore, line: Line, fault: str) -> None:
    line.faults = [fault]
    await bucket.put(NAME, b"content")
    assert line.seen == ["PUT", "PUT"]
    assert await bucket.get(NAME) == b"content"


@pytest.mark.parametrize("fault", ["500", "lost", "torn"])
async def test_a_read_outlasts_faults(bucket: ObjectStore, line: Line, fault: str) -> None:
    await bucket.put(NAME, os.urandom(1000))
    whole = await bucket.get(NAME)
    line.faults = [fault]
    assert await bucket.get(NAME) == whole


async def test_a_server_that_stays_silent(
    bucket: ObjectStore, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_s3, "DEADLINE_S", 0.2)
    for work in (bucket.put(NAME, b"content"), bucket.get(NAME), bucket.delete(NAME)):
        line.faults = ["slow"]
        with pytest.raises(ObjectTrouble):
            await work


async def test_a_bucket_that_vanishes_is_no_missing_object(server: str) -> None:
    async with objects_s3.bucket(section_of(server, "never-made")) as store:
        for work in (store.put(NAME, b"content"), store.get(NAME), store.delete(NAME)):
            with pytest.raises(ObjectTrouble, match="NoSuchBucket"):
                await work


async def test_a_directory_that_is_not_mounted_is_no_missing_object(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path / "cold")
    for work in (store.get(NAME), store.delete(NAME)):
        with pytest.raises(ObjectTrouble):
            await work


async def test_a_directory_is_not_left(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path / "cold")
    await store.put(NAME, b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ObjectMissing):
        await store.get("../secret")


def _files(directory: Path) -> list[Path]:
    return [path for path in _everything(directory) if path.is_file()]


def _everything(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryObjectStore(tmp_path / "cold")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    # What a disk has no room for shows at the latest when it is synced.
    monkeypatch.setattr(objects_directory.os, "fsync", full)
    with pytest.raises(ObjectTrouble, match="No space left"):
        await store.put(NAME, b"content")
    assert not _files(tmp_path)


async def test_no_directory_stays_when_its_last_object_is_gone(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path / "cold")
    names = ["a/b/c/one", "a/b/c/two", "a/b/d/three", "e"]
    for name in names:
        await store.put(name, b"content")
    await store.delete("a/b/c/one")
    assert await store.names("a/") == names[1:3]
    await asyncio.gather(*(store.delete(name) for name in names))
    assert _everything(tmp_path) == [tmp_path / "cold"]
    await store.put("a/b/c/one", b"again")
    assert await store.get("a/b/c/one") == b"again"


async def test_what_a_killed_writer_has_left_is_cleared_away_a_day_later(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path)
    await store.put("a/one", b"content")
    left, under_way = tmp_path / "a" / ".0.part", tmp_path / "a" / ".1.part"
    left.write_bytes(b"con")
    under_way.write_bytes(b"con")
    an_hour_ago = time.time() - 3600
    os.utime(under_way, (an_hour_ago, an_hour_ago))
    os.utime(left, (an_hour_ago - 86_400, an_hour_ago - 86_400))
    assert await store.names("") == ["a/one"]
    assert sorted(_files(tmp_path)) == [under_way, tmp_path / "a" / "one"]


async def test_directories_that_come_and_go_are_in_nobodys_way(tmp_path: Path) -> None:
    store = DirectoryObjectStore(tmp_path / "cold")

    async def comes_and_goes(name: str) -> None:
        for _ in range(30):
            await store.put(name, name.encode())
            assert await store.get(name) == name.encode()
            await store.delete(name)

    await asyncio.gather(*(comes_and_goes(f"a/{n % 2}/b/{n}") for n in range(8)))
    assert _everything(tmp_path) == [tmp_path / "cold"]


async def test_a_full_bucket_is_told_once(bucket: ObjectStore, line: Line) -> None:
    body = "<Error><Code>InsufficientStorage</Code><Message/></Error>"
    head = f"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: {len(body)}\r\nConnection: close"
    line.faults = [f"{head}\r\n\r\n{body}"]
    with pytest.raises(ObjectTrouble, match="InsufficientStorage"):
        await bucket.put(NAME, b"content")
    assert line.seen == ["PUT"]


async def test_names_are_told_in_order_and_in_pages(cold: ObjectStore) -> None:
    names = [f"a/{day}/{n}" for day in ("2026-01-01", "2026-01-02") for n in range(3)]
    await asyncio.gather(*(cold.put(name, b"content") for name in [*reversed(names), "b/other"]))
    assert await cold.names("a/") == names
    assert await cold.names("a/2026-01-02/") == names[3:]
    assert await cold.names("a/2026-01") == names
    assert await cold.names("a/", most=2) == names[:2]
    assert await cold.names("a/", after=names[1], most=2) == names[2:4]
    assert await cold.names("c/") == []
    await cold.delete(names[0])
    assert await cold.names("a/") == names[1:]


async def test_a_name_and_a_folder_that_begin_alike_are_in_order(cold: ObjectStore) -> None:
    names = ["d/a-b", "d/a/x", "d/a/y", "d/a0", "d/b"]
    for name in reversed(names):
        await cold.put(name, b"")
    assert await cold.names("d/") == sorted(names) == names
    assert [(await cold.names("d/", after=name, most=1))[:1] for name in names[:-1]] == [
        [one] for one in names[1:]
    ]


async def test_names_of_a_store_that_is_away(tmp_path: Path, server: str) -> None:
    with pytest.raises(ObjectTrouble):
        await DirectoryObjectStore(tmp_path / "not mounted").names("a/")
    async with objects_s3.bucket(section_of(server, "never-made")) as store:
        with pytest.raises(ObjectTrouble, match="NoSuchBucket"):
            await store.names("a/")
