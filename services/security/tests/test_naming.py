"""Names of deliveries and facts about them: injective, bounded, never empty."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_security.duplicates.keys import body_digest, dedup_key
from webhook_security.payloads.fields import parse_selector, text_at, time_at

PARTS = st.tuples(*[st.text(max_size=6)] * 4)


@given(PARTS, PARTS)
def test_different_deliveries_have_different_keys(one: Any, other: Any) -> None:
    assert (dedup_key(*one) == dedup_key(*other)) == (one == other)


def test_no_joining_makes_two_deliveries_one() -> None:
    keys = {dedup_key(*parts) for parts in [("ab", "c", "", ""), ("a", "bc", "", ""), ("", "abc", "", "")]}
    keys |= {dedup_key("", "", "ab", "c"), dedup_key("", "", "a", "bc"), dedup_key("", "", "", "")}
    assert len(keys) == 6
    assert all(len(key) == 24 and key.isascii() and key.isprintable() for key in keys)


def test_a_body_has_a_name() -> None:
    assert body_digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def facts(document: Any = None, **headers: bytes) -> tuple[dict[str, bytes], Any]:
    return headers, document


SELECTORS = [parse_selector(text) for text in ("header:H", "body:a.b", "body:c")]


@pytest.mark.parametrize(
    ("given_facts", "expected"),
    [
        (facts({"a": {"b": "x"}, "c": "y"}, h=b"z"), "z"),
        (facts({"a": {"b": "x"}, "c": "y"}), "x"),
        (facts({"a": 1, "c": "y"}), "y"),
        (facts({"a": [{"b": "x"}], "c": 7}), "7"),
        (facts({"a": {"b": ""}, "c": None}), ""),
        (facts({"a": {"b": True}, "c": 1.5}), ""),
        (facts({"a": {"b": "x" * 257}, "c": "\x00"}), ""),
        (facts([1, 2]), ""),
        (facts(None, h=b""), ""),
        (facts(None, h=b"\x01"), ""),
        (facts(None, h=b"x" * 257), ""),
    ],
)
def test_text_is_the_first_usable(given_facts: Any, expected: str) -> None:
    assert text_at(SELECTORS, *given_facts) == expected


AT = [parse_selector("body:t")]


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 1700000000, 1700000000.0),
        ("s", "1700000000", 1700000000.0),
        ("ms", 1700000000500, 1700000000.5),
        ("iso", "2023-11-14T22:13:20Z", 1700000000.0),
        ("iso", "2023-11-14T23:13:20+01:00", 1700000000.0),
        ("iso", "2023-11-14T22:13:20", 1700000000.0),
        ("iso", "yesterday", None),
        ("iso", 1700000000, None),
        ("s", "1e9", None),
        ("s", True, None),
        ("s", -5, None),
        ("s", 10**18, None),
        ("s", 10**400, None),
        ("s", math.inf, None),
        ("s", None, None),
        ("s", {}, None),
    ],
)
def test_time_is_a_time_or_nothing(unit: Any, value: Any, expected: float | None) -> None:
    assert time_at(AT, unit, *facts({"t": value})) == expected


@pytest.mark.parametrize("text", ["", "body:", "header:", "body:a..b", "query:x", 7, None])
def test_selectors_are_checked(text: Any) -> None:
    with pytest.raises(ValueError, match="header:NAME or body:KEY"):
        parse_selector(text)
