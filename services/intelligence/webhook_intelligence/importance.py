"""How much a context matters, 0 (noise) to 1 (drop everything), and what that is made of.

A weighted sum of features, each 0..1. The weights add up to 1; those of features that a stranger can move
by mere wording add up to TEXT_SHARE, so that no text raises the importance by more than that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from webhook_intelligence.texts.entities import Entity
from webhook_intelligence.texts.sentences import subject_words
from webhook_intelligence.texts.subject import Happening, Subject
from webhook_intelligence.texts.vocabulary import (
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
    "outcome": 0.30,
    "kind": 0.20,
    "people": 0.12,
    "activity": 0.10,
    "transitions": 0.08,
    "labels": 0.05,
    # From the words of senders.
    "severity": 0.10,
    "references": 0.05,
}
DESCRIPTIONS: dict[str, str] = {
    "outcome": "the last run, check or alarm went wrong: 1, failed and since recovered: 0.4",
    "kind": "what it is: an incident matters more than a star",
    "people": "how many act in it, full at 10",
    "activity": "how many events it had over its life, full at 200",
    "transitions": "opened, closed, merged, reopened..., full at 6",
    "labels": "somebody with the right to has labelled it bug, security, incident, p0...",
    "severity": "grave words in titles and texts, full at 3",
    "references": "issues, links and commits that it names, full at 8",
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

# What an explanation shows of each feature.
MOST_EVIDENCE = 8
EVIDENCE_CHARS = 80


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


@dataclass(frozen=True)
class Feature:
    """One feature of a subject.

    Attributes:
        name: As in WEIGHTS.
        value: 0 to 1.
        evidence: What it was read from, short; in part the words of strangers.
    """

    name: str
    value: float
    evidence: tuple[str, ...]

    @property
    def contribution(self) -> float:
        """What it adds to the importance."""
        return round(WEIGHTS[self.name] * self.value, 4)


def weigh(subject: Subject, entities: Sequence[Entity]) -> Importance:
    """The importance of a context as far as its new happenings show it."""
    factors = [Factor(f.name, f.contribution) for f in features(subject, entities) if f.value > 0]
    factors.sort(key=lambda factor: (-factor.contribution, factor.name))
    return Importance(min(1.0, round(sum(f.contribution for f in factors), 4)), tuple(factors))


def features(subject: Subject, entities: Sequence[Entity]) -> list[Feature]:
    """All features, in the order of WEIGHTS."""
    happenings = subject.happenings
    people = dict.fromkeys(happening.actor for happening in happenings if happening.actor)
    events = max(subject.event_count, len(happenings))
    transitions = [happening.action for happening in happenings if happening.action in TRANSITIONS]
    labels = [h.headline(subject.title) for h in happenings if _is_grave_label(h, subject.title)]
    grave = _grave_words(subject)
    references = [entity.value for entity in entities if entity.kind in {"issue", "url", "commit"}]
    return [
        _feature("outcome", *_outcome(happenings, subject.title)),
        _feature("kind", *_worth(subject)),
        _feature("people", _share(len(people), MANY_PEOPLE), people),
        _feature("activity", _share(events, MANY_EVENTS), [f"{events} events"] if events else ()),
        _feature("transitions", _share(len(transitions), MANY_TRANSITIONS), transitions),
        _feature("labels", float(bool(labels)), labels),
        _feature("severity", _share(len(grave), MANY_GRAVE_WORDS), sorted(grave)),
        _feature("references", _share(len(references), MANY_REFERENCES), references),
    ]


def _feature(name: str, value: float, evidence: Iterable[str]) -> Feature:
    return Feature(name, value, tuple(one[:EVIDENCE_CHARS] for one in islice(evidence, MOST_EVIDENCE)))


def _share(count: int, many: int) -> float:
    """0 at none, 1 at `many` and more, in between by the logarithm."""
    return min(1.0, math.log1p(max(0, count)) / math.log1p(many))


def _outcome(happenings: Sequence[Happening], title: str) -> tuple[float, list[str]]:
    """1 where the last word is that it went wrong, less once it is right again, 0 if nothing went wrong.

    Returns:
        That, and the results that tell it: the last bad one and what came right after it.
    """
    results = [_result(happening, title) for happening in happenings]
    bad = [i for i, result in enumerate(results) if result in BAD_RESULTS]
    if not bad:
        return 0.0, []
    good = [result for result in results[bad[-1] + 1 :] if result in GOOD_RESULTS]
    return (0.4 if good else 1.0), [results[bad[-1]], *good[:1]]


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


def _worth(subject: Subject) -> tuple[float, list[str]]:
    """The worth of the worthiest kind, and that kind."""
    parts = subject.context_id.split(":")
    kinds = [happening.kind for happening in subject.happenings] or parts[-2:-1]
    best = max(kinds, key=_kind, default="")
    return _kind(best), [best] if best else []


def _is_grave_label(happening: Happening, title: str) -> bool:
    # The label stands in the first line, before the title, which is anybody's.
    return happening.action in LABELING_ACTIONS and bool(
        subject_words(happening.headline(title)) & GRAVE_LABELS
    )


def _grave_words(subject: Subject) -> frozenset[str]:
    words = subject_words(subject.title).union(*(subject_words(h.text) for h in subject.happenings))
    return words & GRAVE_WORDS
