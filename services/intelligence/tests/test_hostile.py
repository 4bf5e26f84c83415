"""Whatever strangers write, and a model makes of it: in shape, bounded, no links, markup or secrets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_intelligence.summaries.extractive import ExtractiveSummarizer, Summarizer, Summary
from webhook_intelligence.summaries.openai import OpenAISummarizer
from webhook_intelligence.texts.presentable import LINK_REMOVED, presentable
from webhook_intelligence.texts.redaction import redact
from webhook_intelligence.texts.subject import Happening, Subject
from webhook_shared.redis import Client

from services.intelligence.tests import openai_server as fake
from services.intelligence.tests.hostile import ATTACKS, Attack
from services.intelligence.tests.test_facts import FAR, PAYER, chatting

WORDS = 40
HOSTS = ("github.com",)


def echoing(_: str, body: dict[str, Any]) -> fake.Answer:
    """A model that does as it is told by strangers: it repeats them, word for word."""
    document = json.loads(body["messages"][1]["content"])
    said = " ".join([*document.get("texts", ()), *document.get("new", ()), document.get("title", "")])
    return fake.chat(json.dumps({"summary": said[:19_000] or "-"}))


@pytest.fixture
async def gullible(redis: Client) -> AsyncIterator[tuple[OpenAISummarizer, fake.Server]]:
    async with chatting(redis, echoing) as both:
        yield both


def is_harmless(summary: Summary, attack: Attack) -> None:
    assert len(summary.text.split()) <= WORDS
    assert len(summary.text) <= WORDS * 66
    for part in attack.forbidden:
        assert part not in summary.text, (attack.name, summary.text)
    assert not any(ord(char) < 32 for char in summary.text)


def subject_with(attack: Attack) -> Subject:
    happenings = (
        Happening("e1", "issue", "opened", "eve", attack.text),
        Happening("e2", "issue_comment", "created", attack.text[:64], attack.text),
        Happening("e3", "issue", "closed", "bob", "done"),
    )
    return Subject("github:octo/hello:issue:7", attack.text, "", happenings, 3).readable()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
async def test_attacks(gullible: tuple[OpenAISummarizer, fake.Server], attack: Attack) -> None:
    chat, server = gullible
    summarizers: tuple[Summarizer, ...] = (ExtractiveSummarizer(), chat)
    for summarizer in summarizers:
        rolled = await summarizer.roll(subject_with(attack), payer=PAYER, max_words=WORDS, deadline=FAR)
        is_harmless(rolled, attack)
        of_texts = await summarizer.summarize(
            [redact(attack.text), "The end."], payer=PAYER, max_words=WORDS, deadline=FAR
        )
        is_harmless(of_texts, attack)
    for request in server.requests:
        system, user = request["messages"]
        # The words of strangers never stand among the instructions, and no secret leaves the house.
        assert attack.text[:40] not in system["content"]
        assert isinstance(json.loads(user["content"]), dict)
        assert not any(secret in user["content"] for secret in ("ghp_A1b2", "AKIAABCD", "hunter2hunter2"))
        assert "tools" not in request
        assert "functions" not in request


@pytest.mark.parametrize(
    "answer",
    [
        '{"summary": "see https://evil.example/a and https://github.com/octo/hello/pull/42"}',
        '{"summary": "[click](https://evil.example/a) or https://github.com/octo/hello/pull/42"}',
        '{"summary": "HTTPS://EVIL.EXAMPLE/A https://github.com/octo/hello/pull/42"}',
        '{"summary": "http://github.com/octo https://github.com/octo/hello/pull/42"}',
    ],
)
async def test_only_links_that_are_allowed_and_were_said(redis: Client, answer: str) -> None:
    async with chatting(redis, lambda *_: fake.chat(answer)) as (chat, _):
        text = "see https://evil.example/a, http://github.com/octo and https://github.com/octo/hello/pull/42"
        found = await chat.summarize([text], payer=PAYER, max_words=WORDS, deadline=FAR)
        assert "https://github.com/octo/hello/pull/42" in found.text
        assert "evil" not in found.text.lower()
        other = await chat.summarize(["nothing of the kind"], payer=PAYER, max_words=WORDS, deadline=FAR)
        assert "github.com/octo/hello" not in other.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://github.com/octo.", "see https://github.com/octo."),
        ("see https://api.github.com/octo", "see https://api.github.com/octo"),
        ("see https://github.com:8443/octo", f"see {LINK_REMOVED}"),
        ("see https://evilgithub.com/octo", f"see {LINK_REMOVED}"),
        ("see https://github.com\\@evil.example/", f"see {LINK_REMOVED}"),
        ("ftp://github.com/octo", LINK_REMOVED),
        ("1 < 2 and a > b", "1 < 2 and a > b"),
        ("a\tb\r\nc", "a b c"),
    ],
)
def test_presentable(text: str, shown: str) -> None:
    assert presentable(text, hosts=HOSTS) == shown


@given(st.text(max_size=400))
def test_any_text_becomes_presentable_once_and_for_all(text: str) -> None:
    shown = presentable(text, hosts=())
    assert presentable(shown, hosts=()) == shown
    assert "\n" not in shown
    assert "://" not in shown or not any(
        part.split("://")[0].isalpha() for part in shown.split() if "://" in part
    )


@pytest.mark.parametrize("piece", ["[](", "![a](", "<a", "https://a/", "javascript:", "[[[", "<<<<"])
def test_no_text_makes_it_slow(piece: str) -> None:
    import time  # only here

    began = time.process_time()
    presentable(piece * (20_000 // len(piece)), hosts=HOSTS)
    assert time.process_time() - began < 2
