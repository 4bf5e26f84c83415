"""Strict reading of a body that has been verified.

orjson is the one parser of the house and is strict where it matters: UTF-8 only, no byte order mark, no
NaN, no lone surrogates. It takes the last of two equal keys, as the consumer's does; other readers take the
first. So a body that says twice what we route by is not read at all.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import orjson

DEEPEST = 64
"""How many objects and arrays may stand inside each other."""

FORM = "application/x-www-form-urlencoded"
_MOST_FORM_FIELDS = 16
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")
_MOST_BRACKETS = 2 * DEEPEST
_CONTAINERS = frozenset({dict, list})


class Unusable(Exception):
    """A body that was sent by whom it says, and that we can't read.

    Attributes:
        reason: For logs and metrics: "not_json".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Ambiguous(Exception):
    pass


def parse(body: bytes, routing_keys: frozenset[str], form_field: str = "") -> Any:
    """The document in a body: an object or an array.

    Args:
        body: As received, not empty.
        routing_keys: The keys that must not stand twice in one object.
        form_field: Set where the body is form-encoded: the field that holds the document.

    Raises:
        Unusable: It is not what we can read.
    """
    text = _form_value(body, form_field) if form_field else body
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise Unusable("not_json") from None
    if document.__class__ not in _CONTAINERS:
        raise Unusable("not_an_object")
    if not _is_shallow(text, document):
        raise Unusable("too_deep")
    if _may_repeat(text, routing_keys) and _repeats(text, routing_keys):
        raise Unusable("ambiguous")
    return document


def _form_value(body: bytes, field: str) -> bytes:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), strict_parsing=True, errors="strict", max_num_fields=_MOST_FORM_FIELDS
        )
    except ValueError:
        raise Unusable("not_a_form") from None
    values = [value for name, value in pairs if name == field]
    if len(values) != 1:
        raise Unusable("not_a_form")
    return values[0].encode()


def _is_shallow(text: bytes, document: Any) -> bool:
    # Few brackets can't nest deep, and counting them is cheaper than walking.
    if len(text) <= _MOST_BRACKETS or len(text.translate(None, _NOT_BRACKETS)) <= _MOST_BRACKETS:
        return True
    level = [document]
    for _ in range(DEEPEST):
        level = [
            child
            for parent in level
            for child in (parent.values() if parent.__class__ is dict else parent)
            if child.__class__ in _CONTAINERS
        ]
        if not level:
            return True
    return False


def _may_repeat(text: bytes, keys: frozenset[str]) -> bool:
    # An escape could spell a key in another way. (Looking for one byte first is many times faster.)
    if b"\\" in text and b"\\u00" in text:
        return True
    return any(text.count(b'"%s"' % key.encode()) > 1 for key in keys)


def _repeats(text: bytes, keys: frozenset[str]) -> bool:
    def watch(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen = [name for name, _ in pairs if name in keys]
        if len(seen) != len(set(seen)):
            raise _Ambiguous
        return dict(pairs)

    try:
        json.loads(text.decode(), object_pairs_hook=watch)
    except _Ambiguous:
        return True
    return False
