"""Found by words, by meaning, by both; fresh on every replica."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from webhook.context.v1 import context_pb2
from webhook.context.v1.context_service_pb2 import ContextFilter
from webhook_context import keys
from webhook_context.vectors import Vectors
from webhook_context.words import Words
from webhook_shared.redis import Client

MODEL = context_pb2.EmbeddingModel(provider="local", name="mini", dimension=3)


def _ids(response: Any) -> list[str]:
    return [match.context.context_id for match in response.matches]


async def _soon(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await check():
            await asyncio.sleep(0.02)


async def _library(house: Any, make: Any) -> None:
    await house.append(
        make("e1", context_id="login", title="Login fails", text="users can not sign in", labels=["auth"]),
        make("e1", context_id="deploy", title="Deployment to production", text="rolled out version two"),
        make("e1", context_id="docs", title="Typo in the manual", text="the word recieve", tool="jira"),
    )
    await house.enrich("login", "Authentication is broken.", [1, 0, 0], importance=0.9)
    await house.enrich("deploy", "A release went out.", [0, 1, 0])
    await house.enrich("docs", "Spelling.", [0, 0.6, 0.8])


async def test_by_words(house: Any, make: Any) -> None:
    await _library(house, make)
    assert _ids(await house.search("deploying")) == ["deploy"]
    assert _ids(await house.search("authentication")) == ["login"]
    assert _ids(await house.search("auth")) == ["login"]
    assert _ids(await house.search("MANUAL nonsense")) == ["docs"]
    assert _ids(await house.search("nothing of the sort")) == []
    (match,) = (await house.search("sign")).matches
    assert "can not **sign** in" in match.highlight
    assert (match.similarity, match.score > 0) == (0, True)
    assert match.context.enrichment.summary == "Authentication is broken."
    assert not match.context.events


async def test_by_meaning(house: Any, make: Any) -> None:
    await _library(house, make)
    found = await house.search(query_vector=[0, 2, 0.1], query_model=MODEL)
    assert _ids(found) == ["deploy", "docs"]
    assert found.matches[0].similarity == pytest.approx(0.99875, abs=1e-4)
    assert found.matches[0].highlight == ""


async def test_by_both_beats_either(house: Any, make: Any) -> None:
    await _library(house, make)
    found = await house.search("manual release", query_vector=[0, 0.7, 0.7], query_model=MODEL)
    assert set(_ids(found)) == {"docs", "deploy"}
    assert _ids(found)[0] == "docs"
    assert found.matches[0].score > found.matches[1].score


async def test_filters(house: Any, make: Any) -> None:
    await _library(house, make)
    everything: dict[str, Any] = {"query_vector": [1, 1, 1], "query_model": MODEL}
    assert _ids(await house.search(filter=ContextFilter(tools=["jira"]), **everything)) == ["docs"]
    assert _ids(await house.search(filter=ContextFilter(labels=["auth"]), **everything)) == ["login"]
    assert _ids(await house.search(filter=ContextFilter(min_importance=0.5), **everything)) == ["login"]
    assert _ids(await house.search("login", filter=ContextFilter(tools=["jira"]))) == []
    past = ContextFilter()
    past.updated_before.FromMilliseconds(1000)
    assert _ids(await house.search(filter=past, **everything)) == []


async def test_pages(house: Any, make: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i:02}", title="the same words") for i in range(25)])
    ids, token = [], ""
    while True:
        page = await house.search("words", page_size=10, page_token=token)
        ids += _ids(page)
        if not (token := page.next_page_token):
            break
    assert len(ids) == len(set(ids)) == 25
    assert len(_ids(await house.search("words", page_size=1000))) == 25


async def test_another_model_is_refused(house: Any, make: Any, refused: Any) -> None:
    await house.append(make("e1"))
    assert _ids(await house.search("x", query_vector=[1, 0], query_model=MODEL)) == []
    await _library(house, make)
    other = context_pb2.EmbeddingModel(provider="openai", name="large", dimension=3)
    for model, vector in ((other, [1, 0, 0]), (MODEL, [1, 0])):
        call = house.search("x", query_vector=vector, query_model=model)
        error = await refused(call, "FAILED_PRECONDITION", "MODEL_MISMATCH")
        assert error.metadata["models"] == "local/mini/3"


async def test_what_a_search_refuses(house: Any, refused: Any) -> None:
    for asked in (
        {"query": "  "},
        {"query": "x" * 4097},
        {"query": "x", "query_vector": [1.0]},
        {"query": "x", "query_vector": [float("nan")], "query_model": MODEL},
    ):
        await refused(house.search(**asked), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_a_query_is_never_syntax(house: Any, make: Any) -> None:
    await _library(house, make)
    for query in (
        '"',
        "AND OR NOT",
        "title:login*",
        "a^2 NEAR(b",
        "'; DROP TABLE words; --",
        "(((",
        "__",
        "é",
    ):
        await house.search(query)
    assert _ids(await house.search("title:login* AND")) == ["login"]


async def test_what_is_written_is_found_at_once(house: Any, make: Any) -> None:
    assert _ids(await house.search("giraffe")) == []
    for i in range(20):
        await house.append(make("e1", context_id=f"c{i}", text=f"giraffe{i}"))
        assert _ids(await house.search(f"giraffe{i}")) == [f"c{i}"]
    await house.append(make("e2", context_id="c3", text="elephant"))
    assert _ids(await house.search("elephant")) == ["c3"]
    await house.delete("c3")
    assert _ids(await house.search("elephant giraffe3")) == []


async def test_replicas_see_each_others_writes(house: Any, make: Any, open_house: Any, valkey: Any) -> None:
    async with open_house(valkey) as other:
        assert _ids(await other.search("giraffe")) == []
        await house.append(make("e1", context_id="zoo", text="giraffe"))

        async def found() -> bool:
            return _ids(await other.search("giraffe")) == ["zoo"]

        async def lost() -> bool:
            return _ids(await other.search("giraffe")) == []

        await _soon(found)
        await house.enrich("zoo", "tall", [0, 0, 1])

        async def meant() -> bool:
            return _ids(await other.search(query_vector=[0, 0, 1], query_model=MODEL)) == ["zoo"]

        await _soon(meant)
        await house.delete("zoo")
        await _soon(lost)


async def test_a_new_replica_builds_its_index(house: Any, make: Any, open_house: Any, valkey: Any) -> None:
    await house.append(*[make("e", context_id=f"c{i}", text=f"number{i}") for i in range(700)])
    async with open_house(valkey) as other:
        found = await asyncio.gather(*[other.search(f"number{i}") for i in (0, 350, 699)])
        assert [_ids(one) for one in found] == [["c0"], ["c350"], ["c699"]]


async def test_a_replica_that_fell_behind_compares_everything(house: Any, make: Any, redis: Client) -> None:
    await house.append(make("e", context_id="a", text="giraffe"), make("e", context_id="b", text="lion"))
    assert _ids(await house.search("giraffe")) == ["a"]
    # Written behind its back, and the stream trimmed past its position.
    await redis.zrem(keys.index("acme"), "a")
    await redis.delete(keys.context("acme", "a"))
    await redis.delete(keys.CHANGES)
    await redis.xadd(keys.CHANGES, {"tenant": ""})

    async def gone() -> bool:
        return _ids(await house.search("giraffe")) == []

    await _soon(gone)
    assert _ids(await house.search("lion")) == ["b"]


def test_vectors_agree_with_brute_force() -> None:
    generator = np.random.default_rng(5)
    vectors, kept = Vectors(16), {}
    for step in range(3000):
        name = f"c{generator.integers(800)}"
        if step % 5 == 0:
            vectors.drop(name)
            kept.pop(name, None)
        else:
            kept[name] = generator.normal(size=16).astype(np.float32)
            vectors.put(name, kept[name])
    query = generator.normal(size=16)
    expected = {
        name: float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        for name, vector in kept.items()
    }
    ranked = list(vectors.ranked(query.tolist()))
    assert len(ranked) == len(vectors) == len(kept)
    assert dict(ranked) == pytest.approx(expected, abs=1e-5)
    likenesses = [likeness for _, likeness in ranked]
    assert likenesses == sorted(likenesses, reverse=True)


def test_a_vector_without_direction_is_not_kept() -> None:
    vectors = Vectors(2)
    vectors.put("a", [1, 0])
    vectors.put("a", [0, 0])
    assert len(vectors) == 0
    assert list(vectors.ranked([1, 0])) == []
    vectors.put("b", [1, 0])
    assert list(vectors.ranked([0, 0])) == []


def test_words_are_replaced_and_dropped() -> None:
    words, chosen = Words(), random.Random(3)
    for i in range(200):
        words.put(f"c{chosen.randrange(20)}", "title", f"only{i}")
    assert sorted(words.strengths("title")) == sorted(f"c{i}" for i in range(20))
    for i in range(20):
        words.drop(f"c{i}")
        words.drop(f"c{i}")
    assert words.strengths("title") == {}
    words.close()
