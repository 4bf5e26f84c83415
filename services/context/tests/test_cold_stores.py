"""Both cold stores do the same; the bucket does it through all that a network and a server can do to it."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from webhook_context import cold_s3, keys
from webhook_context.cold import ColdMissing, ColdStore, ColdTrouble
from webhook_context.cold_directory import DirectoryColdStore
from webhook_context.settings import ColdStorageSection

from services.context.tests.s3_server import Line, failing_line, moto_server
from services.context.tests.test_tiers import ISSUE, full, known, lifecycle, without_place

NAME = "v1/owner/ab/context/00000000000000000001-name.pack"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto_server() as url:
        yield url


def _section(url: str, bucket: str, **changed: Any) -> ColdStorageSection:
    return ColdStorageSection(
        endpoint=url, bucket=bucket, access_key_id="id", secret_access_key=SecretStr("secret"), **changed
    )


def _make_bucket(url: str) -> str:
    name = f"contexts-{os.urandom(6).hex()}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT"), timeout=5):
        return name


def _listed(url: str, bucket: str) -> str:
    with urllib.request.urlopen(f"{url}/{bucket}?list-type=2", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture
async def line(server: str) -> AsyncIterator[Line]:
    async with failing_line(server) as up:
        yield up


@pytest.fixture
async def bucket(server: str, line: Line) -> AsyncIterator[ColdStore]:
    async with cold_s3.bucket(_section(line.url, _make_bucket(server))) as store:
        yield store


@pytest.fixture(params=["directory", "bucket", "bucket without extras"])
async def cold(request: Any, tmp_path: Path, server: str) -> AsyncIterator[ColdStore]:
    if request.param == "directory":
        yield DirectoryColdStore(tmp_path / "cold")
        return
    extras = request.param == "bucket"
    section = _section(
        server,
        _make_bucket(server),
        checksum_mode="when_supported" if extras else "when_required",
        conditional_writes=extras,
    )
    async with cold_s3.bucket(section) as store:
        yield store


async def test_what_is_put_is_there_until_it_is_deleted(cold: ColdStore) -> None:
    content = os.urandom(300_000)
    await cold.put(NAME, content)
    assert await cold.get(NAME) == content
    # Names are made once: whoever writes the same again has not heard of the first time.
    await cold.put(NAME, content)
    await cold.delete(NAME)
    with pytest.raises(ColdMissing):
        await cold.get(NAME)
    await cold.delete(NAME)


async def test_many_at_once(cold: ColdStore) -> None:
    names = [f"{NAME}-{n}" for n in range(20)]
    await asyncio.gather(*(cold.put(name, name.encode()) for name in names))
    assert await asyncio.gather(*(cold.get(name) for name in names)) == [name.encode() for name in names]


async def test_a_large_one_goes_in_parts(bucket: ColdStore, line: Line) -> None:
    content = os.urandom(cold_s3.MULTIPART_FROM_BYTES + 1)
    await bucket.put(NAME, content)
    assert line.seen == ["POST", "PUT", "PUT", "PUT", "POST"]
    assert await bucket.get(NAME) == content


@pytest.mark.parametrize("fault", ["500", "lost"])
async def test_a_write_outlasts_faults(bucket: ColdStore, line: Line, fault: str) -> None:
    line.faults = [fault]
    await bucket.put(NAME, b"content")
    assert line.seen == ["PUT", "PUT"]
    assert await bucket.get(NAME) == b"content"


@pytest.mark.parametrize("fault", ["500", "lost", "torn"])
async def test_a_read_outlasts_faults(bucket: ColdStore, line: Line, fault: str) -> None:
    await bucket.put(NAME, os.urandom(1000))
    whole = await bucket.get(NAME)
    line.faults = [fault]
    assert await bucket.get(NAME) == whole


async def test_a_server_that_stays_silent(
    bucket: ColdStore, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_s3, "DEADLINE_S", 0.2)
    for work in (bucket.put(NAME, b"content"), bucket.get(NAME), bucket.delete(NAME)):
        line.faults = ["slow"]
        with pytest.raises(ColdTrouble):
            await work


async def test_a_bucket_that_vanishes_is_no_missing_object(server: str) -> None:
    async with cold_s3.bucket(_section(server, "never-made")) as store:
        for work in (store.put(NAME, b"content"), store.get(NAME), store.delete(NAME)):
            with pytest.raises(ColdTrouble, match="NoSuchBucket"):
                await work


async def test_a_directory_that_is_not_mounted_is_no_missing_object(tmp_path: Path) -> None:
    store = DirectoryColdStore(tmp_path / "cold")
    for work in (store.get(NAME), store.delete(NAME)):
        with pytest.raises(ColdTrouble):
            await work


async def test_a_directory_is_not_left(tmp_path: Path) -> None:
    store = DirectoryColdStore(tmp_path / "cold")
    await store.put(NAME, b"content")
    (tmp_path / "secret").write_bytes(b"secret")
    with pytest.raises(ColdMissing):
        await store.get("../secret")


async def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    store = DirectoryColdStore(Path("/dev/full"))
    with pytest.raises(ColdTrouble):
        await store.put(NAME, b"content")


async def test_contexts_lie_in_a_bucket(
    server: str, line: Line, *, open_house: Any, valkey: Any, make: Any, payload: Any, redis: Any
) -> None:
    name = _make_bucket(server)
    sections = {"cold_storage": _section(line.url, name), "context_lifecycle": lifecycle()}
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
        assert pointer in _listed(server, name)
        assert "octo" not in pointer
        await house.delete(ISSUE)
        assert pointer not in _listed(server, name)
