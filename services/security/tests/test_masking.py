"""Secrets in bodies: masked wherever they stand, and nothing else is touched."""

from __future__ import annotations

import orjson
import pytest
from webhook_security.payloads.masking import masked

PATHS = [("value", "*", "clientState"), ("token",)]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"token": "s", "a": 1}, {"token": "***", "a": 1}),
        ({"token": ["s"]}, {"token": "***"}),
        (
            {"value": [{"clientState": "s"}, {"b": 2}, 3, {"clientState": None}]},
            {"value": [{"clientState": "***"}, {"b": 2}, 3, {"clientState": "***"}]},
        ),
    ],
)
def test_what_is_masked(document: object, expected: object) -> None:
    assert orjson.loads(masked(orjson.dumps(document), PATHS)) == expected


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"token"', b'{ "a": 1.50, "b": 123456789012345678901234 }', b'{"value": {}}']
)
def test_what_shows_no_secret_stays_as_it_is(body: bytes) -> None:
    assert masked(body, PATHS) == body


def test_the_secret_is_gone_however_it_is_spelled() -> None:
    for body in (b'{"token":"\\u0073ecret"}', b'{"token":"x","token":"secret"}', b'{"tok\\u0065n":"secret"}'):
        assert b"secret" not in masked(body, PATHS)
        assert orjson.loads(masked(body, PATHS)) == {"token": "***"}
