"""Whether bytes that strangers sent name somebody.

Names and texts are compared as words, whatever their case: "mona" is in "@Mona, look" and in
"https://example.com/users/mona", and not in "monatomic". JSON and forms are read first, so that an escape
hides nothing.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

LONGEST_NAME_CHARS = 256
_DIGEST_BYTES = 16
_WORD = re.compile(r"[\w.@+-]+")
_EDGES = "._@+-"
_DEEPEST = 4
"""JSON in a string in JSON...: what is deeper is read as plain text."""


def words(text: str) -> list[str]:
    """The words of a text."""
    found = (word.strip(_EDGES) for word in _WORD.findall(text.casefold()))
    return [word for word in found if word]


@dataclass(frozen=True, slots=True)
class Name:
    """Somebody's name: "octocat", "mona@example.com", "Mona Lisa".

    Attributes:
        words: In order; at least one.
    """

    words: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Name | None:
        """The name; None where there is no word in it."""
        found = words(name)
        return cls(tuple(found)) if found else None

    def is_in_text(self, text: str) -> bool:
        """Whether a text has these words, one after the other."""
        return not self._cannot_be_in(text.casefold()) and self._is_among(words(text))

    def is_in(self, content: bytes) -> bool:
        """Whether a body names it: JSON, a form or any text."""
        # Nearly always a single search says no: where nothing is escaped, all words stand there as they are.
        plain = content.decode(errors="replace")
        if not any(mark in plain for mark in ("\\", "%", "+")) and self._cannot_be_in(plain.casefold()):
            return False
        return any(self._is_among(words(text)) for text in texts(content))

    def _cannot_be_in(self, folded: str) -> bool:
        return not all(word in folded for word in self.words)

    def _is_among(self, found: list[str]) -> bool:
        count, first = len(self.words), self.words[0]
        return any(
            word == first and tuple(found[at : at + count]) == self.words for at, word in enumerate(found)
        )

    def digest(self, key: bytes, owner: str) -> str:
        """What tells the name again without telling it: keyed, of an owner, and of how many words."""
        return f"{len(self.words)}:{_digest(key, owner, self.words)}"


class Digests:
    """Names of which only the digests are known.

    Args:
        key: They were made with.
        owner: They were made for.
        digests: As of `Name.digest`.
    """

    def __init__(self, key: bytes, owner: str, digests: Iterable[str]) -> None:
        self._key = key
        self._owner = owner
        self._digests = frozenset(digests)
        self._counts = {int(digest.partition(":")[0]) for digest in self._digests}

    def found_in(self, contents: Iterable[bytes], said: Iterable[str] = ()) -> set[str]:
        """Those of the digests whose names stand in one of these bodies or texts."""
        found: set[str] = set()
        for text in (*(text for content in contents for text in texts(content)), *said):
            found |= self._of(words(text))
        return found

    def _of(self, found: list[str]) -> set[str]:
        windows = {
            tuple(found[at : at + count]) for count in self._counts for at in range(len(found) - count + 1)
        }
        return {
            digest
            for window in windows
            if (digest := f"{len(window)}:{_digest(self._key, self._owner, window)}") in self._digests
        }


def texts(content: bytes) -> Iterator[str]:
    """What can be read in a body: the strings and numbers of JSON, the fields of a form, or all of it."""
    yield from _texts(content.decode(errors="replace"), 0)


def _texts(text: str, depth: int) -> Iterator[str]:
    read = _read(text) if depth < _DEEPEST and text[:64].lstrip()[:1] in ("{", "[", '"') else None
    if read is not None:
        for value in _leaves(read):
            yield from _texts(value, depth + 1)
        return
    yield text
    if depth < _DEEPEST and "=" in text and ("%" in text or "+" in text):
        for name, value in parse_qsl(text, keep_blank_values=True):
            yield name
            yield from _texts(value, depth + 1)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _leaves(tree: Any) -> Iterator[str]:
    # By hand: strangers choose how deep it is.
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.keys()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            yield one
        elif isinstance(one, int | float) and not isinstance(one, bool):
            yield str(one)


def _digest(key: bytes, owner: str, name: Iterable[str]) -> str:
    parts = [part.encode("utf-8", "surrogatepass") for part in (owner, *name)]
    # Length-prefixed, so that no two lists of parts are the same bytes.
    joined = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.digest(key, joined, "sha256")[:_DIGEST_BYTES].hex()
