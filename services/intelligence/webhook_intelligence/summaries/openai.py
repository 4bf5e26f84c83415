"""Summaries by a chat model: long texts by map and reduce, contexts rolling forward by what is new.

A context's events come one by one, and a call for each would send the summary so far a thousand times. So
the model reads what is new when it is worth a call; until then it stands at the end of the summary, told
without the model. Where the model is away or its answer does not pass, the extractive summariser takes its
place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from webhook_shared.errors import Unavailable

from webhook_intelligence import metrics
from webhook_intelligence.costs import tokens
from webhook_intelligence.costs.ledger import Ledger, Payer
from webhook_intelligence.costs.prices import NOTHING, Usage
from webhook_intelligence.providers.openai_calls import PROVIDER
from webhook_intelligence.settings import EXTRACTIVE, LINK_HOSTS
from webhook_intelligence.summaries.chat import INSTRUCTION_TOKENS, ONE_SENTENCE, Chat, Reply, answer_tokens
from webhook_intelligence.summaries.extractive import (
    ExtractiveSummarizer,
    Style,
    Summary,
    finished,
    finished_roll,
    happening_text,
    roll,
)
from webhook_intelligence.texts import sentences
from webhook_intelligence.texts.subject import Subject

#: What is new of a context is read at the latest when it is so much...
DEFERRED_TOKENS = 3000
MOST_DEFERRED = 200
#: ...and earlier where it is this part of what was read before.
DEFERRED_SHARE = 0.5
#: What stands behind this was told without the model.
SINCE = "Since then: "
_TOLD_SHARE = 0.4
#: The parts of a long text are summarised in so many words, for the summary of all to be made from.
PART_WORDS = 100


class OpenAISummarizer:
    """A chat model, with the extractive summariser to fall back on."""

    def __init__(
        self, chat: Chat, ledger: Ledger, *, chunk_tokens: int, hosts: Collection[str] = LINK_HOSTS
    ) -> None:
        """Use a model.

        Args:
            chat: The model.
            ledger: Where estimates are put right.
            chunk_tokens: Most tokens of webhook text in one call.
            hosts: Where the links of a summary may lead.
        """
        self.model = chat.model
        self._chat = chat
        self._ledger = ledger
        self._chunk_tokens = chunk_tokens
        self._hosts = hosts
        self._fallback = ExtractiveSummarizer(hosts)

    async def summarize(
        self,
        texts: Sequence[str],
        *,
        payer: Payer,
        max_words: int,
        deadline: float,
        style: Style = Style.PROSE,
    ) -> Summary:
        """One summary; text over the chunk size is summarised part by part, and then the parts."""
        with metrics.SUMMARY_S.labels(PROVIDER).time():
            try:
                reply = await self._reduced(list(texts), payer, style.words(max_words), deadline, style)
            except Unavailable:
                metrics.SUMMARY_FALLBACKS.inc()
                reply = None
            if reply is None:
                return await self._fallback.summarize(
                    texts, payer=payer, max_words=max_words, deadline=deadline, style=style
                )
            said = sentences.clip(reply.text, max_words)
            made = finished(said, self.model, texts, max_words=max_words, style=style, hosts=self._hosts)
            return replace(made, is_cached=reply.is_cached)

    async def _reduced(
        self, texts: list[str], payer: Payer, max_words: int, deadline: float, style: Style
    ) -> Reply | None:
        """The answer to all texts; None where the model can't give one."""
        cached = True
        while len(chunks := chunked(texts, self._chunk_tokens)) > 1:
            parts = await asyncio.gather(*(self._part(chunk, payer, deadline) for chunk in chunks))
            cached = cached and all(part.is_cached for part in parts)
            texts = [part.text for part in parts]
        form = ONE_SENTENCE if style is Style.HEADLINE else ""
        reply = await self._chat.ask(
            {"texts": chunks[0]}, payer=payer, max_words=max_words, deadline=deadline, form=form
        )
        return replace(reply, is_cached=cached and reply.is_cached) if reply else None

    async def _part(self, chunk: list[str], payer: Payer, deadline: float) -> Reply:
        """A part in fewer words. Where the model refuses it, its most telling sentences stand for it."""
        words = min(PART_WORDS, max(20, self._chunk_tokens // 4))
        reply = await self._chat.ask({"texts": chunk}, payer=payer, max_words=words, deadline=deadline)
        text = reply.text if reply else sentences.extract(chunk, words)
        # A model that answers at length would make the reduction endless.
        short = tokens.pieces(sentences.clip(text, words), max(50, self._chunk_tokens // 3))[0]
        return Reply(short, is_cached=reply is not None and reply.is_cached)

    async def roll(
        self, subject: Subject, *, payer: Payer, max_words: int, deadline: float, may_defer: bool = False
    ) -> Summary:
        """The summary so far, brought up to date; only what is new is sent, and only when it is worth it."""
        with metrics.SUMMARY_S.labels(PROVIDER).time():
            if not may_defer:
                return await self._rolled(subject, payer, max_words, max_words, deadline) or self._told(
                    subject, max_words
                )
            read_before = max(0, subject.event_count - len(subject.happenings))
            base = subject.summary.rpartition(f" {SINCE}")[0] or subject.summary if read_before else ""
            known = replace(subject, summary=base)
            if self._is_worth_a_call(known, read_before):
                words = int(max_words * (1 - _TOLD_SHARE))
                found = await self._rolled(known, payer, words, max_words, deadline)
                if found is not None:
                    return found
            return self._deferred(known, max_words)

    def _is_worth_a_call(self, subject: Subject, read_before: int) -> bool:
        fresh = subject.happenings
        if not fresh:
            return False
        return (
            not subject.summary
            or len(fresh) >= min(MOST_DEFERRED, DEFERRED_SHARE * read_before)
            or sum(tokens.estimate(happening_text(one)) for one in fresh)
            >= min(DEFERRED_TOKENS, self._chunk_tokens * 3 // 4)
        )

    async def _rolled(
        self, subject: Subject, payer: Payer, words: int, max_words: int, deadline: float
    ) -> Summary | None:
        """By the model; None where it can't, or is away."""
        summary = subject.summary
        lines = [happening_text(happening) for happening in subject.happenings]
        try:
            for chunk in chunked(lines, self._chunk_tokens):
                document = {"title": subject.title, "id": subject.context_id, "new": chunk}
                if summary:
                    document = {"summary_so_far": summary, **document}
                reply = await self._chat.ask(document, payer=payer, max_words=words, deadline=deadline)
                if reply is None:
                    return None
                summary = sentences.clip(reply.text.replace(SINCE.strip(), "Since then"), words)
        except Unavailable:
            metrics.SUMMARY_FALLBACKS.inc()
            return None
        # With room left for what will be told behind it.
        most = max_words if words == max_words else int(words * 1.25)
        return finished_roll(summary, self.model, subject, most, self._hosts)

    def _told(self, subject: Subject, max_words: int) -> Summary:
        return finished_roll(roll(subject, max_words), EXTRACTIVE, subject, max_words, self._hosts)

    def _deferred(self, subject: Subject, max_words: int) -> Summary:
        """What the model said last, and what has happened since in our words."""
        fresh = len(subject.happenings)
        if not subject.summary:
            return replace(self._told(subject, max_words), deferred=fresh)
        room = max(8, max_words - len(subject.summary.split()) - len(SINCE.split()))
        told = self._told(replace(subject, summary="", title=""), room)
        if not told.text:
            return finished_roll(subject.summary, self.model, subject, max_words, self._hosts)
        text = f"{subject.summary} {SINCE}{told.text}"
        return replace(told, text=text, model=self.model, deferred=fresh)

    def expect(self, texts: Sequence[str], *, max_words: int) -> Usage:
        """What its calls would take, each with the instructions."""
        chunks = chunked(list(texts), self._chunk_tokens)
        words = [max_words] if len(chunks) == 1 else [PART_WORDS] * len(chunks)
        usage = self._expected(chunks, words, "")
        if len(chunks) > 1:
            parts = answer_tokens(PART_WORDS) * len(chunks)
            usage += Usage(INSTRUCTION_TOKENS + parts, answer_tokens(max_words))
        return self._ledger.calibration.expected(self.model, usage)

    def expect_roll(self, subject: Subject, *, max_words: int) -> Usage:
        """The same for what is new of a subject, were it read at once."""
        chunks = chunked([happening_text(one) for one in subject.happenings], self._chunk_tokens)
        summaries = subject.summary + "word " * max_words * (len(chunks) - 1)
        usage = self._expected(chunks, [max_words] * len(chunks), summaries)
        return self._ledger.calibration.expected(self.model, usage)

    def _expected(self, chunks: list[list[str]], words: list[int], repeated: str) -> Usage:
        sent = sum(tokens.estimate(json.dumps({"new": chunk}, ensure_ascii=False)) for chunk in chunks)
        sent += INSTRUCTION_TOKENS * len(chunks) + (tokens.estimate(repeated) if repeated else 0)
        return Usage(sent, sum(map(answer_tokens, words))) if chunks else NOTHING


def chunked(texts: list[str], size_tokens: int) -> list[list[str]]:
    """The texts in order, in groups of so many tokens at most; a longer text is divided, none left out."""
    groups: list[list[str]] = [[]]
    room = size_tokens
    for text in texts:
        for piece in tokens.pieces(text, size_tokens):
            cost = tokens.estimate(piece)
            if cost > room and groups[-1]:
                groups.append([])
                room = size_tokens
            groups[-1].append(piece)
            room -= cost
    return [group for group in groups if group]
