"""Strict reading: every kind of nonsense is told apart from an event, and none of it raises."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_security.payloads import DEEPEST, Unusable, parse

KEYS = frozenset({"action", "id"})


def reason(body: bytes, form_field: str = "") -> str:
    with pytest.raises(Unusable) as refused:
        parse(body, KEYS, form_field)
    return refused.value.reason


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"{}x",
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-32"),
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b"[" + b"9" * 5000 + b"]",
        b'{"a":01}',
        b'{"a":"\n"}',
        b"\x00",
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b"<xml/>",
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert reason(body) == "not_json"


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"true"])
def test_what_is_no_document(body: bytes) -> None:
    assert reason(body) == "not_an_object"


def nested(depth: int, width: int) -> bytes:
    """A document of that depth, with enough brackets beside to make the slow way necessary."""
    document: Any = {}
    for _ in range(depth - 1):
        document = {"inner": document, "beside": [[]] * width}
    return orjson.dumps(document)


@pytest.mark.parametrize("width", [0, 1, 5])
def test_depth_is_bounded_exactly(width: int) -> None:
    assert parse(nested(DEEPEST - (1 if width else 0), width), KEYS)
    assert reason(nested(DEEPEST + 1, width)) == "too_deep"


def test_brackets_in_texts_do_not_count() -> None:
    assert parse(orjson.dumps({"text": "[{" * 500}), KEYS) == {"text": "[{" * 500}


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"opened","action":"closed"}',
        b'{"x":{"id":1,"id":1}}',
        b'{"action":"opened","\\u0061ction":"closed"}',
        b'[{"a":1},{"id":1,"b":{},"\\u0069\\u0064":2}]',
    ],
)
def test_what_we_route_by_may_not_stand_there_twice(body: bytes) -> None:
    assert reason(body) == "ambiguous"


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"opened","x":{"action":"y"}}',
        b'{"b":1,"b":2}',
        b'{"action":"id","id":"action"}',
        b'{"action":"\\u0061ction"}',
    ],
)
def test_what_only_looks_like_it_is_read(body: bytes) -> None:
    assert parse(body, KEYS) == json.loads(body)


def test_a_form_holds_the_document_in_its_field() -> None:
    body = b"payload=%7B%22action%22%3A%22opened+it+%C3%A9%22%7D"
    assert parse(body, KEYS, "payload") == {"action": "opened it é"}
    for bad in (b"other=1", b"payload=1&payload=2", b"payload", b"payload=%ff", b"\xff=1", b"a=1&" * 40):
        assert reason(bad, "payload") == "not_a_form"
    assert reason(b"payload=%7B", "payload") == "not_json"


@given(st.binary(min_size=1, max_size=400), st.sampled_from(["", "payload"]))
def test_bytes_never_raise_anything_else(body: bytes, form_field: str) -> None:
    try:
        parse(body, KEYS, form_field)
    except Unusable:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4) | st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_documents_come_out_as_they_went_in(document: Any) -> None:
    assert parse(json.dumps(document).encode(), KEYS) == document
