"""What is looked for first, because that is cheap, stands in all that is looked for then."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_intelligence.summaries import coverage
from webhook_intelligence.texts import entities, presentable, redaction, sentences
from webhook_intelligence.texts.folding import folded

EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))
patient = settings(max_examples=50, suppress_health_check=list(HealthCheck), deadline=None)


@pytest.mark.parametrize("letter", "abcdefghijklmnopqrstuvwxyz09-_:/")
def test_folded_text_is_as_patterns_see_it(letter: str) -> None:
    by_pattern = re.findall(letter, EVERYTHING, re.IGNORECASE)
    assert [char for char, lower in zip(EVERYTHING, folded(EVERYTHING), strict=True) if lower == letter] == (
        by_pattern
    )


@pytest.mark.parametrize("pattern", redaction._PATTERNS.values(), ids=redaction._PATTERNS)
@patient
@given(data=st.data())
def test_secrets(pattern: str, data: st.DataObject) -> None:
    # A quantifier that gives nothing back finds no more than its like.
    text = data.draw(st.from_regex(re.sub(r"(\{\d+,\d+\})\+", r"\1", pattern)))
    assert redaction.may_hold_secret(text)


@patient
@given(st.from_regex(presentable._LINK))
def test_links(text: str) -> None:
    found = [match.span() for match in presentable.links_in(text)]
    assert found == [match.span() for match in presentable._LINK.finditer(text)] != []


@pytest.mark.parametrize("kind", coverage._KINDS, ids=lambda kind: kind.sign.pattern)
@patient
@given(data=st.data())
def test_facts(kind: coverage._Kind, data: st.DataObject) -> None:
    assert kind.sign.search(data.draw(st.from_regex(kind.pattern)))


@pytest.mark.parametrize(("sign", "pattern"), [one[1:] for one in entities._PATTERNS])
@patient
@given(data=st.data())
def test_entities(sign: re.Pattern[str], pattern: re.Pattern[str], data: st.DataObject) -> None:
    assert sign.search(data.draw(st.from_regex(pattern)))


@patient
@given(
    st.text(alphabet="aS\u017f \u200b.#-1", max_size=40),
    st.text(alphabet="asS1#.-", min_size=1, max_size=3),
)
def test_what_is_said(summary: str, fact: str) -> None:
    by_pattern = re.search(rf"(?<![\w#.]){re.escape(fact)}(?![\w]|\.\d)", summary, re.IGNORECASE)
    assert coverage.says(summary, fact) == (by_pattern is not None)


@patient
@given(st.text(alphabet="a1 .!。\n\"')#*-`", max_size=30))
def test_where_sentences_end(text: str) -> None:
    ends = r"(?<=[.!?…])[\"')\]]{0,2}\s+|(?<=[。\uff01\uff1f])|\s*\n\s*"
    markup = r"^(?:[#>*+\s-]{1,8}|\d{1,3}[.)]\s)+|[`*_]{2,3}"
    parts = [re.sub(markup, "", part) for part in re.split(ends, text)]
    whole = [" ".join(part.split()) for part in parts if any(map(str.isalnum, part))]
    assert sentences.split(text) == whole


@patient
@given(st.text(alphabet="aA1_ #!./:-\u0663", max_size=120))
def test_facts_word_by_word(text: str) -> None:
    found = re.findall(r"[\w#!./-]{0,32}\d[\w.:/-]{0,32}", text)
    assert sentences.Sentence(text).facts == {fact.strip("./:-") for fact in found}
