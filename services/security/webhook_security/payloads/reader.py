"""Strict reading of a body that has been verified.

A body is looked through once, whole, and only what a source asks for is taken out of it: to build all of it
costs five times as much, and the consumer will do that. What passes is JSON by the letter (UTF-8 only, no
byte order mark, no NaN, no lone surrogates) and not so deep that reading it could hurt. Numbers that no
double can hold are found where the document is built. Of two equal keys the last one counts, here as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict
from urllib.parse import parse_qsl

import msgspec

FORM = "application/x-www-form-urlencoded"
_MOST_FORM_FIELDS = 16


class Unusable(Exception):
    """A body that was sent by whom it says, and that we can't read.

    Attributes:
        reason: For logs and metrics: "not_json".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reader:
    """Reads the bodies of one source.

    Args:
        wanted: The paths of keys that are taken out; all else is checked and dropped.
    """

    def __init__(self, wanted: Iterable[Sequence[str]]) -> None:
        self._decode = msgspec.json.Decoder(_shape(wanted) | list[msgspec.Raw]).decode

    def read(self, body: bytes, form_field: str = "") -> Any:
        """What is wanted of the document in a body: an object, or an array of which nothing is.

        Args:
            body: As received, not empty.
            form_field: Set where the body is form-encoded: the field that holds the document.

        Raises:
            Unusable: It is not what we can read.
        """
        text = _form_value(body, form_field) if form_field else body
        try:
            if not text.isascii():
                text.decode()
            return self._decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if isinstance(error, msgspec.ValidationError) and not text.lstrip().startswith((b"{", b"[")):
                raise Unusable("not_an_object") from None
            raise Unusable("not_json") from None
        except RecursionError:
            # Python's own bound: nearly a thousand objects and arrays inside each other.
            raise Unusable("too_deep") from None


def _shape(wanted: Iterable[Sequence[str]]) -> Any:
    """The type of an object with these paths in it, where each may be missing or be something else."""
    below: dict[str, list[Sequence[str]]] = {}
    for key, *inner in wanted:
        below.setdefault(key, []).append(inner)
    fields = {key: Any if [] in paths else _shape(paths) | _ANYTHING_ELSE for key, paths in below.items()}
    return TypedDict("_Document", fields, total=False)  # type: ignore[operator]  # mypy wants it written out


_ANYTHING_ELSE = list[msgspec.Raw] | str | int | float | bool | None


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
