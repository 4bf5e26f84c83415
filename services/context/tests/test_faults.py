"""Redis goes and comes back; bytes are tampered with; nothing readable lies about."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from webhook_context.store import keys
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client, connect

ID = "github:octo/hello:issue:1"


async def _heals(call: Any) -> Any:
    async with asyncio.timeout(20):
        while True:
            try:
                return await call()
            except grpc.aio.AioRpcError as error:
                if from_rpc_error(error).reason != "STORE_UNREACHABLE":
                    raise
                await asyncio.sleep(0.05)


async def test_redis_goes_and_comes_back(redis_server: Any, open_house: Any, make: Any) -> None:
    async with open_house(redis_server.settings) as house:
        await house.append(make("e1", text="giraffe"))
        assert (await house.search("giraffe")).matches
        redis_server.stop()
        for call in (house.append(make("e2")), house.get(ID), house.list(), house.delete(ID)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            error = from_rpc_error(caught.value)
            assert (error.code.name, error.reason) == ("UNAVAILABLE", "STORE_UNREACHABLE")
            assert error.retry_after_s
            assert "127.0.0.1" not in error.message
        redis_server.start()
        (result,) = await _heals(lambda: house.append(make("e2", text="elephant")))
        assert result.version == 2
        assert len((await house.get(ID)).events) == 2
        found = await _heals(lambda: house.search("elephant"))
        assert [match.context.context_id for match in found.matches] == [ID]


async def test_an_emptied_redis_heals_into_an_empty_working_store(
    redis_server: Any, open_house: Any, make: Any
) -> None:
    client = connect(redis_server.settings)
    async with open_house(redis_server.settings) as house:
        await house.append(make("e1", text="giraffe"), make("e2", text="giraffe"))
        assert (await house.search("giraffe")).matches
        await client.flushall()
        await client.script_flush()
        assert not (await house.list()).contexts
        assert not (await house.search("giraffe")).matches
        (result,) = await house.append(make("e9", text="elephant"))
        assert result.version == 1

        async def found() -> bool:
            return len((await house.search("elephant")).matches) == 1

        async with asyncio.timeout(10):
            while not await found():
                await asyncio.sleep(0.05)
    await client.aclose()


async def test_state_survives_a_restart(house: Any, make: Any, open_house: Any, valkey: Any) -> None:
    await house.append(*[make(f"e{i}", payload=b"body") for i in range(40)])
    before = await house.get(ID, max_events=100, include_payloads=True)
    async with open_house(valkey) as other:
        assert await other.get(ID, max_events=100, include_payloads=True) == before


@pytest.mark.parametrize("field", ["e:e1", "snapshot", "enrichment", "vector"])
async def test_tampering_is_noticed(house: Any, make: Any, redis: Client, refused: Any, field: str) -> None:
    await house.append(make("e1"), make("e2", context_id="fine"))
    await house.enrich(ID, "s", [1.0])
    sealed: Any = await redis.hget(keys.context("acme", ID), field)
    await redis.hset(keys.context("acme", ID), field, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    await refused(house.get(ID, include_vector=True), "DATA_LOSS", "CONTEXT_UNREADABLE")
    assert [c.context_id for c in (await house.list()).contexts][-1] == "fine"


async def test_sealed_bytes_stay_in_their_place(house: Any, make: Any, redis: Client, refused: Any) -> None:
    await house.append(make("e1"), make("e1", context_id="b"), make("e1", tenant="rival"))
    mine = keys.context("acme", ID)
    for other in (keys.context("acme", "b"), keys.context("rival", ID)):
        stolen: Any = await redis.hget(other, "e:e1")
        await redis.hset(mine, "e:e1", stolen)
        await refused(house.get(ID), "DATA_LOSS", "CONTEXT_UNREADABLE")


async def test_destroyed_keys_end_a_tenant(
    make: Any, redis: Client, open_house: Any, valkey: Any, refused: Any
) -> None:
    async with open_house(valkey) as house:
        await house.append(make("e1"))
    await redis.delete("tenantkey:{acme}")
    await redis.hset("tenantkey:{acme}", "destroyed", "1")
    async with open_house(valkey) as other:
        results = await other.append(make("e2"), make("e1", tenant="rival"))
        assert [r.status.reason for r in results] == ["TENANT_KEYS_DESTROYED", ""]
        await refused(other.get(ID), "DATA_LOSS", "CONTEXT_UNREADABLE")


async def test_nothing_readable_reaches_redis(redis_server: Any, open_house: Any, make: Any) -> None:
    planted = "PLANTED-PLAINTEXT"
    async with open_house(redis_server.settings) as house:
        for i in range(40):
            said = make(f"e{i}", title=planted, url=planted, state=planted, labels=[planted], text=planted)
            said.event.actor = said.event.type = said.event.action = planted
            said.event.payload = planted.encode()
            await house.append(said)
        await house.enrich(ID, planted, [1.0], summary_model=planted)
        assert (await house.search(planted)).matches
    redis_server.stop()
    written = _written(redis_server.directory)
    assert ID.encode() in written
    assert planted.encode() not in written


def _written(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())


async def test_error_messages_quote_no_content(house: Any, make: Any) -> None:
    (result,) = await house.append(make("e1", text="secret words " * 2000))
    assert "secret" not in result.status.message
