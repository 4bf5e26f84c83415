"""Pages, filters, batches of reads, counts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from webhook.context.v1 import context_admin_service_pb2, context_service_pb2
from webhook.context.v1.context_service_pb2 import ContextFilter
from webhook_context.store import keys
from webhook_shared.redis import Client


async def _walk(house: Any, **asked: Any) -> list[str]:
    ids, token = [], ""
    while True:
        page = await house.list(page_token=token, **asked)
        ids += [context.context_id for context in page.contexts]
        if not (token := page.next_page_token):
            return ids


async def test_the_newest_change_comes_first(house: Any, make: Any) -> None:
    for name in ("a", "b", "c", "a"):
        await house.append(make(f"e{asyncio.get_running_loop().time()}", context_id=name))
        await asyncio.sleep(0.003)
    page = await house.list()
    assert [context.context_id for context in page.contexts] == ["a", "c", "b"]
    assert not page.next_page_token
    assert not any(context.events for context in page.contexts)


async def test_pages_cover_all_even_where_times_are_equal(house: Any, make: Any, redis: Client) -> None:
    await house.append(*[make("e", context_id=f"c{i:03}") for i in range(57)])
    await redis.zadd(keys.index("acme"), {f"c{i:03}": 1000 + i // 20 for i in range(57)})
    ids = await _walk(house, page_size=5)
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 57


async def test_paging_is_stable_while_others_write(house: Any, make: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i:03}") for i in range(60)])
    ids, token, writes = [], "", 0
    while True:
        page = await house.list(page_size=7, page_token=token)
        ids += [context.context_id for context in page.contexts]
        if not (token := page.next_page_token):
            break
        # One that was shown moves to the front, and a new one comes.
        writes += 1
        await house.append(make(f"w{writes}", context_id=ids[0]), make("e", context_id=f"new{writes}"))
    assert sorted(ids) == [f"c{i:03}" for i in range(60)]


async def test_filters(house: Any, make: Any) -> None:
    await house.append(
        make("e", context_id="a", tool="github", kind="issue", labels=["bug", "ui"]),
        make("e", context_id="b", tool="github", kind="push", labels=["bug"]),
        make("e", context_id="c", tool="jira", kind="issue"),
    )
    await house.enrich("c", "s", importance=0.9)
    expected = [
        (ContextFilter(tools=["github"]), "ab"),
        (ContextFilter(tools=["github", "jira"], kinds=["issue"]), "ac"),
        (ContextFilter(labels=["ui", "x"]), "a"),
        (ContextFilter(labels=["bug"], kinds=["push"]), "b"),
        (ContextFilter(min_importance=0.5), "c"),
        (ContextFilter(tools=["slack"]), ""),
    ]
    for wanted, ids in expected:
        assert sorted(await _walk(house, filter=wanted)) == list(ids)
        assert sorted(await _walk(house, filter=wanted, page_size=1)) == list(ids)


async def test_time_filters_are_exclusive(house: Any, make: Any, redis: Client) -> None:
    await house.append(*[make("e", context_id=name) for name in "abc"])
    await redis.zadd(keys.index("acme"), {"a": 1000, "b": 2000, "c": 3000})
    wanted = ContextFilter()
    wanted.updated_after.FromMilliseconds(1000)
    assert await _walk(house, filter=wanted) == ["c", "b"]
    wanted.updated_before.FromMilliseconds(3000)
    assert await _walk(house, filter=wanted, page_size=1) == ["b"]


async def test_a_page_size_has_its_bounds(house: Any, make: Any, refused: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i}") for i in range(700)])
    assert len((await house.list()).contexts) == 50
    assert len((await house.list(page_size=10_000)).contexts) == 500
    await refused(house.list(page_size=-1), "INVALID_ARGUMENT", "FIELD_INVALID")


@pytest.mark.parametrize("token", ["x", "é", "bm9uc2Vuc2U=", "W10=", "WyJhIiwgMV0="])
async def test_a_foreign_page_token_is_refused(house: Any, refused: Any, token: str) -> None:
    await refused(house.list(page_token=token), "INVALID_ARGUMENT", "FIELD_INVALID")
    await refused(house.search("x", page_token=token), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_a_batch_answers_item_by_item(house: Any, make: Any, refused: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i}") for i in range(200)])
    request = context_service_pb2.BatchGetContextsRequest(tenant="acme", max_events=1)
    request.context_ids.extend([*(f"c{i}" for i in range(200)), "none", "c0"])
    results = (await house.contexts.BatchGetContexts(request)).results
    assert [r.context.context_id for r in results[:200]] == [f"c{i}" for i in range(200)]
    assert all(len(r.context.events) == 1 and r.status.code == 0 for r in results[:200])
    assert (results[200].status.code, results[200].status.reason) == (5, "CONTEXT_NOT_FOUND")
    assert not results[200].HasField("context")
    assert results[201].context == results[0].context
    request.context_ids.extend(["x"] * 100)
    await refused(house.contexts.BatchGetContexts(request), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_stats_count_what_is_there(house: Any, make: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i}") for i in range(5)], make("e", tenant="other"))
    await house.enrich("c0", "s", [1.0], etag=(await house.get("c0")).etag)
    await house.delete("c1")
    response = await house.admin.GetStats(context_admin_service_pb2.GetStatsRequest())
    counts = {s.tenant: (s.context_count, s.indexed_count, s.dirty_count) for s in response.tenants}
    assert counts == {"acme": (4, 1, 3), "other": (1, 0, 1)}
