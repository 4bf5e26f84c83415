"""Where a fact about a delivery stands: "header:X-GitHub-Event", "body:event.type", "body:value.0.type"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator

LONGEST_TEXT = 256
"""Longer values are not taken as facts; in characters."""

_LATEST_S = 253_402_300_799.0
_MS_PER_S = 1000.0


class Selector(NamedTuple):
    """One place.

    Attributes:
        header: Lower-case name of a header; empty where the fact stands in the body.
        key: At the top of the body.
        inner: Keys from there down; in a list, the index of an element.
        is_name: The fact is the key itself, where it is there.
    """

    header: str
    key: str = ""
    inner: tuple[str, ...] = ()
    is_name: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """What has to be read of the body: the keys down to the first list; empty for a header."""
        if not self.key:
            return ()
        return (self.key, *takewhile(lambda name: not name.isdecimal(), self.inner))


def parse_selector(value: object) -> Selector:
    """The selector that a catalogue entry writes.

    Raises:
        ValueError: It is none of header:NAME, body:KEY.KEY and key:KEY.
    """
    if isinstance(value, Selector):
        return value
    kind, _, place = value.partition(":") if isinstance(value, str) else ("", "", "")
    if kind == "header" and place:
        return Selector(place.lower())
    if kind == "body" and all(place.split(".")):
        key, *inner = place.split(".")
        return Selector("", key, tuple(inner))
    if kind == "key" and place:
        return Selector("", place, is_name=True)
    raise ValueError("write header:NAME or body:KEY.KEY, or key:KEY for the name of a key that is there")


Place = Annotated[Selector, BeforeValidator(parse_selector)]


def text_at(selectors: Sequence[Selector], headers: Mapping[str, bytes], document: Any) -> str:
    """The first value that is there and usable as text; empty where none is.

    Usable is printable text and whole numbers, up to LONGEST_TEXT characters.

    Args:
        selectors: Where to look.
        headers: By lower-case name.
        document: The parsed body; None where it is not known.
    """
    for header, key, inner, is_name in selectors:
        if header:
            value = headers.get(header)
            text = value.decode("latin-1") if value else ""
        elif is_name:
            text = key if document.__class__ is dict and key in document else ""
        else:
            text = _text(_walk(document, key, inner))
        if text and len(text) <= LONGEST_TEXT and text.isprintable():
            return text
    return ""


def time_at(
    selectors: Sequence[Selector],
    unit: Literal["s", "ms", "iso"],
    headers: Mapping[str, bytes],
    document: Any,
) -> float | None:
    """The first value that is a time, Unix seconds; None where none is.

    Args:
        selectors: Where to look.
        unit: Of numbers: seconds or milliseconds since 1970; iso reads text as RFC 3339.
        headers: By lower-case name.
        document: The parsed body; None where it is not known.
    """
    is_object = document.__class__ is dict
    for header, key, inner, _ in selectors:
        # Most places are empty, so that is found out before anything is called.
        if header:
            value: Any = headers.get(header, b"").decode("latin-1")
        elif not is_object or key not in document:
            continue
        else:
            value = _walk(document, key, inner)
        found = _iso(value) if unit == "iso" else _number(value, 1.0 if unit == "s" else _MS_PER_S)
        if found is not None and 0 < found < _LATEST_S:
            return found
    return None


def values_at(document: Any, path: Sequence[str]) -> list[Any]:
    """Everything at a place of a document; "*" stands for every element of a list.

    An element of a list that lacks the rest of the path counts as None; any other way that ends early
    yields nothing.
    """
    if not path:
        return [document]
    first, rest = path[0], path[1:]
    if first == "*":
        members = document if document.__class__ is list else ()
        return [value for member in members for value in values_at(member, rest) or [None]]
    if document.__class__ is not dict or first not in document:
        return []
    return values_at(document[first], rest)


def _walk(document: Any, key: str, inner: Sequence[str]) -> Any:
    if document.__class__ is not dict:
        return None
    found = document.get(key)
    for name in inner:
        if found.__class__ is dict:
            found = found.get(name)
        elif found.__class__ is list and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _text(value: Any) -> str:
    if value.__class__ is str:
        return str(value)
    # `True` is an int to isinstance, and no id.
    return str(value) if value.__class__ is int else ""


def _number(value: Any, units_per_s: float) -> float | None:
    if value.__class__ is str:
        if not (value.isascii() and value.isdecimal() and len(value) <= 16):
            return None
        value = int(value)
    # Compared before it is converted: an integer may be too large for that.
    if (value.__class__ is int or value.__class__ is float) and 0 < value < _LATEST_S * units_per_s:
        return float(value) / units_per_s
    return None


def _iso(value: Any) -> float | None:
    if value.__class__ is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
