"""Takes secrets out of bodies in which senders show them, before the body becomes an event.

Whoever reads an event must not learn how to make one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

MASK = "***"


def masked(body: bytes, paths: Sequence[Sequence[str]]) -> bytes:
    """The body with whatever stands at these places masked; byte for byte as it is where nothing does.

    It is written anew, so that a number beyond 64 bits comes out as the nearest double.

    Args:
        body: As received.
        paths: Key by key; "*" stands for every element of a list.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    shown = [_mask(document, path) for path in paths]
    return orjson.dumps(document) if any(shown) else body


def _mask(document: Any, path: Sequence[str]) -> bool:
    first, rest = path[0], path[1:]
    if first == "*":
        members = document if document.__class__ is list else ()
        return any([_mask(member, rest) for member in members])  # noqa: C419  # every one, not the first
    if document.__class__ is not dict or first not in document:
        return False
    if rest:
        return _mask(document[first], rest)
    document[first] = MASK
    return True
