"""Sentences: taking text apart, and choosing the few that say most in a bounded number of words."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from webhook_intelligence.texts.vocabulary import EMPTY_WORDS

MOST_CANDIDATES = 400
WORD_CHARS = 64
SENTENCE_WORDS = 40
# What a fact (an id, a number) that is not said yet is worth beside the weight of its sentence.
FACT_WORTH = 0.35
# How much of a sentence's worth repetition can take away.
REPETITION_LOSS = 0.8

_TERMINATORS = ".!?…。\uff01\uff1f"
# Begun with one character, for which a search is many times faster than for a choice.
_END = re.compile(r"[.!?…。\uff01\uff1f\n](?:(?<=[.!?…])[\"')\]]{0,2}\s+|(?<=[。\uff01\uff1f])|(?<=\n)\s*)")
_WORD = re.compile(r"\w[\w'-]{1,63}")
_FACT = re.compile(r"[\w#!./-]{0,32}\d[\w.:/-]{0,32}")
_DIGIT = re.compile(r"\d")
_MARKUP_AT_START = re.compile(r"(?:[#>*+\s-]{1,8}|\d{1,3}[.)]\s)*")
_MARKUP = re.compile(r"[`*_][`*_]{1,2}")


@dataclass(frozen=True)
class Sentence:
    """A candidate.

    Attributes:
        text: As it will stand in the summary.
        weight: What it is worth by itself.
        keep: Whether it must be said, whatever it is worth.
    """

    text: str
    weight: float = 1.0
    keep: bool = False
    words: frozenset[str] = field(init=False, repr=False)
    facts: frozenset[str] = field(init=False, repr=False)
    size: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", subject_words(self.text))
        object.__setattr__(self, "facts", _facts_in(self.text))
        object.__setattr__(self, "size", len(self.text.split()))

    def __len__(self) -> int:
        return self.size


def subject_words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about, in lower case."""
    return frozenset(_WORD.findall(text.lower())) - EMPTY_WORDS


def _facts_in(text: str) -> frozenset[str]:
    if not _DIGIT.search(text):
        return frozenset()
    # Word by word: where there is no digit, the search for one is what takes the time.
    numbered = filter(_DIGIT.search, text.split())
    return frozenset(fact.strip("./:-") for word in numbered for fact in _FACT.findall(word))


def split(text: str) -> list[str]:
    """The sentences of a text; a line end ends one too. Markup at their start is dropped."""
    parts = map(_without_markup, _parts(text))
    return [" ".join(part.split()) for part in parts if any(char.isalnum() for char in part)]


def _parts(text: str) -> Iterator[str]:
    begin = 0
    for match in _END.finditer(text):
        end = match.start()
        yield text[begin:end].rstrip() if text[end] == "\n" else text[begin : end + 1]
        begin = match.end()
    yield text[begin:]


def _without_markup(part: str) -> str:
    start = _MARKUP_AT_START.match(part)
    return _MARKUP.sub("", part[start.end() :] if start else part)


def clip(text: str, words: int) -> str:
    """At most so many words, none longer than WORD_CHARS; an ellipsis says that something is missing."""
    parts = text.split()
    shown = parts[: max(words, 1)]
    if max(map(len, shown), default=0) > WORD_CHARS:
        shown = [part if len(part) <= WORD_CHARS else part[: WORD_CHARS - 1] + "…" for part in shown]
    clipped = " ".join(shown)
    return clipped if len(parts) <= words or clipped.endswith("…") else clipped.rstrip(",;: ") + "…"


def choose(candidates: Sequence[Sentence], max_words: int) -> list[Sentence]:
    """Those that must be said, then the most worthwhile that still fit, in their original order.

    The worth of a sentence falls by what is said already (maximal marginal relevance) and rises by the
    facts that nobody has said yet.
    """
    order = _shortlist(candidates)
    chosen: set[int] = set()
    said: set[str] = set()
    known: set[str] = set()
    left = max_words

    def take(i: int) -> None:
        nonlocal left
        chosen.add(i)
        said.update(candidates[i].words)
        known.update(candidates[i].facts)
        left -= len(candidates[i])

    # The newest of what must be said goes first, should not all of it fit.
    for i in reversed([i for i in order if candidates[i].keep]):
        if len(candidates[i]) <= left or not chosen:
            take(i)
    while True:
        fitting = [i for i in order if i not in chosen and len(candidates[i]) <= left]
        best = max(fitting, key=lambda i: (_worth(candidates[i], said, known), i), default=None)
        if best is None or _worth(candidates[best], said, known) <= 0.05:
            return [candidates[i] for i in sorted(chosen)]
        take(best)


def _worth(sentence: Sentence, said: set[str], known: set[str]) -> float:
    repeated = len(sentence.words & said) / len(sentence.words) if sentence.words else 1.0
    news = min(len(sentence.facts - known), 3)
    facts = FACT_WORTH * news * min(1.0, sentence.weight) if repeated < 1 else 0
    return sentence.weight * (1 - REPETITION_LOSS * repeated) + facts


def _shortlist(candidates: Sequence[Sentence]) -> list[int]:
    everything = range(len(candidates))
    if len(candidates) <= MOST_CANDIDATES:
        return list(everything)
    best = sorted(everything, key=lambda i: (candidates[i].keep, candidates[i].weight, i), reverse=True)
    return sorted(best[:MOST_CANDIDATES])


def extract(texts: Sequence[str], max_words: int) -> str:
    """The most telling sentences of some texts, word for word, in their order."""
    split_texts = [split(text) for text in texts]
    if sum(len(sentence.split()) for sentences in split_texts for sentence in sentences) <= max_words:
        return clip(
            " ".join(closed(sentence) for sentences in split_texts for sentence in sentences), max_words
        )
    frequency = Counter(
        word for sentences in split_texts for sentence in sentences for word in subject_words(sentence)
    )
    candidates: dict[str, Sentence] = {}
    for at, sentences in enumerate(split_texts):
        for i, sentence in enumerate(sentences):
            is_last = at == len(split_texts) - 1 and i == len(sentences) - 1
            text = clip(closed(sentence), min(SENTENCE_WORDS, max_words))
            worth = _telling(sentence, frequency) + 1 / (1 + i) + (0.5 if is_last else 0)
            weight = worth * _prose(sentence)
            candidates.setdefault(text, Sentence(text, weight, keep=at == 0 and i == 0))
    return clip(
        " ".join(sentence.text for sentence in choose(list(candidates.values()), max_words)), max_words
    )


def closed(sentence: str) -> str:
    """With a full stop, unless it ends otherwise."""
    return sentence if sentence[-1:] in _TERMINATORS else f"{sentence}."


def _prose(sentence: str) -> float:
    """How much it reads like prose, 0..1: headings, rows of tables, code and stack traces do not."""
    plain = sum(char.isalpha() or char.isspace() for char in sentence)
    is_whole = min(1.0, len(sentence.split()) / 5)
    return is_whole * (plain / len(sentence)) ** 4


def _telling(sentence: str, frequency: Counter[str]) -> float:
    """How central its words are: those that the whole keeps coming back to count most, 0..1."""
    words = subject_words(sentence)
    most = frequency.most_common(1)
    if not words or not most:
        return 0.0
    return sum(math.log1p(frequency[word]) for word in words) / (len(words) * math.log1p(most[0][1]))
