"""Whose context it is follows from the credential alone, and no two contexts meet in one key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.crc import key_slot
from webhook.context.v1 import context_admin_service_pb2
from webhook_context.store import keys
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import ApiKeys, Role

ID = "github:octo/hello:issue:1"
ALL = (Role.READER, Role.WRITER, Role.OPERATOR)


@pytest.fixture
async def acme(house: Any, make: Any, redis: Client, valkey: Any, open_house: Any) -> Any:
    """A client of tenant acme; both tenants have a context of one id."""
    await house.append(make("e1", title="ours"), make("e1", tenant="rival", title="theirs"))
    await house.append(make("e1", context_id="theirs only", tenant="rival", text="merger"))
    _, secret = await ApiKeys(redis).mint("test", ["acme"], ALL)
    async with open_house(valkey, SecretStr(secret)) as client:
        yield client


async def test_a_credential_reaches_its_own_tenant(acme: Any, make: Any) -> None:
    for tenant in ("", "acme"):
        assert (await acme.get(ID, tenant=tenant)).title == "ours"
    assert [c.context_id for c in (await acme.list(tenant="")).contexts] == [ID]
    (result,) = await acme.append(make("e2", tenant=""))
    assert (result.status.code, result.version) == (0, 2)


async def test_another_tenants_context_is_not_found(acme: Any, refused: Any) -> None:
    await refused(acme.get("theirs only"), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    assert not (await acme.search("merger")).matches
    assert not (await acme.search("theirs")).matches


async def test_another_tenant_is_refused(acme: Any, make: Any, refused: Any) -> None:
    for call in (
        acme.get(ID, tenant="rival"),
        acme.list(tenant="rival"),
        acme.search("x", tenant="rival"),
        acme.delete(ID, tenant="rival"),
        acme.admin.GetStats(context_admin_service_pb2.GetStatsRequest(tenant="rival")),
    ):
        await refused(call, "PERMISSION_DENIED", "TENANT_NOT_ALLOWED")
    results = await acme.append(make("e8", tenant="rival"), make("e9"))
    assert [r.status.reason for r in results] == ["TENANT_NOT_ALLOWED", ""]


async def test_stats_show_only_ones_own_tenants(acme: Any) -> None:
    response = await acme.admin.GetStats(context_admin_service_pb2.GetStatsRequest())
    assert [stats.tenant for stats in response.tenants] == ["acme"]


@pytest.fixture
def only(redis: Client, valkey: Any, open_house: Any) -> Any:
    """Opens a client that has one role."""

    @asynccontextmanager
    async def opened(role: Role) -> AsyncIterator[Any]:
        _, secret = await ApiKeys(redis).mint("test", ["acme"], [role])
        async with open_house(valkey, SecretStr(secret)) as client:
            yield client

    return opened


async def test_a_reader_only_reads(only: Any, make: Any, refused: Any) -> None:
    async with only(Role.READER) as client:
        await client.list()
        for call in (client.append(make("e1")), client.delete(ID), client.enrich(ID)):
            await refused(call, "PERMISSION_DENIED", "ROLE_MISSING")


async def test_a_writer_only_writes(only: Any, make: Any, refused: Any) -> None:
    async with only(Role.WRITER) as client:
        await client.append(make("e1"))
        stats = client.admin.GetStats(context_admin_service_pb2.GetStatsRequest())
        for call in (client.get(ID), client.search("x"), stats):
            await refused(call, "PERMISSION_DENIED", "ROLE_MISSING")


awkward = st.text(alphabet="a:{}%3AB7D*é ", min_size=1, max_size=8)


@given(awkward, awkward, awkward, awkward)
def test_keys_are_injective(tenant: str, context_id: str, other_tenant: str, other_id: str) -> None:
    if (tenant, context_id) != (other_tenant, other_id):
        mine, others = (
            {keys.context(*pair), keys.order(*pair)}
            for pair in ((tenant, context_id), (other_tenant, other_id))
        )
        assert mine.isdisjoint(others)


@given(awkward, awkward)
def test_the_keys_of_a_context_share_a_slot(tenant: str, context_id: str) -> None:
    names = keys.context(tenant, context_id), keys.order(tenant, context_id)
    assert len({key_slot(name.encode()) for name in names}) == 1


async def test_awkward_ids_stay_apart(house: Any, make: Any) -> None:
    ids = ["a:b", "a}:b", "{a}:b", "a%7D:b", "a{", "é:}{:%", "a:order"]
    await house.append(*[make("e1", context_id=one, title=one) for one in ids])
    await house.append(make("e1", tenant="acme:a", context_id="b", title="other tenant"))
    for one in ids:
        found = await house.get(one)
        assert (found.context_id, found.title, found.event_count) == (one, one, 1)
    assert (await house.get("b", tenant="acme:a")).title == "other tenant"
    assert sorted(c.context_id for c in (await house.list()).contexts) == sorted(ids)
