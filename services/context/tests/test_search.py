"""Found by words, by meaning, by both; fresh on every replica."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import REGISTRY
from webhook.context.v1 import context_pb2
from webhook.context.v1.context_pb2 import Tier
from webhook.context.v1.context_service_pb2 import ContextFilter
from webhook_context.domain.contexts import Filter
from webhook_context.finding import search
from webhook_context.finding.documents import Document
from webhook_context.finding.index import Query, TenantIndex
from webhook_context.finding.vectors import Vectors
from webhook_context.settings import ContextSearchSection
from webhook_context.store import keys
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
    assert found.matches[0].similarity == pytest.approx(0.99875, abs=1e-3)
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


async def test_pages_show_all_that_there_is_once_whatever_is_written_meanwhile(
    house: Any, make: Any, refused: Any
) -> None:
    await house.append(*[make("e", context_id=f"c{i:02}", title="the same words") for i in range(30)])
    ids, token, written = [], "", 0
    while True:
        page = await house.search("words", page_size=7, page_token=token)
        ids += _ids(page)
        if not (token := page.next_page_token):
            break
        # What was shown gets better or worse, something better comes in front.
        await house.append(make("e2", context_id=ids[-1], title="words words words", at=1))
        await house.append(make("e2", context_id=ids[-2], title="nothing", at=1))
        await house.append(make("e", context_id=f"new{written}", title="words", text="words"))
        written += 1
    assert len(ids) == len(set(ids))
    assert set(ids) >= {f"c{i:02}" for i in range(30)}
    token = (await house.search("words", page_size=7)).next_page_token
    for asked in ({"query": "word"}, {"query": "words", "filter": ContextFilter(tools=["jira"])}):
        await refused(house.search(page_token=token, **asked), "INVALID_ARGUMENT", "FIELD_INVALID")
    for broken in ("x", "AAAA", token[:-4], token * 100):
        await refused(house.search("words", page_token=broken), "INVALID_ARGUMENT", "FIELD_INVALID")


async def test_a_highlight_is_text_in_pieces_and_never_markup(house: Any, make: Any) -> None:
    hostile = "see <script>alert('login')</script> **login** \x02login\x03 & more"
    await house.append(make("e1", context_id="a", title="Broken", text=hostile))
    (match,) = (await house.search("login")).matches
    pieces = [(piece.text, piece.matched) for piece in match.highlight_parts]
    assert [text for text, matched in pieces if matched] == ["login"] * 3
    shown = "".join(text for text, _ in pieces)
    assert "see <script>alert('login')</script> **login**" in shown
    assert "\x02" not in shown
    assert match.word_strength == pytest.approx(1.0)
    assert match.score == pytest.approx(0.25)


async def test_filter_by_tier(house: Any, make: Any) -> None:
    await _library(house, make)
    hot = ContextFilter(tiers=[Tier.TIER_HOT])
    assert len(_ids(await house.search("login deployment manual", filter=hot))) == 3
    assert _ids(await house.search("login", filter=ContextFilter(tiers=[Tier.TIER_COLD]))) == []
    assert not (await house.list(filter=ContextFilter(tiers=[Tier.TIER_WARM]))).contexts
    assert len((await house.list(filter=hot)).contexts) == 3


async def test_vectors_are_stored_in_half_the_room_and_the_former_form_is_read(
    house: Any, make: Any, redis: Client
) -> None:
    await _library(house, make)
    vector = [0.6, 0.8, 0.0]
    await house.enrich("login", "x", vector)
    assert list((await house.get("login", include_vector=True)).enrichment.vector) == pytest.approx(
        vector, abs=1e-3
    )
    await house.enrich("login", "x", [1e6, 0.0, 0.0])
    assert list((await house.get("login", include_vector=True)).enrichment.vector) == [1e6, 0.0, 0.0]
    sizes = {}
    for dimension in (100, 300):
        await house.enrich("docs", "x", [0.05] * dimension)
        sealed: Any = await redis.hget(keys.context("acme", "docs"), "vector")
        sizes[dimension] = len(sealed)
    assert sizes[300] - sizes[100] <= 400


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


async def test_while_much_is_written_a_search_goes_by_what_was_read_a_moment_ago(
    make: Any, open_house: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What reads in the background does so once at the start, and then rests for longer than this takes.
    for rest in "REST_S", "UNASKED_REST_S":
        monkeypatch.setattr(search, rest, 60.0)
    many = range(2 * search.FEW)
    async with open_house(valkey) as house:
        await house.append(*[make("e1", context_id=f"c{i}", text="giraffe") for i in many])
        assert len(_ids(await house.search("giraffe", page_size=100))) == len(many)
        await house.append(*[make("e2", context_id=f"c{i}", text="elephant") for i in many])
        assert _ids(await house.search("elephant")) == []
        monkeypatch.setattr(search, "REST_S", 0.0)
        assert len(_ids(await house.search("elephant", page_size=100))) == len(many)
        monkeypatch.setattr(search, "REST_S", 60.0)
        await house.append(*[make("e3", context_id=f"c{i}", text="lion") for i in range(search.FEW)])
        assert len(_ids(await house.search("lion", page_size=100))) == search.FEW


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

        async def whole() -> bool:
            return not (await other.search("number0")).index_incomplete

        await _soon(whole)
        found = await asyncio.gather(*[other.search(f"number{i}") for i in (0, 350, 699)])
        assert [_ids(one) for one in found] == [["c0"], ["c350"], ["c699"]]


async def test_an_index_that_is_not_whole_says_so(
    house: Any, make: Any, open_house: Any, valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.append(*[make("e", context_id=f"c{i}", text="word") for i in range(300)])
    monkeypatch.setattr("webhook_context.finding.search.BUILD_WAIT_S", 0.0)
    lazy = ContextSearchSection(build_at_start=False)
    async with open_house(valkey, context_search=lazy) as other:
        first = await other.search("word")
        assert (first.index_incomplete, first.context_count) == (True, 300)
        assert first.indexed_count < 300

        async def whole() -> bool:
            found = await other.search("word")
            return not found.index_incomplete and found.indexed_count == 300

        await _soon(whole)


async def test_a_replica_builds_its_index_before_anybody_asks(
    house: Any, make: Any, open_house: Any, valkey: Any
) -> None:
    await house.append(*[make("e", context_id=f"c{i}", tenant=f"t{i % 3}") for i in range(60)])
    async with open_house(valkey) as other:

        async def built() -> bool:
            return REGISTRY.get_sample_value("webhook_context_index_incomplete_tenants") == 0

        await _soon(built)
        found = await other.search("happened", tenant="t1")
        assert (found.indexed_count, found.index_incomplete) == (20, False)


async def test_a_move_to_another_tier_is_seen_by_the_filter(house: Any, make: Any) -> None:
    payload = b'{"x": "' + random.Random(1).randbytes(6000).hex().encode() + b'"}'
    await house.append(make("e1", context_id="a", payload=payload), make("e1", context_id="b"))
    warm = ContextFilter(tiers=[Tier.TIER_WARM])
    assert _ids(await house.search("happened", filter=warm)) == []
    await house.move("WARM", "a")

    async def seen() -> bool:
        return _ids(await house.search("happened", filter=warm)) == ["a"]

    await _soon(seen)


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


def _clouds(generator: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Vectors that lie in clouds, as those of texts do."""
    centres = generator.normal(size=(60, 32))
    cloud = generator.normal(size=(count, 32)) * 0.6
    return (centres[generator.integers(60, size=count)] + cloud).astype(np.float32)


