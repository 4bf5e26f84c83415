"""Summaries keep the facts, say where they have them from, and cost about what they are made of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from webhook_intelligence.costs import tokens
from webhook_intelligence.costs.budgets import Budgets
from webhook_intelligence.costs.ledger import Ledger, Payer
from webhook_intelligence.costs.prices import Prices
from webhook_intelligence.providers.openai_calls import OpenAICalls
from webhook_intelligence.summaries.cache import SummaryCache
from webhook_intelligence.summaries.chat import Chat
from webhook_intelligence.summaries.coverage import (
    LONGEST_KEPT_CHARS,
    _kept,
    covered,
    facts_of,
    missing_from,
    says,
)
from webhook_intelligence.summaries.extractive import ExtractiveSummarizer, Style, Summarizer, happening_text
from webhook_intelligence.summaries.openai import SINCE, OpenAISummarizer
from webhook_intelligence.summaries.provenance import sourced
from webhook_shared.redis import Client

from services.intelligence.tests import openai_server as fake
from services.intelligence.tests.stories import STORIES, long_story, subject_of

PAYER = Payer("acme", "summarize")
WORDS = 60
FAR = 1e9


@asynccontextmanager
async def chatting(
    redis: Client, handler: fake.Handler, *, keep: timedelta = timedelta(days=7)
) -> AsyncIterator[tuple[OpenAISummarizer, fake.Server]]:
    async with (
        fake.serving(handler) as server,
        OpenAICalls(SecretStr("sk-good"), server.url) as calls,
        Ledger(redis, Prices({}), Budgets()) as ledger,
    ):
        chat = Chat(calls, "gpt-4-turbo", ledger, SummaryCache(redis, keep), is_openai=False)
        yield OpenAISummarizer(chat, ledger, chunk_tokens=4000), server


def forgetful(_: str, body: dict[str, Any]) -> fake.Answer:
    """A model that loses every fact, as models do."""
    return fake.chat(json.dumps({"summary": "Something happened, was talked about, and came to an end."}))


async def kept(summarizer: Summarizer) -> float:
    """The share of the labelled facts that summaries keep."""
    found = total = 0
    for story in STORIES:
        summary = await summarizer.summarize(story.texts, payer=PAYER, max_words=WORDS, deadline=FAR)
        assert len(summary.text.split()) <= WORDS
        found += sum(says(summary.text, fact) for fact in story.facts)
        total += len(story.facts)
    return found / total


async def test_the_extractive_summariser_keeps_the_facts() -> None:
    assert await kept(ExtractiveSummarizer()) >= 0.95


async def test_a_forgetful_model_does_not_lose_them(redis: Client) -> None:
    async with chatting(redis, forgetful) as (summarizer, _):
        assert await kept(summarizer) >= 0.95


async def test_many_events_one_by_one(redis: Client) -> None:
    # The benchmark tells a thousand.
    happenings, facts = long_story(300)
    async with chatting(redis, forgetful) as (summarizer, server):
        summary, covered_to = "", 0
        for i in range(len(happenings)):
            subject = subject_of(happenings[covered_to : i + 1], summary, i + 1)
            found = await summarizer.roll(subject, payer=PAYER, max_words=80, deadline=FAR, may_defer=True)
            summary, covered_to = found.text, i + 1 - found.deferred
            assert len(summary.split()) <= 80
        sent = sum(
            tokens.estimate(message["content"])
            for request in server.requests
            for message in request["messages"]
        )
        events = sum(tokens.estimate(happening_text(one)) for one in happenings)
        assert sent / events <= 1.25
        assert [fact for fact in facts if not says(summary, fact)] == []
        # Nothing was skipped, nothing read twice.
        read = [
            line
            for request in server.requests
            for line in json.loads(request["messages"][1]["content"])["new"]
        ]
        assert read == [happening_text(one) for one in subject_of(happenings[:covered_to], "", 0).happenings]


async def test_what_the_model_has_not_read_stands_at_the_end(redis: Client) -> None:
    happenings, _ = long_story()
    async with chatting(redis, forgetful) as (summarizer, server):
        first = await summarizer.roll(
            subject_of(happenings[:10], "", 10), payer=PAYER, max_words=80, deadline=FAR, may_defer=True
        )
        assert (first.deferred, len(server.requests)) == (0, 1)
        merged = replace(happenings[995], event_id="m")
        subject = subject_of([merged], first.text, 11)
        second = await summarizer.roll(subject, payer=PAYER, max_words=80, deadline=FAR, may_defer=True)
        assert (second.deferred, len(server.requests)) == (1, 1)
        assert second.text.startswith(f"{first.text} {SINCE}")
        assert "Merged by" in second.text or "merged" in second.text
        # The same comes again with more: the end is told anew, not twice.
        subject = subject_of([merged, happenings[998]], second.text, 12)
        third = await summarizer.roll(subject, payer=PAYER, max_words=80, deadline=FAR, may_defer=True)
        assert third.text.count(SINCE) == 1
        assert "OPS-900" in third.text


async def test_an_outage_defers_and_loses_nothing(redis: Client) -> None:
    is_up = True

    def handler(path: str, body: dict[str, Any]) -> fake.Answer:
        return forgetful(path, body) if is_up else fake.refused(503)

    happenings, _ = long_story()
    async with chatting(redis, handler) as (summarizer, server):
        loop = asyncio.get_running_loop()
        first = await summarizer.roll(
            subject_of(happenings[:2], "", 2), payer=PAYER, max_words=80, deadline=FAR, may_defer=True
        )
        is_up = False
        subject = subject_of(happenings[2:8], first.text, 8)
        during = await summarizer.roll(
            subject, payer=PAYER, max_words=80, deadline=loop.time() + 0.2, may_defer=True
        )
        assert during.deferred == 6
        is_up = True
        subject = subject_of(happenings[2:9], during.text, 9)
        after = await summarizer.roll(subject, payer=PAYER, max_words=80, deadline=FAR, may_defer=True)
        assert after.deferred == 0
        assert len(json.loads(server.requests[-1]["messages"][1]["content"])["new"]) == 7


async def test_the_same_question_is_paid_once_and_kept_sealed(redis: Client) -> None:
    async with chatting(redis, forgetful) as (summarizer, server):
        for i in range(3):
            found = await summarizer.summarize(
                ["It rained in v1.2.3."], payer=PAYER, max_words=20, deadline=FAR
            )
            assert found.is_cached == (i > 0)
        other = Payer("globex", "summarize")
        await summarizer.summarize(["It rained in v1.2.3."], payer=other, max_words=20, deadline=FAR)
        await summarizer.summarize(["It rained in v1.2.3."], payer=PAYER, max_words=21, deadline=FAR)
        assert len(server.requests) == 3
    keys = await redis.keys("sum:*")
    assert len(keys) == 3
    for key in keys:
        assert b"Something happened" not in await redis.get(key)
        assert 604_700_000 < await redis.pttl(key) <= 604_800_000


async def test_rubbish_in_the_cache_is_asked_again(redis: Client) -> None:
    async with chatting(redis, forgetful) as (summarizer, server):
        for _ in range(2):
            found = await summarizer.summarize(["It rained."], payer=PAYER, max_words=20, deadline=FAR)
            assert not found.is_cached
            for key in await redis.keys("sum:*"):
                await redis.set(key, b"\x00" * 40)
        assert len(server.requests) == 2


async def test_styles(redis: Client) -> None:
    texts = STORIES[1].texts
    for summarizer in (ExtractiveSummarizer(),):
        prose = await summarizer.summarize(texts, payer=PAYER, max_words=60, deadline=FAR)
        bullets = await summarizer.summarize(
            texts, payer=PAYER, max_words=60, deadline=FAR, style=Style.BULLETS
        )
        headline = await summarizer.summarize(
            texts, payer=PAYER, max_words=60, deadline=FAR, style=Style.HEADLINE
        )
        assert "\n" not in prose.text
        assert all(line.startswith("- ") for line in bullets.text.splitlines())
        assert len(bullets.text.splitlines()) == len(bullets.sentences) >= 2
        assert 0 < len(headline.text.split()) <= 16
    async with chatting(redis, forgetful) as (chat, server):
        await chat.summarize(texts, payer=PAYER, max_words=60, deadline=FAR, style=Style.HEADLINE)
        assert "in one sentence" in server.requests[0]["messages"][0]["content"]


async def test_each_sentence_names_its_events() -> None:
    happenings, _ = long_story()
    chosen = [happenings[0], happenings[990], happenings[995], happenings[998]]
    found = await ExtractiveSummarizer().roll(
        subject_of(chosen, "", 4), payer=PAYER, max_words=80, deadline=FAR
    )
    by_text = {sentence.text: sentence.sources for sentence in found.sentences}
    assert next(sources for text, sources in by_text.items() if "OPS-900" in text)[0] == 3
    assert next(sources for text, sources in by_text.items() if "opened" in text)[0] == 0
    assert all(sources for text, sources in by_text.items() if not text.startswith("Also"))


def test_a_claim_without_a_source_has_none() -> None:
    (first, second) = sourced(
        "The upload of part 7 failed. Elvis is alive and lives in Memphis.",
        ["the upload failed at part 7", "lunch"],
    )
    assert (first.sources, second.sources) == ((0,), ())


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("Fixes #17 and OPS-812 in v1.2.3", {"#17", "OPS-812", "v1.2.3"}),
        ("fell from 12 % to 0.1 % in 41 minutes", {"12 %", "0.1 %", "41 minutes"}),
        ("HTTP 503 since 3f9c2ab1, CVE-2026-30111", {"HTTP 503", "3f9c2ab1", "CVE-2026-30111"}),
        ("I think 7 things about it, 3 even", set()),
        ("see src/reader/parse.py and @ann", {"src/reader/parse.py", "@ann"}),
    ],
)
def test_facts(text: str, facts: set[str]) -> None:
    assert set(facts_of([text])) == facts


def test_a_fact_within_another_is_not_said() -> None:
    assert not says("see #170 and v1.2.30", "#17")
    assert not says("see #170 and v1.2.30", "v1.2.3")
    assert missing_from("#17.", ["#17", "#18"]) == ["#18"]


@given(
    summary=st.text(max_size=200),
    facts=st.lists(st.from_regex(r"\A#[0-9]{1,4}\Z"), max_size=70, unique=True),
    words=st.integers(10, 80),
)
def test_never_longer_than_allowed(summary: str, facts: list[str], words: int) -> None:
    text, found = covered(" ".join(summary.split()[:words]), facts, words)
    assert len(text.split()) <= words
    assert found.kept <= found.facts == len(facts)
    assert found.kept == sum(says(text, fact) for fact in facts)


def test_the_facts_of_a_long_text_are_found_and_not_kept() -> None:
    _kept.cache_clear()
    long = "word " * LONGEST_KEPT_CHARS + "and PROJ-417 at last"
    assert "PROJ-417" in facts_of([long])
    assert _kept.cache_info().currsize == 0
    assert "PROJ-417" in facts_of(["see PROJ-417"])
    assert _kept.cache_info().currsize == 1
