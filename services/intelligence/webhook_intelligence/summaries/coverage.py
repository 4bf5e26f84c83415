"""Whether a summary keeps ids, versions, numbers and names; those that are missing are appended."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from webhook_intelligence.texts.folding import folded
from webhook_intelligence.texts.presentable import links_in
from webhook_intelligence.texts.sentences import clip

MOST_FACTS = 64
#: Of a summary's words so large a part, at most, is spent on what it has missed.
APPENDED_SHARE = 0.3
APPENDIX = "Also: "
"""How the sentence with what was missed begins."""


class _Kind(NamedTuple):
    """One kind of facts.

    Attributes:
        worth: Facts of one kind rank by how late and how often they are said.
        sign: What every text with such a fact holds. It begins with one character, for which a search is
            many times faster than for a choice or the beginning of a word.
        pattern: The facts themselves.
    """

    worth: float
    sign: re.Pattern[str]
    pattern: re.Pattern[str]


_KINDS: tuple[_Kind, ...] = (
    _Kind(
        4.0,
        re.compile(r"[-#!](?:\d|(?<=GHSA-))"),
        re.compile(
            r"\b(?:CVE-\d{4}-\d{3,9}|GHSA(?:-[0-9a-z]{4}){3}|[A-Z][A-Z0-9]{1,9}-\d{1,9})\b|(?<![\w/&])[#!]\d{1,9}\b"
        ),
    ),
    _Kind(
        3.0,
        re.compile(r"\.\d"),
        re.compile(r"\bv?\d{1,6}(?:\.\d{1,6}){1,3}(?:-[0-9A-Za-z.]{1,20})?\b(?! ?%)"),
    ),
    _Kind(
        2.0,
        re.compile(r"\d(?:\s?[%kKMGTmshdwuc€EU]|(?<=[$€£]\d)|(?<=[$€£]\s\d)|(?<=HTTP \d)|(?<=exit code \d))"),
        re.compile(
            r"(?:[$€£]\s?)?\b\d{1,3}(?:[,.\s]?\d{3}){0,3}(?:\.\d+)?\s?"
            r"(?:%|[kKMGT]i?B\b|ms\b|s\b|seconds?\b|min\b|minutes?\b|h\b|hours?\b|days?\b|weeks?\b|users?\b|"
            r"customers?\b|€|EUR\b|USD\b)|[$€£]\s?\d[\d,.]{0,15}|\bHTTP \d{3}\b|\bexit code \d{1,3}\b"
        ),
    ),
    _Kind(
        2.0,
        re.compile(r"[0-9a-f][0-9a-f]{6}"),
        re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,40}\b"),
    ),
    _Kind(
        1.5,
        re.compile(r"[@A-Z](?:(?<=@)|(?<=[a-z0-9][A-Z]))"),
        re.compile(
            r"(?<![\w@])@[A-Za-z][\w-]{1,38}|\b[a-z]+(?:[A-Z][a-z0-9]+)+\b|\b(?:[A-Z][a-z0-9]+){2,}\b"
        ),
    ),
    _Kind(
        1.0,
        re.compile(r"[/.](?:(?<=/)|py|ts|js|go|rs|java|sql|ya?ml|toml|json)"),
        re.compile(
            r"\b[\w-]+(?:/[\w.-]+)+\.\w{1,8}\b|\b[\w-]{2,}\.(?:py|ts|js|go|rs|java|sql|ya?ml|toml|json)\b"
        ),
    ),
)
_DIGIT = re.compile(r"\d")
_WITHOUT_DIGITS = _KINDS[-2:]
_NAME = re.compile(r"\w[\w.@-]{0,38}(?: \w[\w.'-]{0,38}){0,2}")
_NAME_WORTH = 2.5
LONGEST_KEPT_CHARS = 4096
"""Of a text whose facts are remembered: thousands are, and a text may have a million characters."""
_BEFORE = re.compile(r"(?<![\w#.])")
_AFTER = re.compile(r"(?!\w|\.\d)")


@dataclass(frozen=True)
class Coverage:
    """What became of the facts.

    Attributes:
        facts: How many there are, as far as they count.
        kept: Of these, how many the summary says, appended ones included.
        appended: What the summary itself had missed.
    """

    facts: int = 0
    kept: int = 0
    appended: tuple[str, ...] = ()


def facts_of(texts: Iterable[str], *, names: Sequence[str] = ()) -> list[str]:
    """The facts of some texts, oldest text first; the weightiest first, at most MOST_FACTS.

    Args:
        texts: What was said.
        names: Of people and things that count as facts themselves.
    """
    worth: dict[str, float] = {}
    for name in names:
        if _NAME.fullmatch(name):
            worth[name] = _NAME_WORTH
    lines = list(texts)
    for at, text in enumerate(lines):
        newness = (at + 1) / len(lines)
        for fact, kind in _said_in(text):
            before = worth.get(fact)
            worth[fact] = kind + newness if before is None else before + 0.2
    return sorted(worth, key=lambda fact: (-worth[fact], fact))[:MOST_FACTS]


def _said_in(text: str) -> tuple[tuple[str, float], ...]:
    """The facts of one text and their worth by kind."""
    return _kept(text) if len(text) <= LONGEST_KEPT_CHARS else _looked_for(text)


@lru_cache(maxsize=4096)
def _kept(text: str) -> tuple[tuple[str, float], ...]:
    # What is left for later is read again.
    return _looked_for(text)


def _looked_for(text: str) -> tuple[tuple[str, float], ...]:
    found: list[tuple[str, float]] = []
    taken = [match.span() for match in links_in(text)] if "/" in text or ":" in text else []
    # Most kinds need a digit, and most texts have none.
    for kind in _KINDS if _DIGIT.search(text) else _WITHOUT_DIGITS:
        if not kind.sign.search(text):
            continue
        for match in kind.pattern.finditer(text):
            begin, end = match.span()
            if any(begin < until and since < end for since, until in taken):
                continue  # part of a fact that is worth more: "v1.2.3" is not also "2.3"
            taken.append((begin, end))
            found.append((" ".join(match[0].split()), kind.worth))
    return tuple(found)


def missing_from(summary: str, facts: Sequence[str]) -> list[str]:
    """Those that a summary does not say."""
    lower = folded(summary)
    return [fact for fact in facts if not _stands_in(summary, lower, fact)]


def says(summary: str, fact: str) -> bool:
    """Whether a fact stands in a text, as a whole and not within another."""
    return _stands_in(summary, folded(summary), fact)


def _stands_in(summary: str, lower: str, fact: str) -> bool:
    if not fact.isascii():
        # Letters beyond ASCII have twins that folding does not know.
        pattern = rf"{_BEFORE.pattern}{re.escape(fact)}{_AFTER.pattern}"
        return re.search(pattern, summary, re.IGNORECASE) is not None
    wanted = folded(fact)
    at = lower.find(wanted)
    while at >= 0:
        if _BEFORE.match(summary, at) and _AFTER.match(summary, at + len(fact)):
            return True
        at = lower.find(wanted, at + 1)
    return False


def covered(summary: str, facts: Sequence[str], max_words: int) -> tuple[str, Coverage]:
    """The summary with what it has missed appended, as far as that fits into so many words."""
    missing = missing_from(summary, facts)
    room = max(max_words - len(summary.split()), int(max_words * APPENDED_SHARE)) - 1
    appended: list[str] = []
    for fact in missing:
        size = len(fact.split())
        if size <= room:
            appended.append(fact)
            room -= size
    if not appended:
        return summary, Coverage(len(facts), len(facts) - len(missing))
    appendix = f"{APPENDIX}{', '.join(appended)}."
    shortened = clip(summary, max_words - len(appendix.split()))
    whole = f"{shortened} {appendix}" if shortened else appendix
    # What clipping took away again is counted, not hidden.
    kept = len(facts) - len(missing_from(whole, facts))
    return whole, Coverage(len(facts), kept, tuple(appended))