def _truth(kept: dict[int, NDArray[np.float32]], query: NDArray[np.float32], most: int) -> list[int]:
    rows = np.array(list(kept))
    matrix = np.array(list(kept.values()))
    cosines = matrix @ query / np.linalg.norm(matrix, axis=1)
    return [int(row) for row in rows[np.argsort(-cosines)][:most]]


def test_vectors_agree_with_brute_force() -> None:
    generator = np.random.default_rng(5)
    vectors = Vectors(16)
    kept: dict[int, NDArray[np.float32]] = {}
    for step in range(3000):
        row = int(generator.integers(800))
        if step % 5 == 0:
            vectors.drop(row)
            kept.pop(row, None)
        else:
            kept[row] = generator.normal(size=16).astype(np.float32)
            vectors.put(row, kept[row])
    query = generator.normal(size=16).astype(np.float32)
    expected = {
        row: float(vector @ query / np.linalg.norm(vector) / np.linalg.norm(query))
        for row, vector in kept.items()
    }
    ranked = vectors.nearest(query.tolist(), 1000)
    assert len(ranked) == len(vectors) == len(kept)
    likenesses = vectors.similarities(query.tolist(), ranked)
    assert dict(zip(ranked, likenesses, strict=True)) == pytest.approx(expected, abs=2e-3)
    assert likenesses == sorted(likenesses, reverse=True)
    even = np.array([row for row in range(2000) if row % 2 == 0])
    assert vectors.nearest(query.tolist(), 10, even) == [row for row in ranked if row % 2 == 0][:10]


