"""How much a context matters, 0 (noise) to 1 (drop everything), and what that is made of.

A weighted sum of features, each 0..1. The weights add up to 1; those of features that a stranger can move
by mere wording add up to TEXT_SHARE, so that no text raises the importance by more than that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from webhook_intelligence.entities import Entity
from webhook_intelligence.sentences import subject_words
from webhook_intelligence.subject import Happening, Subject
from webhook_intelligence.vocabulary import (
    BAD_RESULTS,
    GOOD_RESULTS,
    GRAVE_LABELS,
    GRAVE_WORDS,
    KIND_WORTH,
    LABELING_ACTIONS,
    TELLING_RESULTS,
    TRANSITIONS,
    UNKNOWN_KIND_WORTH,
)

WEIGHTS: dict[str, float] = {
    # From the structure of the events.
    "outcome": 0.30,  # the last run, check or alarm went wrong
    "kind": 0.20,  # an incident matters more than a star
    "people": 0.12,  # how many act in it
    "activity": 0.10,  # how much happened over its life
    "transitions": 0.08,  # opened, closed, reopened...
    "labels": 0.05,  # somebody with the right to has labelled it
    # From the words of senders.
    "severity": 0.10,
    "references": 0.05,
}
FROM_TEXT = frozenset({"severity", "references"})
TEXT_SHARE = sum(WEIGHTS[name] for name in FROM_TEXT)
"""The most that wording alone can add."""

# At so many the feature is full; it grows with the logarithm.
MANY_PEOPLE = 10
MANY_EVENTS = 200
MANY_TRANSITIONS = 6
MANY_GRAVE_WORDS = 3
MANY_REFERENCES = 8


@dataclass(frozen=True)
class Factor:
    """What one feature adds to the importance."""

    name: str
    contribution: float


@dataclass(frozen=True)
class Importance:
    """The sum, and its parts from the biggest."""

    value: float
    factors: tuple[Factor, ...]


def weigh(subject: Subject, entities: Sequence[Entity]) -> Importance:
    """The importance of a context as far as its new happenings show it."""
    happenings = subject.happenings
    features = {
        "outcome": _outcome(happenings, subject.title),
        "kind": max((_kind(happening.kind) for happening in happenings), default=_kind_of(subject)),
        "people": _share(len({happening.actor for happening in happenings if happening.actor}), MANY_PEOPLE),
        "activity": _share(max(subject.event_count, len(happenings)), MANY_EVENTS),
        "transitions": _share(sum(h.action in TRANSITIONS for h in happenings), MANY_TRANSITIONS),
        "labels": float(any(_is_grave_label(happening, subject.title) for happening in happenings)),
        "severity": _share(len(_grave_words(subject)), MANY_GRAVE_WORDS),
        "references": _share(sum(e.kind in {"issue", "url", "commit"} for e in entities), MANY_REFERENCES),
    }
    factors = [Factor(name, round(WEIGHTS[name] * value, 4)) for name, value in features.items() if value > 0]
    factors.sort(key=lambda factor: (-factor.contribution, factor.name))
    return Importance(min(1.0, round(sum(f.contribution for f in factors), 4)), tuple(factors))


def _share(count: int, many: int) -> float:
    """0 at none, 1 at `many` and more, in between by the logarithm."""
    return min(1.0, math.log1p(max(0, count)) / math.log1p(many))


def _outcome(happenings: Sequence[Happening], title: str) -> float:
    """1 where the last word is that it went wrong, less once it is right again, 0 if nothing went wrong."""
    results = [_result(happening, title) for happening in happenings]
    bad = [i for i, result in enumerate(results) if result in BAD_RESULTS]
    if not bad:
        return 0.0
    is_over = any(result in GOOD_RESULTS for result in results[bad[-1] + 1 :])
    return 0.4 if is_over else 1.0


def _result(happening: Happening, title: str) -> str:
    """What became of it: the action, or how the first line of a run ends ("Check build ended: failure").

    Of other kinds the text is not asked: there it may be a stranger's.
    """
    if happening.action in BAD_RESULTS | GOOD_RESULTS or happening.kind not in TELLING_RESULTS:
        return happening.action
    return happening.headline(title).rpartition(": ")[2].casefold()


_NAME_PARTS = re.compile(r"[a-z]+")


def _kind(kind: str) -> float:
    known = [KIND_WORTH[part] for part in _NAME_PARTS.findall(kind.lower()) if part in KIND_WORTH]
    return max(known, default=UNKNOWN_KIND_WORTH)


def _kind_of(subject: Subject) -> float:
    parts = subject.context_id.split(":")
    return _kind(parts[-2]) if len(parts) >= 2 else UNKNOWN_KIND_WORTH


def _is_grave_label(happening: Happening, title: str) -> bool:
    # The label stands in the first line, before the title, which is anybody's.
    return happening.action in LABELING_ACTIONS and bool(
        subject_words(happening.headline(title)) & GRAVE_LABELS
    )


def _grave_words(subject: Subject) -> frozenset[str]:
    words = subject_words(subject.title).union(*(subject_words(h.text) for h in subject.happenings))
    return words & GRAVE_WORDS
