"""Summaries made here, from what happened: readable sentences, the newest state always among them.

Deterministic and extractive: every word is either ours (who did what to which thing, taken from the
structure of the events) or stands in quotation marks and is a sender's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from webhook_intelligence import metrics, sentences
from webhook_intelligence.ledger import Payer
from webhook_intelligence.prices import NOTHING, Usage
from webhook_intelligence.sentences import Sentence
from webhook_intelligence.settings import EXTRACTIVE
from webhook_intelligence.subject import Subject
from webhook_intelligence.telling import quotable, tell
from webhook_intelligence.vocabulary import FAILURES, STATES

DEFAULT_WORDS = 60
# Of all texts together so much is read from either end; what is in the middle of more is not looked at.
READ_CHARS = 128 * 1024


@dataclass(frozen=True)
class Summary:
    """A short text and what made it."""

    text: str
    model: str


class Summarizer(Protocol):
    """Makes summaries."""

    @property
    def model(self) -> str:
        """What makes them."""

    async def summarize(
        self, texts: Sequence[str], *, payer: Payer, max_words: int, deadline: float
    ) -> Summary:
        """One summary of texts that are read as one. None of them is empty or holds a secret.

        Raises:
            ServiceError: UNAVAILABLE/PROVIDER_UNREACHABLE, FAILED_PRECONDITION/PROVIDER_REFUSED,
                RESOURCE_EXHAUSTED/BUDGET_SPENT.
        """

    async def roll(self, subject: Subject, *, payer: Payer, max_words: int, deadline: float) -> Summary:
        """The summary so far, brought up to date with what has happened since; see `summarize`."""

    def expect(self, texts: Sequence[str], *, max_words: int) -> Usage:
        """What `summarize` would ask of a provider."""

    def expect_roll(self, subject: Subject, *, max_words: int) -> Usage:
        """What `roll` would ask of a provider."""


class ExtractiveSummarizer:
    """The summariser that needs nothing."""

    model = EXTRACTIVE

    async def summarize(
        self, texts: Sequence[str], *, payer: Payer, max_words: int, deadline: float
    ) -> Summary:
        """The most telling sentences, word for word."""
        with metrics.SUMMARY_S.labels("local").time():
            return Summary(sentences.extract(_ends(texts), max_words), EXTRACTIVE)

    async def roll(self, subject: Subject, *, payer: Payer, max_words: int, deadline: float) -> Summary:
        """The most telling of the sentences so far and of one per new happening."""
        with metrics.SUMMARY_S.labels("local").time():
            return Summary(roll(subject, max_words), EXTRACTIVE)

    def expect(self, texts: Sequence[str], *, max_words: int) -> Usage:
        """Nothing."""
        return NOTHING

    def expect_roll(self, subject: Subject, *, max_words: int) -> Usage:
        """Nothing."""
        return NOTHING


def roll(subject: Subject, max_words: int) -> str:
    """What `ExtractiveSummarizer.roll` says."""
    known = [
        sentences.clip(sentence, sentences.SENTENCE_WORDS) for sentence in sentences.split(subject.summary)
    ]
    told = tell(subject, is_new=not known)
    lines = list(dict.fromkeys([*map(sentences.closed, known), *told]))
    if not lines:
        return sentences.clip(sentences.closed(quotable(subject.title)), max_words) if subject.title else ""
    states = _latest_states(lines)
    newest_state = max(states.values(), default=len(lines) - 1)
    candidates = [
        Sentence(
            line,
            weight=_weight(line, i, len(lines), is_current=i in states.values()),
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


def _latest_states(lines: Sequence[str]) -> dict[str, int]:
    """The newest line of each thing that has states: open, closed or merged; each check by itself..."""
    newest: dict[str, int] = {}
    for i, line in enumerate(lines):
        for word in _states_in(line):
            group = STATES[word]
            newest[line.replace(word, "") if group == "run" else group] = i
    return newest


def _weight(line: str, at: int, of: int, *, is_current: bool) -> float:
    states = _states_in(line)
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
