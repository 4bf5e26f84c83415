"""What is found, what is kept, and how fast: local models, retrieval, summaries."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from webhook.context.v1.context_pb2 import Tier
from webhook_context.domain.contexts import Filter
from webhook_context.finding.documents import Document, Model
from webhook_context.finding.index import Query, TenantIndex
from webhook_intelligence.costs import tokens
from webhook_intelligence.costs.budgets import Budgets
from webhook_intelligence.costs.ledger import Ledger, Payer
from webhook_intelligence.costs.prices import Prices
from webhook_intelligence.providers.local import LocalEmbeddings
from webhook_intelligence.providers.openai_calls import OpenAICalls
from webhook_intelligence.providers.protocol import Embedding, EmbeddingProvider, Vector
from webhook_intelligence.providers.static import StaticEmbeddings
from webhook_intelligence.settings import STATIC_MODEL
from webhook_intelligence.summaries.cache import SummaryCache
from webhook_intelligence.summaries.chat import Chat
from webhook_intelligence.summaries.coverage import says
from webhook_intelligence.summaries.extractive import ExtractiveSummarizer, Summarizer, happening_text
from webhook_intelligence.summaries.openai import OpenAISummarizer
from webhook_shared.redis import connect
from webhook_shared.settings import RedisSection

from services.intelligence.tests import openai_server as provider
from services.intelligence.tests.labelled import EVENTS, TOPICS, lookups, questions
from services.intelligence.tests.stories import STORIES, long_story, subject_of

PAYER = Payer("bench", "summarize")
FAR = 1e9
WORDS = 60
NEAREST = 10
NETWORK_TEXTS = 600
STATIC_TEXTS = 50_000
BATCH = 512


async def _vectors(model: EmbeddingProvider, texts: Sequence[str]) -> list[Vector]:
    found = await model.embed(list(texts), deadline=FAR)
    return [one.vector for one in found if isinstance(one, Embedding)]


async def speed(model: EmbeddingProvider, name: str, count: int, in_flight: int) -> dict[str, Any]:
    """Short texts per second with so many calls at once, per second of one processor, p99 of one alone."""
    texts = [f"{EVENTS[i % len(EVENTS)]} ({i})" for i in range(count)]
    batch = min(BATCH, model.limits.batch_texts)
    portions = iter([texts[at : at + batch] for at in range(0, count, batch)])

    async def work() -> None:
        for portion in portions:
            await model.embed(portion, deadline=FAR)

    began, began_cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    per_s = count / (time.perf_counter() - began)
    per_cpu_s = count / (time.process_time() - began_cpu)
    alone = []
    for text in texts[:200]:
        began = time.perf_counter()
        await model.embed([text], deadline=FAR)
        alone.append(1000 * (time.perf_counter() - began))
    return {
        f"{name}_texts_per_s": round(per_s),
        f"{name}_texts_per_cpu_s": round(per_cpu_s),
        f"{name}_p99_ms": round(float(np.percentile(alone, 99)), 2),
    }


Asked = list[tuple[str, frozenset[int]]]
"""Questions, and the places of their answers."""


def _score(asked: Asked, found: Callable[[int], list[int]]) -> tuple[float, float]:
    """recall@10 and the mean reciprocal rank of the first answer, over all questions."""
    recalls, ranks = [], []
    for number, (_, answers) in enumerate(asked):
        order = found(number)
        recalls.append(len(answers & set(order[:NEAREST])) / len(answers))
        ranks.append(next((1 / (at + 1) for at, one in enumerate(order) if one in answers), 0.0))
    return round(statistics.fmean(recalls), 4), round(statistics.fmean(ranks), 4)


async def retrieval(models: dict[str, EmbeddingProvider]) -> dict[str, Any]:
    """The labelled questions by words, by vectors of each model, and by both, in the service's own index.

    Questions of topics share few words with their answers; those with `_of_lookups` name something.
    """
    figures: dict[str, Any] = {}
    sets: dict[str, Asked] = {"": questions(), "_of_lookups": lookups()}
    for name, model in models.items():
        key = Model("local", name, model.model.dimension)
        index = _index(key, await _vectors(model, EVENTS))
        suffix = "" if name != STATIC_MODEL else "_static"
        for of, asked in sets.items():
            texts = [query for query, _ in asked]
            vectors = await _vectors(model, texts)
            pairs = list(zip(texts, vectors, strict=True))
            ways = {
                f"vector{suffix}": [Query("", key, vector.tolist(), exact=True) for vector in vectors],
                f"hybrid{suffix}": [Query(text, key, vector.tolist(), exact=True) for text, vector in pairs],
            }
            if not suffix:
                ways["lexical"] = [Query(text) for text in texts]
            for way, queries in ways.items():
                recall, rank = _score(asked, partial(_order, index, queries))
                figures[f"recall_at_10_{way}{of}"], figures[f"mrr_{way}{of}"] = recall, rank
                print(f"  {way}{of}: recall@10 {recall:.2f}, MRR {rank:.2f}", flush=True)
        index.close()
    figures["static_recall_share"] = round(
        figures["recall_at_10_vector_static"] / figures["recall_at_10_vector"], 4
    )
    return {
        "labelled_queries": sum(map(len, sets.values())),
        "labelled_topics": len(TOPICS),
        **figures,
    }


def _index(key: Model, vectors: Sequence[Vector]) -> TenantIndex:
    """All labelled events."""
    index = TenantIndex()
    documents = [
        Document(
            context_id=str(i),
            version=1,
            tool="github",
            kind="issue",
            tier=Tier.TIER_HOT,
            labels=frozenset(),
            importance=0.5,
            update_ms=0,
            title=event,
            vectors={key: vector},
        )
        for i, (event, vector) in enumerate(zip(EVENTS, vectors, strict=True))
    ]
    index.apply(documents, [])
    return index


def _order(index: TenantIndex, queries: Sequence[Query], number: int) -> list[int]:
    return [int(hit.context_id) for hit in index.search(queries[number], Filter(), len(EVENTS))]


async def local(directory: Path) -> dict[str, Any]:
    """Both local models: speed, and what they find."""
    network = LocalEmbeddings.load(name="all-MiniLM-L6-v2")
    began = time.perf_counter()
    static = StaticEmbeddings.load(name=STATIC_MODEL, directory=str(directory))
    made_s = time.perf_counter() - began
    speeds = await speed(network, "local", NETWORK_TEXTS, 2)
    speeds |= await speed(static, "static", STATIC_TEXTS, 2)
    found = await retrieval({network.model.name: network, STATIC_MODEL: static})
    network.close()
    static.close()
    return {**speeds, "static_made_s": round(made_s, 1), **found}


def _forgetful(_: str, body: dict[str, Any]) -> provider.Answer:
    """A model that loses every fact."""
    return provider.chat(json.dumps({"summary": "Something happened, was talked about, and came to an end."}))


async def _kept(summarizer: Summarizer) -> float:
    found = [
        says(summary.text, fact)
        for story in STORIES
        for summary in [await summarizer.summarize(story.texts, payer=PAYER, max_words=WORDS, deadline=FAR)]
        for fact in story.facts
    ]
    return sum(found) / len(found)


async def summaries(redis: RedisSection) -> dict[str, Any]:
    """Tokens for a thousand events one by one; facts kept by the extractive summariser and by a bad model."""
    client = connect(redis)
    async with (
        provider.serving(_forgetful) as server,
        OpenAICalls(SecretStr("sk-bench"), server.url) as calls,
        Ledger(client, Prices({}), Budgets()) as ledger,
    ):
        chat = Chat(calls, "gpt-4-turbo", ledger, SummaryCache(client, timedelta()), is_openai=False)
        by_model = OpenAISummarizer(chat, ledger, chunk_tokens=4000)
        happenings, facts = long_story()
        summary, covered_to = "", 0
        for i in range(len(happenings)):
            subject = subject_of(happenings[covered_to : i + 1], summary, i + 1)
            found = await by_model.roll(subject, payer=PAYER, max_words=80, deadline=FAR, may_defer=True)
            summary, covered_to = found.text, i + 1 - found.deferred
        sent = sum(
            tokens.estimate(message["content"])
            for request in server.requests
            for message in request["messages"]
        )
        made = len(server.requests)
        story = sum(tokens.estimate(happening_text(one)) for one in happenings)
        long_kept = sum(says(summary, fact) for fact in facts) / len(facts)
        kept = min(await _kept(ExtractiveSummarizer()), await _kept(by_model), long_kept)
    await client.aclose()
    return {
        "summary_token_factor": round(sent / story, 3),
        "summary_calls_for_1000": made,
        "summary_facts_kept": round(kept, 4),
    }
