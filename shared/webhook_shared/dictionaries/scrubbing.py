"""Taking the meaning out of samples, so that what is trained on them holds structure and nothing else.

A dictionary holds pieces of what it was trained on, letter for letter. So every sample is rewritten first:
punctuation, keys that many samples have, words of public APIs and of those keys, and values of fields that
hold one of a few words ("state", "type") stay where many samples have them; every name, text, number, date,
digest and host is made up anew, in the same shape. Equal values of one sample stay equal, since
that is what compression lives from.
"""

from __future__ import annotations

import random
import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from google.protobuf.message import Message

LEAST_SAMPLES = 5
"""What fewer samples have is somebody's, not everybody's."""
LEAST_SHARE = 0.01
"""The same as a share of all samples; the larger of both counts."""
LONGEST_TEXT = 600
"""Of made-up text, characters: more of it teaches nothing."""
_LONGEST_NAME = 200

# A string that never ends is one, too: nothing is looked at twice, whatever somebody sends.
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"(\s*+:)?|\\?\Z)|-?\d++(?:\.\d++)?(?:[eE][+-]?\d++)?', re.DOTALL)
_CHARACTER = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|\d|[A-Za-z]|[^\x00-\x7f]")
_HEX = re.compile(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{7,}")
_URL = re.compile(r"((?:https?|git|ssh)://|git@)([^{]*)(.*)", re.DOTALL)
#: What RFC 6570 lets stand in an address for somebody to fill in.
_TEMPLATE = re.compile(r"(?:\{[+#./;?&]?[A-Za-z_]+(?:,[A-Za-z_]+)*\})*")
_API_KEY = re.compile(r"[A-Za-z_@$][A-Za-z0-9_@$.:-]{0,47}|[+-]1")
_FEW_WORDS = re.compile(r"[A-Za-z][A-Za-z]*(?:[ _:.-][A-Za-z]+){0,4}")
_WORDS = re.compile(r"(?:[a-z]+(?:[_-][a-z]+)*)?")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass(frozen=True)
class Vocabulary:
    """What may stay of a sample.

    Attributes:
        keys: Names of fields.
        values: Whole values.
        words: Parts of the paths of URLs.
        hosts: Of URLs.
        choices: The last words of keys whose values are one of a few.
    """

    keys: frozenset[str]
    values: frozenset[str]
    words: frozenset[str]
    hosts: frozenset[str]
    choices: frozenset[str]


@cache
def public() -> Vocabulary:
    """The words of well-known senders' APIs, the same for everybody; no keys."""
    file = files("webhook_shared") / "dictionaries" / "shipped" / "vocabulary.yaml"
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    return Vocabulary(
        keys=frozenset(),
        values=frozenset(read["values"]),
        words=frozenset(read["url_words"]),
        hosts=frozenset(read["hosts"]),
        choices=frozenset(read["choices"]),
    )


class Walk(ABC):
    """Goes through a sample and rewrites its parts."""

    def message(self, message: Message) -> None:
        """Rewrite a message in place: strings, numbers, and JSON in its bytes."""
        for one, value in message.ListFields():
            if one.message_type and one.message_type.GetOptions().map_entry:
                self._map(value)
            elif one.is_repeated:
                rewritten = [self._field(one, element) for element in value]
                if not one.message_type:
                    value[:] = rewritten
            elif one.message_type:
                self.message(value)
            else:
                setattr(message, one.name, self._field(one, value))

    def _map(self, entries: Any) -> None:
        rewritten = {
            self.key(name): self.text(value, name) for name, value in entries.items() if isinstance(name, str)
        }
        entries.clear()
        for name, value in rewritten.items():
            entries[name] = value

    def _field(self, one: Any, value: Any) -> Any:
        if one.message_type:
            self.message(value)
            return value
        if isinstance(value, bytes):
            return self.content(value)
        if isinstance(value, str):
            return self.text(value, one.name)
        if isinstance(value, bool) or one.enum_type:
            return value
        # Never above what it was, so that the field still holds it.
        return int(self.number(str(value))) % value if isinstance(value, int) and value > 9 else value

    def content(self, content: bytes) -> bytes:
        """JSON, or whatever else came as a body; what is no text comes back empty."""
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return b""
        return self.json(text).encode() if text.lstrip()[:1] in {"{", "["} else self.text(text, "").encode()

    def json(self, text: str) -> str:
        """A JSON text; its layout stays."""
        key = ""

        def token(match: re.Match[str]) -> str:
            nonlocal key
            value, colon = match[1], match[2]
            if value is None:
                return self.number(match[0])
            if colon is None:
                return f'"{self.text(value, key)}"'
            key = value
            return f'"{self.key(value)}"{colon}'

        return _TOKEN.sub(token, text)

    @abstractmethod
    def key(self, name: str) -> str:
        """The name of a field."""

    @abstractmethod
    def text(self, value: str, key: str) -> str:
        """A value, and the name of its field."""

    @abstractmethod
    def number(self, digits: str) -> str:
        """A number as it is written."""


@dataclass
class Census(Walk):
    """Counts in how many samples each key and each choice stands; rewrites nothing."""

    samples: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    _keys: set[str] = field(default_factory=set)
    _values: set[str] = field(default_factory=set)

    def end(self) -> None:
        """The sample that was gone through is over."""
        self.samples += 1
        self.keys.update(self._keys)
        self.values.update(self._values)
        self._keys, self._values = set(), set()

    def key(self, name: str) -> str:
        """Counted once per sample."""
        self._keys.add(name)
        return name

    def text(self, value: str, key: str) -> str:
        """Counted once per sample where its key says that it is one of a few, or it is a URL's template."""
        words, url = _WORD.findall(key), _URL.fullmatch(value)
        if url and _TEMPLATE.fullmatch(url[3]):
            self._values.add(url[3])
        elif words and words[-1].lower() in public().choices and _FEW_WORDS.fullmatch(value):
            self._values.add(value)
        return value

    def number(self, digits: str) -> str:
        """Not counted."""
        return digits

    def vocabulary(self) -> Vocabulary:
        """What so many samples have that it says nothing of any."""
        least = max(LEAST_SAMPLES, LEAST_SHARE * self.samples)
        keys = {key for key, count in self.keys.items() if count >= least and _API_KEY.fullmatch(key)}
        values = {value for value, count in self.values.items() if count >= least}
        words = {word.lower() for key in keys for word in _WORD.findall(key)}
        words |= {f"{word}s" for word in words}
        known = public()
        return replace(known, keys=frozenset(keys), values=known.values | values, words=known.words | words)


class Scrubber(Walk):
    """Replaces what is not in a vocabulary by something of the same shape that means nothing.

    Args:
        vocabulary: What stays; where it has no keys, every one that looks like an API's stays.
        seed: The same sample and seed give the same result.
    """

    def __init__(self, vocabulary: Vocabulary, seed: str) -> None:
        self._vocabulary = vocabulary
        self._random = random.Random(seed)  # noqa: S311  # must repeat; guards nothing
        self._made: dict[str, str] = {}

    def key(self, name: str) -> str:
        """Itself where it is in the vocabulary."""
        keys = self._vocabulary.keys
        # A key that few samples have, or that is no word of an API, is somebody's text.
        stays = name in keys if keys else _API_KEY.fullmatch(name) is not None
        return name if stays else self._once(name, self._shaped)

    def text(self, value: str, key: str) -> str:
        """Itself, or made up."""
        if value in self._vocabulary.values or len(value) <= 1:
            return value
        url = _URL.fullmatch(value)
        if url:
            return self._url(*url.groups())
        # octo/hello, octo:main: the parts are what they are where they stand alone.
        parts = re.split(r"([/:@])", value) if len(value) <= _LONGEST_NAME and " " not in value else [value]
        return "".join(self._once(part, self._shaped) for part in parts)

    def number(self, digits: str) -> str:
        """As many digits; one digit alone stays."""
        return digits if len(digits) == 1 else self._once(digits, self._digits)

    def _once(self, value: str, make: Callable[[str], str]) -> str:
        if value not in self._made:
            self._made[value] = make(value)
        return self._made[value]

    def _digits(self, value: str) -> str:
        made = "".join(self._random.choice(string.digits) if one.isdigit() else one for one in value)
        # JSON has no leading zeros.
        return re.sub(r"^(-?)0(?=\d)", r"\g<1>1", made)

    def _url(self, scheme: str, address: str, template: str) -> str:
        # https://api.github.com/repos/octo/hello/git/refs{/sha}: words of the API and templates stay.
        host, *segments = re.split(r"([/:])", address)
        kept = [host if host in self._vocabulary.hosts else self._once(host, self._shaped)]
        kept += [part if part in "/:" else self._segment(part) for part in segments]
        stays = (
            template in self._vocabulary.values if self._vocabulary.keys else _TEMPLATE.fullmatch(template)
        )
        return f"{scheme}{''.join(kept)}{template if stays else self._shaped(template)}"

    def _segment(self, part: str) -> str:
        words = self._vocabulary.words
        if part in words or (_WORDS.fullmatch(part) and words.issuperset(_WORD.findall(part))):
            return part
        stem, dot, suffix = part.rpartition(".")
        if dot and suffix in {"git", "json", "svg"}:
            return f"{self._once(stem, self._shaped)}.{suffix}"
        return self._once(part, self._shaped)

    def _shaped(self, value: str) -> str:
        if _HEX.fullmatch(value):
            return "".join(self._random.choices("0123456789abcdef", k=len(value)))
        return _CHARACTER.sub(self._character, value[:LONGEST_TEXT])

    def _character(self, match: re.Match[str]) -> str:
        one = match[0]
        if one[0] == "\\":
            # An escape is shape; which letter it stands for is not.
            return one if one[1] != "u" else "\\u0078"
        if one.isdigit() and one.isascii():
            return self._random.choice(string.digits)
        if one.isascii():
            made = self._random.choice(string.ascii_lowercase)
            return made.upper() if one.isupper() else made
        return "x"


def learned(samples: Iterable[bytes], walk: Callable[[bytes, Walk], object]) -> Vocabulary:
    """What may stay of such samples.

    Args:
        samples: Some of them.
        walk: Goes through one.
    """
    census = Census()
    for sample in samples:
        walk(sample, census)
        census.end()
    return census.vocabulary()
