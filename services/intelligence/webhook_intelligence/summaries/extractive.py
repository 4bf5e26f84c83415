"""Summaries made here, from what happened: readable sentences, the newest state always among them.

Deterministic and extractive: every word is either ours (who did what to which thing, taken from the
structure of the events) or stands in quotation marks and is a sender's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from webhook_intelligence import metrics
from webhook_intelligence.costs.ledger import Payer
from webhook_intelligence.costs.prices import NOTHING, Usage
from webhook_intelligence.settings import EXTRACTIVE, LINK_HOSTS
from webhook_intelligence.summaries.coverage import APPENDIX, Coverage, covered, facts_of
from webhook_intelligence.summaries.provenance import Sourced, sourced
from webhook_intelligence.summaries.telling import quotable, tell
from webhook_intelligence.texts import sentences
from webhook_intelligence.texts.presentable import plain, presentable
from webhook_intelligence.texts.sentences import Sentence
from webhook_intelligence.texts.subject import Happening, Subject
from webhook_intelligence.texts.vocabulary import FAILURES, RUNS, STATES

DEFAULT_WORDS = 60
HEADLINE_WORDS = 16
# Of all texts together so much is read from either end; what is in the middle of more is not looked at.
READ_CHARS = 128 * 1024
_MOST_NAMES = 8


class Style(StrEnum):
    """The form of a summary."""

    PROSE = "prose"
    BULLETS = "bullets"
    HEADLINE = "headline"

    def words(self, wanted: int) -> int:
        """How many words it may have."""
        return min(wanted, HEADLINE_WORDS) if self is Style.HEADLINE else wanted


@dataclass(frozen=True)
class Summary:
    """A short text and what made it.

    Attributes:
        text: For people.
        model: "extractive", or the chat model.
        sentences: The same, with the places of the texts (or happenings) that each rests on.
        coverage: What became of the facts.
        deferred: So many of the last happenings no model has read yet; they stand at its end all the same.
        is_cached: Whether it was made before.
    """

    text: str
    model: str
    sentences: tuple[Sourced, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)
    deferred: int = 0
    is_cached: bool = False


class Summarizer(Protocol):
    """Makes summaries."""

    @property
    def model(self) -> str:
        """What makes them."""

    async def summarize(
        self,
        texts: Sequence[str],
        *,
        payer: Payer,
        max_words: int,
        deadline: float,
        style: Style = Style.PROSE,
    ) -> Summary:
        """One summary of texts that are read as one. None of them is empty or holds a secret.

        Raises:
            ServiceError: RESOURCE_EXHAUSTED/BUDGET_SPENT.
        """

    async def roll(
        self, subject: Subject, *, payer: Payer, max_words: int, deadline: float, may_defer: bool = False
    ) -> Summary:
        """The summary so far, brought up to date with what has happened since; see `summarize`.

        Args:
            subject: Readable.
            payer: Whose budget.
            max_words: Most words.
            deadline: In the time of the running loop.
            may_defer: Whether happenings that no model has read come again.
        """

    def expect(self, texts: Sequence[str], *, max_words: int) -> Usage:
        """What `summarize` would ask of a provider."""

    def expect_roll(self, subject: Subject, *, max_words: int) -> Usage:
        """What `roll` would ask of a provider."""


class ExtractiveSummarizer:
    """The summariser that needs nothing."""

    model = EXTRACTIVE

    def __init__(self, hosts: Collection[str] = LINK_HOSTS) -> None:
        self._hosts = hosts

    async def summarize(
        self,
        texts: Sequence[str],
        *,
        payer: Payer,
        max_words: int,
        deadline: float,
        style: Style = Style.PROSE,
    ) -> Summary:
        """The most telling sentences, word for word."""
        with metrics.SUMMARY_S.labels("local").time():
            said = sentences.extract(_ends(texts), style.words(max_words))
            if style is Style.HEADLINE:
                said = next(iter(sentences.split(said)), said)
            return finished(said, EXTRACTIVE, texts, max_words=max_words, style=style, hosts=self._hosts)

    async def roll(
        self, subject: Subject, *, payer: Payer, max_words: int, deadline: float, may_defer: bool = False
    ) -> Summary:
        """The most telling of the sentences so far and of one per new happening."""
        with metrics.SUMMARY_S.labels("local").time():
            return finished_roll(roll(subject, max_words), EXTRACTIVE, subject, max_words, self._hosts)

    def expect(self, texts: Sequence[str], *, max_words: int) -> Usage:
        """Nothing."""
        return NOTHING

    def expect_roll(self, subject: Subject, *, max_words: int) -> Usage:
        """Nothing."""
        return NOTHING


def finished(
    said: str,
    model: str,
    texts: Sequence[str],
    *,
    max_words: int,
    style: Style,
    hosts: Collection[str],
) -> Summary:
    """A summary of texts: made presentable, with the facts that it has missed, its sources and its style."""
    words = style.words(max_words)
    shown = sentences.clip(presentable(said, hosts=hosts, said="\n".join(texts)), words)
    found = Coverage()
    if style is not Style.HEADLINE:
        shown, found = covered(shown, facts_of(texts), words)
    lines = sourced(shown, texts)
    if style is Style.BULLETS:
        shown = "\n".join(f"- {line.text}" for line in lines)
    return Summary(shown, model, lines, found)


def finished_roll(said: str, model: str, subject: Subject, max_words: int, hosts: Collection[str]) -> Summary:
    """The same for what has happened in a context."""
    lines = [happening_text(happening) for happening in subject.happenings]
    known = "\n".join([subject.summary, subject.title, *lines])
    shown = sentences.clip(presentable(said, hosts=hosts, said=known), max_words)
    # Who runs the checks is of no interest.
    actors = Counter(one.actor for one in subject.happenings if one.actor and one.kind not in RUNS)
    names = [quotable(name) for name, _ in actors.most_common(_MOST_NAMES)]
    facts = facts_of([subject.summary, subject.title, *lines], names=names)
    shown, found = covered(shown, facts, max_words)
    return Summary(shown, model, sourced(shown, lines), found)


def happening_text(happening: Happening) -> str:
    """A happening on one line: who did what to which kind of thing, and the words of it."""
    who = f"{happening.actor} " if happening.actor else ""
    return f"{who}{happening.action} {happening.kind}: {happening.text}".strip()


def roll(subject: Subject, max_words: int) -> str:
    """What `ExtractiveSummarizer.roll` says."""
    known = [
        sentences.clip(sentence, sentences.SENTENCE_WORDS)
        for sentence in sentences.split(plain(subject.summary))
        # What was appended is weighed anew.
        if not sentence.startswith(APPENDIX)
    ]
    told = tell(subject, is_new=not known)
    lines = list(dict.fromkeys([*map(sentences.closed, known), *told]))
    if not lines:
        return sentences.clip(sentences.closed(quotable(subject.title)), max_words) if subject.title else ""
    said = [_states_in(line) for line in lines]
    current = _latest_states(lines, said).values()
    newest_state = max(current, default=len(lines) - 1)
    candidates = [
        Sentence(
            line,
            weight=_weight(said[i], i, len(lines), is_current=i in current),
            keep=i in {0, newest_state, len(lines) - 1},
        )
        for i, line in enumerate(lines)
    ]
    return sentences.clip(" ".join(s.text for s in sentences.choose(candidates, max_words)), max_words)


_QUOTED = re.compile(r"'[^']*'")


def _states_in(line: str) -> frozenset[str]:
    """The words of ours (never a sender's, which stand in quotation marks) that say a state."""
    ours = _QUOTED.sub(" ", line).lower().replace("(", " ").replace(".", " ").replace(":", " ")
    return frozenset(ours.split()) & STATES.keys()


def _latest_states(lines: Sequence[str], said: Sequence[frozenset[str]]) -> dict[str, int]:
    """The newest line of each thing that has states: open, closed or merged; each check by itself..."""
    newest: dict[str, int] = {}
    for i, (line, states) in enumerate(zip(lines, said, strict=True)):
        for word in states:
            group = STATES[word]
            newest[line.replace(word, "") if group == "run" else group] = i
    return newest


def _weight(states: frozenset[str], at: int, of: int, *, is_current: bool) -> float:
    weight = 0.4 + 0.6 * (at + 1) / of
    if states:
        # A state that a later one has replaced is history.
        weight += 1.0 if is_current else 0.2
    if states & FAILURES:
        weight += 0.4
    return weight


def _ends(texts: Sequence[str]) -> list[str]:
    """The texts, or the beginning and the end of them where they are too much to read."""
    if sum(map(len, texts)) <= 2 * READ_CHARS:
        return list(texts)
    joined = "\n".join(texts)
    return [joined[:READ_CHARS], joined[-READ_CHARS:]]
