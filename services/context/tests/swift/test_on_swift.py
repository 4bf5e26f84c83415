"""Objects, contexts of their own and segments in a real Swift: correct without any help of the server.

Its If-None-Match lets several writers win, its If-Match is not there, and its listing follows behind.
"""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from webhook.context.v1.context_pb2 import Tier
from webhook_context.parts.tiers import tiering
from webhook_context.settings import ContextLifecycleSection
from webhook_context.store import keys
from webhook_shared import redis as servers
from webhook_shared.objects import s3 as objects_s3
from webhook_shared.objects.protocol import ObjectMissing, ObjectStorageSection, ObjectTrouble

from services.context.tests.swift.server import ACCESS_KEY, SECRET, is_wanted, swift_server
from services.context.tests.test_restoring import counts, restore
from services.context.tests.test_segments import Recorded, Yard, lies, members, webhook

pytestmark = [
    pytest.mark.skipif(not is_wanted(), reason="needs Swift: make unit-swift"),
    pytest.mark.timeout(600),
]

NAME = "v1/owner/ab/context/00000000000000000001-name.pack"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # Its objects want a file system with extended attributes.
    with swift_server(tmp_path_factory.mktemp("swift"), getpass.getuser()) as url:
        yield url


def section_of(url: str, **changed: Any) -> ObjectStorageSection:
    return ObjectStorageSection(
        **{
            "endpoint": url,
            "bucket": "contexts",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SecretStr(SECRET),
            **changed,
        }
    )


@pytest.fixture(params=["when_supported", "when_required"])
async def section(request: Any, server: str) -> ObjectStorageSection:
    made = section_of(server, bucket=f"contexts-{os.urandom(4).hex()}", checksum_mode=request.param)
    async with objects_s3.bucket(made) as store:
        await store._client.create_bucket(Bucket=made.bucket)  # the bucket is somebody else's work
    return made


@pytest.fixture
async def store(section: ObjectStorageSection) -> AsyncIterator[Any]:
    async with objects_s3.bucket(section) as opened:
        yield opened


async def test_objects(store: Any) -> None:
    content = os.urandom(300_000)
    await store.put(NAME, content)
    assert await store.get(NAME) == content
    assert await store.part(NAME, 1000, 70) == content[1000:1070]
    assert await store.part(NAME, len(content) - 5, 70) == content[-5:]
    assert await store.part(NAME, len(content) + 5, 70) == b""
    await store.put(NAME, content)
    names = [f"a/{day}/{n}" for day in ("01", "02") for n in range(3)]
    await asyncio.gather(*(store.put(name, b"content") for name in names))
    assert await store.names("a/") == names
    assert await store.names("a/", after=names[1], most=2) == names[2:4]
    await store.delete(NAME)
    await store.delete(NAME)
    for read in (store.get(NAME), store.part(NAME, 0, 1)):
        with pytest.raises(ObjectMissing):
            await read


async def test_a_large_one_goes_in_parts(store: Any) -> None:
    content = os.urandom(objects_s3.MULTIPART_FROM_BYTES + 1)
    await store.put(NAME, content)
    assert await store.get(NAME) == content


async def test_whose_key_is_wrong_gets_trouble(section: ObjectStorageSection) -> None:
    wrong = section.model_copy(update={"secret_access_key": SecretStr("wrong")})
    async with objects_s3.bucket(wrong) as store:
        for work in (store.put(NAME, b"content"), store.get(NAME), store.names("v1/"), store.delete(NAME)):
            with pytest.raises(ObjectTrouble):
                await work
    async with objects_s3.bucket(section.model_copy(update={"bucket": "never-made"})) as store:
        with pytest.raises(ObjectTrouble, match="NoSuchBucket"):
            await store.get(NAME)


async def test_writers_of_one_name(section: ObjectStorageSection) -> None:
    """Several of them may be told that they have won: who reads back knows whether his bytes are there."""
    contents = [os.urandom(1000) for _ in range(8)]
    async with objects_s3.bucket(section) as store:
        for round_ in range(3):
            name = f"{NAME}-{round_}"
            await asyncio.gather(*(store.put(name, content) for content in contents))
            assert await store.get(name) in contents


async def test_two_workers_on_each_transition(section: ObjectStorageSection, valkey: Any, make: Any) -> None:
    """Whoever wins, one copy counts, it is whole, and nothing is left of the others."""
    clients = [servers.connect(valkey) for _ in range(2)]
    async with objects_s3.bucket(section) as store:
        cold = Recorded(store)
        parts = [tiering(client, cold, webhook(valkey)) for client in clients]
        yard = Yard(parts[0], cold, clients[0], {})
        ids = await yard.fill(make, 12)
        for target in (Tier.TIER_COLD, Tier.TIER_HOT, Tier.TIER_COLD):
            work = [one.transitions.move("acme", each, target) for each in ids for one in parts]
            await asyncio.gather(*work, return_exceptions=True)
            await yard.holds(ids)
        for each in ids:
            await yard.parts.transitions.drop("acme", each)
        assert {state.tier for state in await yard.parts.tiers.states("acme", ids)} == {Tier.TIER_COLD}
        await yard.holds(ids)
    for client in clients:
        await client.aclose()


async def test_segments_from_writing_to_erasing(
    section: ObjectStorageSection, valkey: Any, make: Any
) -> None:
    client = servers.connect(valkey)
    async with objects_s3.bucket(section) as store:
        cold = Recorded(store)
        yard = Yard(tiering(client, cold, webhook(valkey)), cold, client, {})
        ids = await yard.fill(make, 8)
        await yard.move(ids)
        before = await yard.pointers(ids)
        assert len({lies(one).segment for one in before}) == 1
        await yard.parts.store.delete("acme", ids[0], "")
        await yard.parts.transitions.drop("acme", ids[0])
        assert await members(yard, lies(before[0]).segment) == ids[1:]
        await yard.parts.small.cold_packs.rewrite("acme", before[:1])
        with pytest.raises(ObjectMissing):
            await store.get(lies(before[0]).segment)
        await yard.move(ids[1:6], Tier.TIER_HOT)
        for one in ids[1:6]:
            await yard.parts.transitions.drop("acme", one)
        await yard.look()
        await yard.look()
        await yard.holds(ids[1:])
        assert {lies(one).segment for one in await yard.pointers(ids[6:])} <= set(await yard.objects())
    await client.aclose()


async def test_a_lost_redis_comes_back(
    section: ObjectStorageSection, open_house: Any, valkey: Any, make: Any, redis: Any
) -> None:
    sections: Any = {
        "cold_storage": section,
        "context_lifecycle": ContextLifecycleSection(grace_duration="0s", warm_from_size=0),
        "context_segments": webhook(valkey).context_segments,
    }
    ids = [f"github:octo/hello:issue:{n}" for n in range(6)]
    async with open_house(valkey, **sections) as house:
        await house.append(*(make(f"e-{one}", context_id=one, payload=one.encode()) for one in ids))
        await house.move("COLD", ids[0])
        await house.move("COLD")
        await redis.flushall()
        assert counts(await restore(house)) == {"restored": 6}
        for one in ids:
            (event,) = (await house.get(one, include_payloads=True)).events
            assert event.payload == one.encode()
        assert await redis.zcard(keys.segments("acme")) == 1
