"""From each sentence of a summary back to what it rests on.

Found afterwards, by what a sentence and its sources have in common, whoever wrote the sentence: a model
can't claim a source that it has not used, and no token is spent on asking it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from webhook_intelligence.summaries.coverage import facts_of
from webhook_intelligence.texts import sentences

MOST_SOURCES = 16
#: Of a sentence's words so many must stand in a source; half of that where they share an id or a number.
LEAST_SHARED = 0.5


@dataclass(frozen=True)
class Sourced:
    """A sentence and the places of its sources, best first."""

    text: str
    sources: tuple[int, ...]


def sourced(summary: str, sources: Sequence[str]) -> tuple[Sourced, ...]:
    """The sentences of a summary with what they rest on; no source: on what was known before."""
    by_word: dict[str, list[int]] = defaultdict(list)
    for at, source in enumerate(sources):
        for word in sentences.subject_words(source):
            by_word[word].append(at)
    return tuple(Sourced(line, _rests_on(line, sources, by_word)) for line in sentences.split(summary))


def _rests_on(line: str, sources: Sequence[str], by_word: dict[str, list[int]]) -> tuple[int, ...]:
    words = sentences.subject_words(line)
    shared: dict[int, float] = defaultdict(float)
    for word in words:
        for at in by_word.get(word, ()):
            shared[at] += 1 / len(words)

    # Few lines have a source that is in doubt.
    facts = cache(lambda: facts_of([line]))

    def is_source(at: int) -> bool:
        if shared[at] >= LEAST_SHARED:
            return True
        return shared[at] >= LEAST_SHARED / 2 and any(fact in sources[at] for fact in facts())

    return tuple(sorted(filter(is_source, shared), key=lambda at: (-shared[at], -at))[:MOST_SOURCES])
