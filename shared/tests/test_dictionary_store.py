"""A tenant's dictionaries: used by it alone, here for whoever needs them, gone with its keys."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import zstandard
from pydantic import SecretStr
from webhook_shared import compression
from webhook_shared.compression import CompressionError, Dictionary
from webhook_shared.dictionaries.copies import Copies, keep_copied
from webhook_shared.dictionaries.store import Dictionaries, Entry
from webhook_shared.dictionaries.training import dictionary_of
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.sealing.envelope import HEADER_BYTES, Keyring
from webhook_shared.sealing.errors import UnknownDictionary, UnknownKey
from webhook_shared.tasks import ended

from shared.tests.dictionary_orders import orders

MASTER = SecretStr("0123456789abcdefghijklmnopqrstuvwxyzABCDEF")
DICTIONARY = dictionary_of(orders(400, seed=1), 16_384)
ANOTHER = dictionary_of(orders(400, seed=2), 16_384)
ONE = compression.identity(DICTIONARY)
ORDER = orders(1, seed=3)[0]
ENTRY = Entry("events", "shop", 0, "", 0, 0, len(DICTIONARY), 400, 9.0, 5.0)
AT = slice(HEADER_BYTES - 24, HEADER_BYTES - 16)


@pytest.fixture(autouse=True)
def _nothing_is_known_before() -> Iterator[None]:
    yield
    forget_here()


def forget_here() -> None:
    """What this process has learned, as if it had just started."""
    for one in (ONE, compression.identity(ANOTHER)):
        compression._known().pop(one, None)
        compression._workspace.decompressors.pop(one, None)


def _keyring(redis: Client, use: str = "events", **more: object) -> Keyring:
    return Keyring(redis, MASTER, Dictionaries(redis, use, spread_s=0, **more))  # type: ignore[arg-type]  # by name


@pytest.fixture
async def keyring(redis: Client) -> Keyring:
    made = _keyring(redis)
    await made.prepare(["acme", "globex"])
    return made


async def _adopted(keyring: Keyring, content: bytes = DICTIONARY) -> Entry:
    before = keyring.dictionaries.newest("acme", "shop")
    entry = await keyring.dictionaries.adopt("acme", content, ENTRY, before, keyring)
    assert entry is not None
    return entry


async def test_what_is_sealed_after_its_adoption_names_it_and_is_smaller(keyring: Keyring) -> None:
    without = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    assert (without[AT], sealed[AT]) == (bytes(8), ONE)
    assert len(sealed) - HEADER_BYTES < (len(without) - HEADER_BYTES) / 1.5
    assert keyring.open("acme", sealed, "event", "1") == ORDER
    assert keyring.open("acme", without, "event", "1") == ORDER


async def test_it_serves_no_other_tenant_source_or_use(keyring: Keyring, redis: Client) -> None:
    await _adopted(keyring)
    assert keyring.seal("globex", ORDER, "event", "1", dictionary="shop")[AT] == bytes(8)
    assert keyring.seal("acme", ORDER, "event", "1", dictionary="store")[AT] == bytes(8)
    other_use = _keyring(redis, "contexts")
    await other_use.prepare(["acme"])
    assert other_use.seal("acme", ORDER, "event", "1", dictionary="shop")[AT] == bytes(8)


async def test_a_process_that_lacks_it_says_so_and_looks_for_it(redis: Client, keyring: Keyring) -> None:
    reader = _keyring(redis, "")
    await reader.prepare(["acme"])
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    forget_here()
    with pytest.raises(UnknownDictionary):
        reader.open("acme", sealed, "event", "1")
    # Sealing goes on meanwhile.
    assert reader.seal("acme", ORDER, "event", "2")
    await reader.prepare(["acme"])
    assert reader.open("acme", sealed, "event", "1") == ORDER


async def test_a_missing_one_is_never_replaced_by_another(redis: Client, keyring: Keyring) -> None:
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    wrong = keyring.seal("acme", ANOTHER, "dictionary", ONE.hex(), fresh=True)
    reader = _keyring(redis, "")
    for planted in (None, b"garbage", wrong, sealed):
        forget_here()
        if planted is None:
            await redis.delete(f"dictionary:{{acme}}:{ONE.hex()}")
        else:
            await redis.set(f"dictionary:{{acme}}:{ONE.hex()}", planted)
        await reader.prepare(["acme"])
        with pytest.raises(UnknownDictionary):
            reader.open("acme", sealed, "event", "1")


async def test_it_lies_sealed(redis: Client, keyring: Keyring) -> None:
    await _adopted(keyring)
    stored = b"".join([await redis.dump(key) or b"" for key in await redis.keys("dictionar*")])
    assert b"customer" not in stored
    assert DICTIONARY[2000:2032] not in stored


async def test_it_is_used_only_when_everybody_has_had_time_to_load_it(redis: Client) -> None:
    keyring = Keyring(redis, MASTER, Dictionaries(redis, "events", spread_s=60))
    await keyring.prepare(["acme"])
    entry = await _adopted(keyring)
    assert keyring.seal("acme", ORDER, "event", "1", dictionary="shop")[AT] == bytes(8)
    assert not keyring.dictionaries.is_used("acme", entry)
    started_later = _keyring(redis)
    await started_later.prepare(["acme"])
    assert started_later.seal("acme", ORDER, "event", "1", dictionary="shop")[AT] == bytes(8)
    assert started_later.dictionaries.newest("acme", "shop") == entry


async def test_of_two_trainers_at_once_one_wins(redis: Client, keyring: Keyring) -> None:
    rival = _keyring(redis)
    await rival.prepare(["acme"])
    won = await asyncio.gather(
        keyring.dictionaries.adopt("acme", DICTIONARY, ENTRY, None, keyring),
        rival.dictionaries.adopt("acme", ANOTHER, ENTRY, None, rival),
    )
    (entry,) = [one for one in won if one is not None]
    assert len(await redis.keys("dictionary:*")) == 1
    late = _keyring(redis)
    await late.prepare(["acme"])
    assert late.dictionaries.entries("acme") == [entry]


async def test_an_adoption_that_is_repeated_is_one(redis: Client, keyring: Keyring) -> None:
    entry = await _adopted(keyring)
    again = await keyring.dictionaries.adopt("acme", DICTIONARY, ENTRY, None, keyring)
    assert again is not None
    assert again.id == entry.id
    assert len(await redis.keys("dictionary:*")) == 1


async def test_the_newest_compresses_and_the_older_is_read_with(redis: Client, keyring: Keyring) -> None:
    await _adopted(keyring)
    old = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    newer = await _adopted(keyring, ANOTHER)
    new = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    assert (newer.generation, new[AT]) == (2, compression.identity(ANOTHER))
    forget_here()
    late = _keyring(redis)
    await late.prepare(["acme"])
    assert [late.open("acme", one, "event", "1") for one in (old, new)] == [ORDER, ORDER]
    used = [late.dictionaries.is_used("acme", one) for one in late.dictionaries.entries("acme")]
    assert used == [False, True]


async def test_it_is_not_deleted_before_the_tenants_keys(redis: Client, keyring: Keyring) -> None:
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    assert await keyring.dictionaries.forget("acme") == -1
    forget_here()
    late = _keyring(redis)
    await late.prepare(["acme"])
    assert late.open("acme", sealed, "event", "1") == ORDER
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")
    assert await keyring.dictionaries.forget("acme") == 1
    assert await redis.keys("dictionar*") == []
    with pytest.raises(UnknownKey):
        await _keyring(redis).prepare(["acme"])


async def test_what_redis_lost_is_put_back_by_who_has_it(redis: Client, keyring: Keyring) -> None:
    entry = await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    await redis.flushall()
    keyring.dictionaries.miss("acme", ONE)
    keyring._current.clear()
    await keyring.prepare(["acme"])
    forget_here()
    late = _keyring(redis)
    await late.prepare(["acme"])
    assert late.open("acme", sealed, "event", "1") == ORDER
    assert late.dictionaries.newest("acme", "shop") == entry


async def test_nothing_is_adopted_that_has_no_copy(redis: Client, tmp_path: Path) -> None:
    in_the_way = tmp_path / "objects"
    in_the_way.write_bytes(b"no directory")
    keyring = _keyring(redis, copies=_copies(in_the_way))
    await keyring.prepare(["acme"])
    with pytest.raises(ObjectTrouble):
        await _adopted(keyring)
    assert await redis.keys("dictionar*") == []
    in_the_way.unlink()
    entry = await _adopted(keyring)
    assert _files(in_the_way) == [entry.id]
    assert b"customer" not in next(in_the_way.rglob(entry.id)).read_bytes()


async def test_a_copy_serves_where_redis_has_none(redis: Client, tmp_path: Path) -> None:
    keyring = _keyring(redis, copies=_copies(tmp_path))
    await keyring.prepare(["acme"])
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    await redis.delete("dictionaries:{acme}", f"dictionary:{{acme}}:{ONE.hex()}")
    forget_here()
    reader = _keyring(redis, copies=_copies(tmp_path))
    await reader.prepare(["acme"])
    with pytest.raises(UnknownDictionary):
        reader.open("acme", sealed, "event", "1")
    await reader.prepare(["acme"])
    assert reader.open("acme", sealed, "event", "1") == ORDER
    assert await redis.exists(f"dictionary:{{acme}}:{ONE.hex()}")


async def test_copies_go_back_into_a_redis_that_lost_them(redis: Client, tmp_path: Path) -> None:
    keyring = _keyring(redis, copies=_copies(tmp_path))
    await keyring.prepare(["acme"])
    await _adopted(keyring)
    sealed = keyring.seal("acme", ORDER, "event", "1", dictionary="shop")
    await redis.delete("dictionaries:{acme}", f"dictionary:{{acme}}:{ONE.hex()}")
    forget_here()
    started = _keyring(redis, "contexts", copies=_copies(tmp_path))
    await started.dictionaries.copy("acme")
    without_copies = _keyring(redis, "")
    await without_copies.prepare(["acme"])
    with pytest.raises(UnknownDictionary):
        without_copies.open("acme", sealed, "event", "1")
    await without_copies.prepare(["acme"])
    assert without_copies.open("acme", sealed, "event", "1") == ORDER


async def test_what_others_train_is_copied_and_goes_with_the_keys(
    redis: Client, keyring: Keyring, tmp_path: Path
) -> None:
    entry = await _adopted(keyring)
    other = _keyring(redis, "contexts", copies=_copies(tmp_path))
    copying = asyncio.create_task(keep_copied(other.dictionaries, _tenants, every_s=0.001))
    async with asyncio.timeout(5):
        while entry.id not in _files(tmp_path):
            await asyncio.sleep(0.002)
    await ended([copying])
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")
    assert await other.dictionaries.forget("acme") == 1
    assert _files(tmp_path) == []


async def _tenants() -> list[str]:
    return ["acme", "globex"]


def _files(directory: Path) -> list[str]:
    return [file.name for file in directory.rglob("*") if file.is_file()]


def _copies(directory: Path) -> Copies:
    return Copies(DirectoryObjectStore(directory), MASTER)


async def test_the_index_says_what_is_known(redis: Client, keyring: Keyring) -> None:
    entry = await _adopted(keyring)
    index: dict[bytes, bytes] = await redis.hgetall("dictionaries:{acme}")
    assert index[b"events/shop"].decode() == entry.id
    assert Entry(**json.loads(index[entry.id.encode()])) == entry
    assert replace(entry, generation=0, id="", create_ms=0, from_ms=0) == ENTRY


async def test_what_is_written_there_by_others_does_no_harm(redis: Client, keyring: Keyring) -> None:
    entry = await _adopted(keyring)
    newer = json.dumps(asdict(entry) | {"a_field_of_tomorrow": 1})
    await redis.hset("dictionaries:{acme}", entry.id, newer)
    for junk in (b"{", b"[]", b"{}", b'{"id":1}', b"\xff"):
        await redis.hset(
            "dictionaries:{acme}", mapping={b"0123456789abcdef": junk, b"\xff": junk, b"x": junk}
        )
        late = _keyring(redis)
        await late.prepare(["acme"])
        assert late.dictionaries.entries("acme") == [entry]


async def test_a_reader_that_puts_it_back_lets_the_next_be_trained(redis: Client, keyring: Keyring) -> None:
    await _adopted(keyring)
    reader = _keyring(redis, "")
    await reader.prepare(["acme"])
    await redis.delete("dictionaries:{acme}")
    reader._current.clear()
    await reader.prepare(["acme"])
    assert (await _adopted(keyring, ANOTHER)).generation == 2


def test_every_shipped_dictionary_is_read_with_for_ever() -> None:
    # Those of every release: none of these may ever be missing.
    released = {
        "github": {"bb1eda615ca763bf", "7b70a2461232d713"},
        "gitlab": {"68e00ee2715e37b1"},
        "jira": {"43d99136189c4bca"},
        "slack": {"9529e87cedee6978"},
    }
    for name, ids in released.items():
        assert ids <= {one.id.hex() for one in compression.all_shipped() if one.name == name}
        for one in ids:
            packed = compression.compress(ORDER, compression.known(bytes.fromhex(one)))
            assert packed is not None
            assert compression.decompress(packed[0], bytes.fromhex(one), len(ORDER)) == ORDER


def test_bombs_stay_small_with_a_dictionary_too() -> None:
    compression.learn(Dictionary.of("shop", 1, DICTIONARY))
    data = zstandard.ZstdCompressionDict(DICTIONARY)
    bomb = zstandard.ZstdCompressor(dict_data=data, write_dict_id=False).compress(bytes(50_000_000))
    silent = zstandard.ZstdCompressor(dict_data=data, write_dict_id=False, write_content_size=False)
    frames = (bomb, silent.compress(bytes(1_000_000)), bomb[:-20])
    tracemalloc.start()
    for frame in frames:
        with pytest.raises(CompressionError):
            compression.decompress(frame, ONE, 1000)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
