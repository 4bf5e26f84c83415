"""Contexts are compressed with dictionaries that were trained on contexts, and open wherever those are."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from webhook.context.v1 import context_admin_service_pb2
from webhook.context.v1.context_service_pb2 import Append
from webhook.context.v1.pack_pb2 import Pack, PackedEvent
from webhook_context.packs.packing import Packer
from webhook_context.packs.samples import rewritten
from webhook_context.parts.learning import USE, learning
from webhook_context.settings import ContextLifecycleSection
from webhook_shared import compression
from webhook_shared.dictionaries.scrubbing import Scrubber, learned
from webhook_shared.dictionaries.settings import DictionarySection
from webhook_shared.dictionaries.store import SPREAD_S
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client, connect
from webhook_shared.settings import RedisSection

from services.context.tests.conftest import Make, OpenHouse, Refused, webhook_of

NAMED = "grace-hopper"
COUNT = 24
TRAINING = DictionarySection(min_samples=20, size=16_384)


@pytest.fixture(autouse=True)
def _leaves_nothing_known() -> Iterator[None]:
    before = set(compression._known())
    yield
    forget_here(before)


def forget_here(but: set[bytes]) -> None:
    """What this process has learned, as if it had just started."""
    for one in set(compression._known()) - but:
        compression._known().pop(one)
        compression._workspace.decompressors.pop(one, None)


def body(seed: int) -> bytes:
    """A payload of a tool that no dictionary is shipped for; every value differs from seed to seed."""
    chance = random.Random(seed)
    word = lambda: "".join(chance.choices(string.ascii_lowercase, k=9))  # noqa: E731
    steps = [
        {"step_identifier": chance.getrandbits(40), "duration_milliseconds": chance.getrandbits(12)}
        | {"step_title": f"{word()} {word()}", "finished_successfully": True, "retry_attempts_left": 3}
        for _ in range(8)
    ]
    run = {"pipeline_run_identifier": word(), "triggered_by_login": NAMED, "pipeline_run_steps": steps}
    return json.dumps({"event_kind": "run_finished", "run": run, "owner_login": word()}).encode()


def pack(seed: int) -> Pack:
    said = Append(tenant="acme", tool="builder", kind="run", context_id=f"builder:run:{seed}")
    said.event.text, said.event.actor, said.event.type = f"run {seed} of {NAMED}", NAMED, "run_finished"
    event = PackedEvent(event_id=f"e{seed}", record=said.SerializeToString(), payload=body(seed))
    facts = json.dumps({"actors": [[NAMED, seed, f"e{seed}"]]}).encode()
    where: Any = {"tenant": "acme", "context_id": said.context_id, "tool": "builder", "kind": "run"}
    return Pack(**where, version=seed, events=[event], facts_json=facts, vector_f16=bytes(range(64)))


def test_what_is_trained_on_says_nothing_of_anybody() -> None:
    samples = [pack(seed).SerializeToString() for seed in range(20)]
    made = rewritten(samples[7], Scrubber(learned(samples, rewritten), "seed"))
    assert NAMED.encode() not in made
    assert b"hopper" not in made
    assert b"pipeline_run_identifier" in made
    back = Pack.FromString(made)
    assert Append.FromString(back.events[0].record).event.text
    assert json.loads(back.events[0].payload)["event_kind"] == "run_finished"
    assert not back.vector_f16


async def test_packs_teach_a_dictionary_and_shrink_by_it(
    redis: Client, valkey: RedisSection, tmp_path: Path
) -> None:
    cold = DirectoryObjectStore(tmp_path)
    webhook = webhook_of(valkey, dictionaries=TRAINING)
    taught = learning(redis, cold, webhook)
    assert taught.trainer
    await taught.keyring.prepare(["acme"])
    packer = Packer(taught.keyring, samples=taught.samples)
    before = len(packer.pack(pack(1000)).sealed)
    for seed in range(COUNT):
        packer.pack(pack(seed))
    await taught.trainer.look()
    entry = taught.keyring.dictionaries.newest("acme", "builder")
    assert entry is not None
    assert (entry.use, entry.sample_count) == (USE, COUNT + 1)
    # Not yet: others may not have it.
    assert len(packer.pack(pack(1000)).sealed) >= before - 40
    assert entry.from_ms - entry.create_ms == SPREAD_S * 1000
    await _use_at_once(redis, entry.id)
    known = set(compression._known())
    forget_here(known - {bytes.fromhex(entry.id)})
    late = learning(redis, cold, webhook)
    await late.keyring.prepare(["acme"])
    sealed = Packer(late.keyring).pack(pack(1000)).sealed
    assert len(sealed) < before * 0.8
    assert late.keyring.dictionaries.current("acme", "builder")
    # The bucket and the keys are enough to open it.
    await redis.delete("dictionaries:{acme}", f"dictionary:{{acme}}:{entry.id}")
    forget_here(known - {bytes.fromhex(entry.id)})
    restored = learning(redis, cold, webhook)
    await restored.keyring.prepare(["acme"])
    restored.keyring.dictionaries.miss("acme", bytes.fromhex(entry.id))
    restored.keyring._current.clear()
    await restored.keyring.prepare(["acme"])
    assert Packer(restored.keyring).open("acme", pack(1000).context_id, sealed) == pack(1000)


def _delete(directory: Path, name: str) -> None:
    for copy in directory.rglob(name):
        copy.unlink()


async def _use_at_once(redis: Client, one: str) -> None:
    found = json.loads(await redis.hget("dictionaries:{acme}", one) or b"")
    await redis.hset("dictionaries:{acme}", one, json.dumps(found | {"from_ms": 0}))


async def test_a_context_whose_dictionary_is_missing_says_so(
    open_house: OpenHouse,
    valkey: RedisSection,
    make: Make,
    refused: Refused,
    tmp_path: Path,
) -> None:
    redis = connect(valkey)
    where = {
        "cold_storage": ObjectStorageSection(directory=tmp_path),
        "context_lifecycle": ContextLifecycleSection(warm_from_size=0),
        "dictionaries": TRAINING,
    }
    async with open_house(valkey, **where) as house:
        request = context_admin_service_pb2.TrainDictionaryRequest(tenant="acme", name="builder")
        await refused(house.admin.TrainDictionary(request), "FAILED_PRECONDITION", "SAMPLES_TOO_FEW")
        for seed in range(COUNT):
            made = make(f"e{seed}", f"builder:run:{seed}", tool="builder", payload=body(seed))
            await house.append(made)
        await house.move("WARM")
        told = (await house.admin.TrainDictionary(request)).training
        assert told.ratio > 1.3 * told.plain_ratio
        await _use_at_once(redis, told.adopted.id)
    async with open_house(valkey, **where) as house:
        await house.append(make("new", "builder:run:new", tool="builder", payload=body(500)))
        await house.move("WARM", "builder:run:new")
        listed = await house.admin.ListDictionaries(
            context_admin_service_pb2.ListDictionariesRequest(tenant="acme")
        )
        assert [one.id for one in listed.dictionaries if one.tenant and one.in_use] == [told.adopted.id]
        _delete(tmp_path, told.adopted.id)
        await redis.delete("dictionaries:{acme}", f"dictionary:{{acme}}:{told.adopted.id}")
    forget_here(set(compression._known()) - {bytes.fromhex(told.adopted.id)})
    async with open_house(valkey, **where) as house:
        read: Any = house.get("builder:run:new", max_events=10, include_payloads=True)
        await refused(read, "FAILED_PRECONDITION", "DICTIONARY_MISSING")
        assert (await house.get("builder:run:3", max_events=1)).events
    await redis.aclose()
