"""Estimates of tokens: safe, additive, and cut where words end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_shared.tokens import estimate, head, pieces

TEXTS = st.text(st.characters(codec="utf-8"), max_size=400)


def test_prose_and_other_scripts() -> None:
    assert 10 <= estimate("The quick brown fox jumps over the lazy dog.") <= 15
    assert estimate("быстрая лиса") >= 8
    assert estimate("敏捷的狐狸") >= 7
    assert estimate("") == 1


@given(TEXTS, TEXTS)
def test_together_never_more_than_apart(one: str, other: str) -> None:
    assert estimate(one + other) <= estimate(one) + estimate(other)


@given(TEXTS, st.integers(3, 60))
def test_pieces_are_the_whole_text_and_each_fits(text: str, tokens: int) -> None:
    parts = pieces(text, tokens)
    assert "".join(parts) == text
    assert all(estimate(part) <= tokens or len(part) == 1 for part in parts)


@pytest.mark.parametrize(("tokens", "expected"), [(100, "many words in a row"), (4, "many words ")])
def test_a_head_ends_between_words(tokens: int, expected: str) -> None:
    assert head("many words in a row", tokens) == expected
