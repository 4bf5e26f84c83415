"""Strict reading: every kind of nonsense is told apart from an event, and none of it raises."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook_security.payloads.reader import Reader, Unusable

WANTED = (("action",), ("id",), ("inner", "id"), ("inner", "more", "id"))
READER = Reader(WANTED)


def parse(body: bytes, form_field: str = "") -> Any:
    return READER.read(body, form_field)


def reason(body: bytes, form_field: str = "") -> str:
    with pytest.raises(Unusable) as refused:
        parse(body, form_field)
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
        b'{"id":1e999}',
        b'{"a":01}',
        b'{"a":"\n"}',
        b"\x00",
        b"<xml/>",
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert reason(body) == "not_json"


@pytest.mark.parametrize("body", [b"1", b'"text"', b"null", b"true"])
def test_what_is_no_document(body: bytes) -> None:
    assert reason(body) == "not_an_object"


def test_no_depth_hurts() -> None:
    assert reason(b'{"a":' * 20_000 + b"1" + b"}" * 20_000) == "too_deep"
    assert reason(b"[" * 100_000) == "too_deep"


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"opened","action":"closed"}',
        b'{"action":"opened","\\u0061ction":"closed"}',
        b'{"\\u0061ction":"opened","action":"closed"}',
        b'{"action":{"of":"another"},"action":"closed"}',
    ],
)
def test_of_two_equal_keys_the_last_counts_as_it_does_in_the_consumer(body: bytes) -> None:
    assert parse(body) == {"action": "closed"} == orjson.loads(body)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"action":"opened","x":{"action":"y"}}', {"action": "opened"}),
        (b'{"b":1,"b":2}', {}),
        (b'{"action":"id","id":"action"}', {"action": "id", "id": "action"}),
        (b'{"action":"\\u0061ction"}', {"action": "action"}),
        (b'{"\\u0061ction":"opened"}', {"action": "opened"}),
    ],
)
def test_what_is_not_asked_for_is_left_out(body: bytes, read: Any) -> None:
    assert parse(body) == read


def test_a_form_holds_the_document_in_its_field() -> None:
    body = b"payload=%7B%22action%22%3A%22opened+it+%C3%A9%22%7D"
    assert parse(body, "payload") == {"action": "opened it é"}
    for bad in (b"other=1", b"payload=1&payload=2", b"payload", b"payload=%ff", b"\xff=1", b"a=1&" * 40):
        assert reason(bad, "payload") == "not_a_form"
    assert reason(b"payload=%7B", "payload") == "not_json"


@given(st.binary(min_size=1, max_size=400), st.sampled_from(["", "payload"]))
def test_bytes_never_raise_anything_else(body: bytes, form_field: str) -> None:
    try:
        parse(body, form_field)
    except Unusable:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def taken(document: Any, wanted: Iterable[Sequence[str]]) -> Any:
    """What of a document stands at these paths, in the plainest way."""
    if not isinstance(document, dict):
        return document
    found = {}
    for key in {path[0] for path in wanted} & document.keys():
        inner = [path[1:] for path in wanted if path[0] == key]
        found[key] = document[key] if () in inner else taken(document[key], inner)
    return found


keys = st.sampled_from(["action", "id", "inner", "more", "other", "\u00e4"])


@given(
    st.dictionaries(keys, st.recursive(json_values, lambda inner: st.dictionaries(keys, inner)), max_size=4)
)
def test_what_is_wanted_comes_out_as_it_went_in(document: Any) -> None:
    body = json.dumps(document, ensure_ascii=False).encode()
    # Of a list that stands where an object is wanted, only that it is one matters.
    assert lists_emptied(parse(body)) == lists_emptied(taken(orjson.loads(body), WANTED))


def lists_emptied(document: Any) -> Any:
    if isinstance(document, list):
        return []
    if isinstance(document, dict):
        return {key: lists_emptied(value) for key, value in document.items()}
    return document


def test_arrays_are_documents_of_which_nothing_is_wanted() -> None:
    assert len(parse(b'[1,{"id":2}]')) == 2
