"""A tenant keeps as much as it may; what there is no room for is refused whole, and told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook_context.store import keys
from webhook_context.store.contexts_redis import RedisContexts
from webhook_context.writing.quota_settings import ContextQuotasSection, TenantQuotaSection
from webhook_context.writing.quotas import Quotas
from webhook_shared.redis import Client

from conftest import keys_of

FEW, SMALL = TenantQuotaSection(max_contexts=3), TenantQuotaSection(max_bytes=20_000)
QUOTAS = ContextQuotasSection(tenants={"acme": FEW, "umbrella": SMALL})
OUT_OF_CONTEXTS, OUT_OF_BYTES = "CONTEXT_QUOTA_EXCEEDED", "BYTE_QUOTA_EXCEEDED"


@pytest.fixture
def open_limited(open_house: Any, valkey: Any) -> Any:
    return lambda quotas=QUOTAS: open_house(valkey, context_quotas=quotas)


def reasons(results: Any) -> list[str]:
    return [result.status.reason for result in results]


async def quota(house: Any, tenant: str) -> tuple[int, int, int, int]:
    (stats,) = (await house.admin.GetStats(admin_pb2.GetStatsRequest(tenant=tenant))).tenants
    told = stats.quota
    return stats.context_count, told.max_context_count, told.max_bytes, told.used_bytes


async def test_of_many_writers_only_so_many_make_contexts(
    open_limited: Any, make: Any, redis: Client
) -> None:
    async with open_limited() as one, open_limited() as other:
        calls = [
            house.append(make(f"e{number}", f"github:a/b:issue:{number}"))
            for number in range(12)
            for house in (one, other)
        ]
        results = [result for answered in await asyncio.gather(*calls) for result in answered]
        assert len(await keys_of(redis, "ctx:{acme:*}")) == 3
        assert sorted(set(reasons(results))) == ["", OUT_OF_CONTEXTS]
        assert (await quota(one, "acme"))[:2] == (3, 3)
        # What is there may still grow, and what is there already was not refused.
        listed = await one.list()
        for context in listed.contexts:
            number = context.context_id.rpartition(":")[2]
            again = await one.append(
                make(f"e{number}", context.context_id), make(f"more-{number}", context.context_id)
            )
            assert reasons(again) == ["", ""]
            assert again[0].duplicate
        await one.delete(listed.contexts[0].context_id)
        assert reasons(await other.append(make("new", "github:a/b:issue:99"))) == [""]
        assert reasons(await other.append(make("new", "github:a/b:issue:100"))) == [OUT_OF_CONTEXTS]


async def test_bytes_are_counted_as_they_lie_and_nothing_is_half_written(
    open_limited: Any, make: Any, payload: Any, redis: Client
) -> None:
    one = "github:a/b:issue:1"
    async with open_limited() as house:
        bodies = {f"e{number}": payload() for number in range(8)}
        results = await house.append(
            *(make(event_id, one, tenant="umbrella", payload=body) for event_id, body in bodies.items())
        )
        taken = [event_id for event_id, result in zip(bodies, results, strict=True) if not result.status.code]
        assert 0 < len(taken) < 8
        assert set(reasons(results)) == {"", OUT_OF_BYTES}
        found = await house.get(one, tenant="umbrella", max_events=100, include_payloads=True)
        assert {event.event_id: event.payload for event in found.events} == {
            one: bodies[one] for one in taken
        }
        where = keys.context("umbrella", one)
        lying = int(await redis.hget(where, "bytes") or 0)
        assert (await quota(house, "umbrella"))[2:] == (20_000, lying)
        # Another tenant has no limit of bytes.
        assert reasons(await house.append(make("x", payload=b"x" * 50_000))) == [""]


async def test_what_was_reserved_by_the_dead_comes_back(open_limited: Any, make: Any, redis: Client) -> None:
    async with open_limited() as house:
        await house.append(make("e1", tenant="umbrella"))
        honest = (await quota(house, "umbrella"))[3]
        await redis.hincrby(keys.usage("umbrella"), "bytes", 19_900)
        assert reasons(await house.append(make("e2", tenant="umbrella"))) == [OUT_OF_BYTES]
    quick = ContextQuotasSection(tenants={"umbrella": SMALL}, count_interval="1s")
    await redis.delete(keys.usage_turn("umbrella"))
    async with open_limited(quick) as house, asyncio.timeout(60):
        while (await quota(house, "umbrella"))[3] != honest:
            await asyncio.sleep(0.02)
        assert reasons(await house.append(make("e2", tenant="umbrella"))) == [""]


async def test_without_limits_nothing_is_counted(
    open_house: Any, valkey: Any, make: Any, redis: Client
) -> None:
    async with open_house(valkey) as house:
        await house.append(make("e1"))
        assert await quota(house, "acme") == (1, 0, 0, 0)
    assert not await redis.exists(keys.usage("acme"))


@pytest.mark.parametrize("is_written_first", [False, True])
async def test_a_count_beside_a_writer_is_never_too_little(
    open_limited: Any, make: Any, redis: Client, monkeypatch: Any, is_written_first: bool
) -> None:
    write, umbrella = RedisContexts.append, []

    async def counted_meanwhile(store: RedisContexts, entries: Any) -> Any:
        umbrella.append(Quotas(redis, store, QUOTAS))
        results = await write(store, entries) if is_written_first else None
        await umbrella[0].count("umbrella")
        return results or await write(store, entries)

    monkeypatch.setattr(RedisContexts, "append", counted_meanwhile)
    async with open_limited() as house:
        one = "github:a/b:issue:1"
        assert reasons(await house.append(make("e1", one, tenant="umbrella", payload=bytes(256)))) == [""]
        lying = int(await redis.hget(keys.context("umbrella", one), "bytes") or 0)
        assert (await quota(house, "umbrella"))[3] >= lying > 0
        assert await umbrella[0].count("umbrella") == lying
