"""One embedding model after another: the old index serves until the new one is whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_pb2
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_context.domain.contexts import Filter
from webhook_context.finding.documents import Document, Model
from webhook_context.finding.index import Query, TenantIndex
from webhook_context.reindexing import changeover
from webhook_context.reindexing.model_comparison import Sample, compare
from webhook_context.store import keys
from webhook_intelligence.settings import IntelligenceSettings
from webhook_intelligence.wiring import running as running_intelligence
from webhook_shared.errors import from_rpc_error
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import RedisSection, ServicesSection

from services.context.tests.conftest import INTERNAL_KEY, House
from services.context.tests.test_tiers import lifecycle, until
from services.intelligence.tests import openai_server as provider

TITLES = ("Uploads stall above 2 GB", "Login fails behind the proxy", "Invoices are sent twice")
OLD, NEW = 64, 96


def name(i: int) -> str:
    return f"github:octo/hello:issue:{i}"


class Change:
    """A house and intelligence, whose providers may be told to be away."""

    def __init__(self) -> None:
        self.house: House
        self.intelligence: Any = None
        self.refused: set[str] = set()
        self.asked: list[str] = []

    async def reindex(self, **asked: Any) -> list[admin_pb2.ReindexResponse]:
        request = admin_pb2.ReindexRequest(tenant="acme", **asked)
        return [told async for told in self.house.admin.Reindex(request)]

    async def vector(self, text: str, choice: Any = pb.EMBEDDING_CHOICE_SERVING) -> pb.EmbedResponse:
        request = pb.EmbedRequest(texts=[text], tenant="acme", choice=choice)
        answer: pb.EmbedResponse = await self.intelligence.Embed(request)
        return answer

    async def found(self, text: str) -> list[str]:
        """By meaning alone, with the model that serves."""
        answer = await self.vector(text)
        return await self.found_by(answer.results[0].vector, answer.model.name)

    async def found_by(self, vector: Sequence[float], model: str) -> list[str]:
        by = context_pb2.EmbeddingModel(provider="openai", name=model, dimension=len(vector))
        found = await self.house.search(query_vector=vector, query_model=by)
        return [match.context.context_id for match in found.matches]


@asynccontextmanager
async def changing(
    valkey: RedisSection, open_house: Any, tmp_path: Path, *, following: bool = True
) -> AsyncIterator[Change]:
    change = Change()

    def answer(_: str, body: dict[str, Any]) -> provider.Answer:
        change.asked.append(body["model"])
        if body["model"] in change.refused:
            return provider.refused(401)
        return provider.embeddings(body, dimension=OLD if body["model"] == "old" else NEW)

    after = f"next: {{model: new, provider: openai, dimensions: {NEW}}}" if following else ""
    configuration = tmp_path / "webhook.yaml"
    configuration.write_text(
        f"webhook: {{ai: {{embedding: {{model: old, dimensions: {OLD}, cache_duration: 0s, {after}}}}}}}"
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(provider.serving(answer))
        environ = {
            "REDIS_ADDRESSES": valkey.addresses[0],
            "WEBHOOK_INTERNAL_KEY": INTERNAL_KEY.get_secret_value(),
            "WEBHOOK_LISTEN_ADDRESS": "127.0.0.1:0",
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": server.url,
            "AI_SUMMARIZATION_MODEL": "extractive",
        }
        settings = IntelligenceSettings.load(file=configuration, environ=environ)
        up = await stack.enter_async_context(running_intelligence(settings))
        address = f"127.0.0.1:{up.port}"
        change.house = await stack.enter_async_context(
            open_house(
                valkey,
                services=ServicesSection(intelligence=address),
                cold_storage=ObjectStorageSection(directory=tmp_path / "cold"),
                context_lifecycle=lifecycle(),
            )
        )
        channel = connected(address, key=INTERNAL_KEY, deadline_s=20)
        change.intelligence = IntelligenceServiceStub(await stack.enter_async_context(channel))
        yield change


async def known(change: Change, make: Any) -> None:
    """Contexts with vectors of the old model, one of them cold."""
    house = change.house
    for i, title in enumerate(TITLES):
        await house.append(make(f"e{i}", name(i), title=title, text=title))
        answer = await change.vector(title)
        assert not answer.results[0].status.code, answer.results[0].status
        enrichment = context_pb2.Enrichment(summary=title, vector=answer.results[0].vector)
        enrichment.embedding_model.CopyFrom(
            context_pb2.EmbeddingModel(provider="openai", name="old", dimension=OLD)
        )
        context = context_pb2.Context(tenant="acme", context_id=name(i), enrichment=enrichment)
        await house.update(context, "enrichment")
    await house.move("COLD", name(2))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changeover, "NOTICED_AFTER_S", 0.01)


async def test_the_next_index_is_filled_while_the_old_one_serves(
    valkey: RedisSection, redis: Client, open_house: Any, make: Any, *, tmp_path: Path
) -> None:
    async with changing(valkey, open_house, tmp_path) as change:
        await known(change, make)
        versions = [(await change.house.get(name(i))).version for i in range(3)]
        last = (await change.reindex(fill_only=True))[-1]
        assert (last.done, last.phase) == (True, admin_pb2.REINDEX_PHASE_COMPARED)
        assert (last.context_count, last.filled_count) == (3, 3)
        assert (last.comparison.question_count, last.comparison.recall_next) == (3, 1.0)
        # Filled, and the old one serves as before.
        assert (await change.vector("x")).model.name == "old"
        assert (await change.found(TITLES[0]))[0] == name(0)
        filled = change.asked.count("new")

        last = (await change.reindex())[-1]
        assert (last.done, last.phase) == (True, admin_pb2.REINDEX_PHASE_DROPPED)
        # What was filled was not filled again: only the questions were asked.
        assert change.asked.count("new") <= filled + 1
        assert (await change.vector("x")).model.name == "new"
        for i in range(len(TITLES)):
            held = await change.house.get(name(i), include_vector=True)
            assert (held.enrichment.embedding_model.name, len(held.enrichment.vector)) == ("new", NEW)
            assert held.version == versions[i]
            assert not await redis.hexists(keys.context("acme", name(i)), "next_vector")
            assert (await change.found_by(held.enrichment.vector, "new"))[0] == name(i)
        # Where it lay it lies: nothing rose for it.
        assert (await change.house.get(name(2))).tier == context_pb2.TIER_COLD

        async def old_is_gone() -> bool:
            try:
                await change.found_by([1.0] * OLD, "old")
            except grpc.aio.AioRpcError as error:
                return from_rpc_error(error).reason == "MODEL_MISMATCH"
            return False

        await until(old_is_gone)


async def test_a_next_model_that_is_away_changes_nothing(
    valkey: RedisSection, open_house: Any, make: Any, tmp_path: Path
) -> None:
    async with changing(valkey, open_house, tmp_path) as change:
        await known(change, make)
        change.refused.add("new")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change.reindex()
        assert from_rpc_error(caught.value).reason == "PROVIDER_REFUSED"
        assert (await change.vector("x")).model.name == "old"
        assert (await change.found(TITLES[1]))[0] == name(1)


async def test_a_worse_model_does_not_get_in_unless_it_must(
    valkey: RedisSection, open_house: Any, make: Any, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = changeover.Agreement(3, 1.0, 0.5, 0.2)
    monkeypatch.setattr(changeover, "compare", lambda *_: worse)
    async with changing(valkey, open_house, tmp_path) as change:
        await known(change, make)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change.reindex()
        assert from_rpc_error(caught.value).reason == "REINDEX_WORSE"
        assert (await change.vector("x")).model.name == "old"
        assert (await change.reindex(force=True))[-1].phase == admin_pb2.REINDEX_PHASE_DROPPED


async def test_without_a_next_model_stragglers_are_fetched(
    valkey: RedisSection, open_house: Any, make: Any, tmp_path: Path
) -> None:
    async with changing(valkey, open_house, tmp_path, following=False) as change:
        await known(change, make)
        strange = context_pb2.Enrichment(summary="strange", vector=[0.6, 0.8])
        strange.embedding_model.CopyFrom(
            context_pb2.EmbeddingModel(provider="local", name="gone", dimension=2)
        )
        context = context_pb2.Context(tenant="acme", context_id=name(1), enrichment=strange)
        await change.house.update(context, "enrichment")
        (counted, last) = await change.reindex(dry_run=True)
        assert (last.done, counted.context_count, counted.filled_count) == (True, 3, 2)
        assert (await change.reindex())[-1].phase == admin_pb2.REINDEX_PHASE_DROPPED
        held = await change.house.get(name(1))
        assert held.enrichment.embedding_model.name == "old"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change.vector("x", pb.EMBEDDING_CHOICE_NEXT)
        assert from_rpc_error(caught.value).reason == "NO_NEXT_MODEL"


def test_two_indexes_never_mix() -> None:
    index, old, new = TenantIndex(), Model("a", "old", 2), Model("a", "new", 2)

    def document(context_id: str, **vectors: list[float]) -> Document:
        by_model = {{"old": old, "new": new}[which]: vector for which, vector in vectors.items()}
        return Document(
            context_id, 1, "github", "issue", context_pb2.TIER_HOT, frozenset(), 0.5, 1, vectors=by_model
        )

    def found(model: Model) -> list[str]:
        return [hit.context_id for hit in index.search(Query("", model, [1.0, 0.0]), Filter(), 10)]

    index.apply([document("both", old=[1, 0], new=[0, 1]), document("one", old=[0.9, 0.1])], [])
    assert found(old) == ["both", "one"]
    assert found(new) == []
    index.apply([document("both", new=[1, 0])], [])
    assert (found(old), found(new)) == (["one"], ["both"])
    index.apply([], ["one"])
    assert found(new) == ["both"]
    index.close()


def test_a_comparison_tells_a_good_model_from_noise() -> None:
    generator = np.random.default_rng(3)
    contexts = generator.standard_normal((400, 16)).astype(np.float32)
    noise = generator.standard_normal((400, 16)).astype(np.float32)
    sample = Sample(50)
    for at, vector in enumerate(contexts):
        sample.add(f"title {at}", vector.tolist(), noise[at])
    places = sample.places()
    assert 50 == len(places) == len(sample.questions())
    assert max(places) > 300
    asked = [contexts[at] for at in places]
    found = compare(sample, asked, asked)
    assert found.recall_serving == 1.0
    assert found.recall_next < 0.3
    assert found.overlap < 0.3