def test_many_vectors_are_found_as_if_each_were_looked_at() -> None:
    generator = np.random.default_rng(7)
    vectors = Vectors(32, exact_below=2000)
    kept: dict[int, NDArray[np.float32]] = {}
    for row, vector in enumerate(_clouds(generator, 12_000)):
        vectors.put(row, vector)
        kept[row] = vector
    # Some change, some go, some come anew in their place.
    for row, vector in zip(
        generator.permutation(12_000)[:1000].tolist(), _clouds(generator, 1000), strict=True
    ):
        vectors.drop(row)
        del kept[row]
        if row % 3:
            vectors.put(row, vector)
            kept[row] = vector
    while vectors.lacking:
        vectors.catch_up()
    assert (len(vectors), vectors.is_exact) == (len(kept), False)
    found, exactly = 0, 0
    for query in _clouds(generator, 50):
        truth = set(_truth(kept, query, 10))
        found += len(truth.intersection(vectors.nearest(query.tolist(), 10)))
        exactly += len(truth.intersection(vectors.nearest(query.tolist(), 10, exact=True)))
    # float16 puts a few equals in another order.
    assert (found >= 0.98 * 500, exactly >= 0.99 * 500) == (True, True), (found, exactly)
    third = np.arange(0, 12_000, 3)
    query = _clouds(generator, 1)[0]
    among = {row: vector for row, vector in kept.items() if row % 3 == 0}
    assert len(set(_truth(among, query, 10)).intersection(vectors.nearest(query.tolist(), 10, third))) >= 9


def test_a_vector_without_direction_is_not_kept() -> None:
    vectors = Vectors(2)
    vectors.put(0, [1, 0])
    vectors.put(0, [0, 0])
    assert len(vectors) == 0
    assert vectors.nearest([1, 0], 5) == []
    vectors.put(1, [1, 0])
    assert vectors.nearest([0, 0], 5) == []
    assert vectors.similarities([1, 0], [0, 1, 500]) == [0.0, 1.0, 0.0]


def _document(name: str, **more: Any) -> Document:
    usual: dict[str, Any] = {"version": 1, "tool": "github", "kind": "issue", "tier": Tier.TIER_HOT}
    usual |= {"labels": frozenset(), "importance": 0.5, "update_ms": 1}
    return Document(context_id=name, **(usual | more))


def test_words_are_replaced_and_dropped() -> None:
    index, chosen = TenantIndex(), random.Random(3)
    for i in range(200):
        index.apply([_document(f"c{chosen.randrange(20)}", version=i, title="title", body=f"only{i}")], ())
    names = [f"c{i}" for i in range(20)]
    assert sorted(hit.context_id for hit in index.search(Query("title"), Filter(), 50)) == sorted(names)
    assert len(index) == 20
    index.apply((), names)
    index.apply((), names)
    assert (index.search(Query("title"), Filter(), 50), len(index)) == ([], 0)
    index.close()


def test_a_common_word_does_not_hide_a_rare_one() -> None:
    index = TenantIndex()
    index.apply([_document(f"c{i:04}", body=f"error in part {i}") for i in range(1500)], ())
    index.apply([_document("rare", body="the giraffe has an error")], ())
    hits = index.search(Query("error giraffe"), Filter(), 3)
    assert hits[0].context_id == "rare"
    assert hits[0].words > 3 * hits[1].words
    assert [piece.text for piece in hits[0].highlight if piece.matched] == ["giraffe", "error"]
    index.close()


def test_tiers_move_in_the_index_without_being_read_again() -> None:
    index = TenantIndex()
    index.apply([_document("a", body="word"), _document("b", body="word")], ())
    index.apply((), (), {"b": Tier.TIER_COLD, "unknown": Tier.TIER_COLD})
    cold = Filter(tiers=frozenset({Tier.TIER_COLD}))
    assert [hit.context_id for hit in index.search(Query("word"), cold, 5)] == ["b"]
    assert index.version("b") == 1
    index.close()
