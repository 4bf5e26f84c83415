#!/usr/bin/env python3
"""Trains the compression dictionary of GitHub events.

    npm install --prefix /tmp/examples @octokit/webhooks-examples
    python services/security/tools/train_dictionary.py /tmp/examples/node_modules/@octokit/webhooks-examples

A dictionary is part of what it compresses: whatever stands in it, everybody with this repository can read.
So the examples are scrubbed first. Keys, the vocabulary of the API and the shape of its URLs stay; every
name, text, number, date and digest is made up anew, several times per example, from a fixed seed. The same
examples, seed and libzstd give the same bytes.

It prints the ratio on examples that the trained-on half does not hold, then trains on all of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import string
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import yaml
import zstandard
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.event.v1.event_pb2 import Trust, WebhookEvent

SEED = 20261122
VARIANTS = 24
LEVEL = 3
SIZE_BYTES = 110_000
MEASURED_VARIANTS = 2
_LETTERS = string.ascii_lowercase
_LONGEST_TEXT_WORDS = 96
_VOCABULARY = yaml.safe_load(Path(__file__).with_name("github_vocabulary.yaml").read_text(encoding="utf-8"))
_HOSTS, _URL_WORDS, _VALUES = (frozenset(_VOCABULARY[name]) for name in ("hosts", "url_words", "values"))
_API_KEY = re.compile(r"[a-z][a-z0-9_]{0,47}|[+-]1")


class Scrubber:
    """Replaces every value of a payload by one of the same shape that means nothing.

    Equal values of one payload stay equal, as the ids and names of one repository are.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311  # must repeat; guards nothing
        self._made: dict[Any, Any] = {}

    def document(self, node: Any, key: str = "") -> Any:
        """A payload, or a part of one under a key."""
        if isinstance(node, dict):
            return {self._key(name): self.document(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [self.document(value, key) for value in node]
        if isinstance(node, bool) or node is None:
            return node
        if isinstance(node, str):
            return self._text(node, key)
        return self._once(node, self._number)

    def _key(self, name: str) -> str:
        # A key that is no word of the API is somebody's text.
        return name if _API_KEY.fullmatch(name) else str(self._once(name, self._shaped))

    def _text(self, value: str, key: str) -> str:
        if value in _VALUES:
            return value
        if value.startswith(("https://", "http://", "git://", "git@")):
            return self._url(value)
        return str(self._once(value, self._shaped))

    def _once(self, value: Any, make: Any) -> Any:
        if value not in self._made:
            self._made[value] = make(value)
        return self._made[value]

    def _number(self, value: float) -> float:
        if isinstance(value, float):
            return round(self._random.random() * 100, 2)
        digits = len(str(abs(value)))
        return self._random.randrange(10 ** (digits - 1), 10**digits) if digits > 1 else value

    def _url(self, value: str) -> str:
        # https://api.github.com/repos/octo/hello/git/refs{/sha}: words of the API and templates stay.
        head, _, path = value.partition("://" if "://" in value else ":")
        joiner = "://" if "://" in value else ":"
        address, brace, template = path.partition("{")
        host, *segments = address.split("/")
        kept = [host if host in _HOSTS else str(self._once(host, self._shaped))]
        kept += [part if part in _URL_WORDS else self._segment(part) for part in segments]
        return f"{head}{joiner}{'/'.join(kept)}{brace}{template}"

    def _segment(self, part: str) -> str:
        stem, dot, suffix = part.rpartition(".")
        if dot and suffix == "git":
            return f"{self._once(stem, self._shaped)}.git"
        return str(self._once(part, self._shaped)) if part else ""

    def _shaped(self, value: str) -> str:
        if len(value) in (40, 64) and not set(value) - set(string.hexdigits):
            return "".join(self._random.choices("0123456789abcdef", k=len(value)))
        if " " in value and not value[:4].isdigit():
            return self._sentence(value)
        return "".join(self._character(character) for character in value)

    def _character(self, character: str) -> str:
        if character.isdigit():
            return self._random.choice(string.digits)
        if character.isalpha():
            made = self._random.choice(_LETTERS)
            return made.upper() if character.isupper() else made
        # Punctuation is shape: the dashes of a date, the slash of a full name.
        return character if character.isascii() else "x"

    def _sentence(self, value: str) -> str:
        words = value.split()[:_LONGEST_TEXT_WORDS]
        return " ".join("".join(self._character(character) for character in word) for word in words)


def event(kind: str, document: Any, seed: str) -> bytes:
    """What is sealed for one delivery: the event around a scrubbed payload."""
    source = random.Random(seed)  # noqa: S311  # must repeat; guards nothing
    digits = "".join(source.choices(string.digits, k=9))
    delivery = "-".join("".join(source.choices("0123456789abcdef", k=length)) for length in (8, 4, 4, 4, 12))
    return WebhookEvent(
        id="-".join("".join(source.choices("0123456789abcdef", k=length)) for length in (8, 4, 4, 4, 12)),
        tenant="default",
        tool="github",
        type=kind,
        action=document.get("action", "") if isinstance(document, dict) else "",
        received_time=Timestamp(seconds=source.randrange(1_700_000_000, 1_900_000_000)),
        delivery_id=delivery,
        headers={
            "x-github-event": kind,
            "x-github-delivery": delivery,
            "x-github-hook-id": digits,
            "x-github-hook-installation-target-id": digits[::-1],
            "x-github-hook-installation-target-type": source.choice(["repository", "organization"]),
            "user-agent": f"GitHub-Hookshot/{delivery[:7]}",
        },
        payload=orjson.dumps(document),
        content_type="application/json",
        trust=Trust(scheme="hmac-sha256", key_id="env:GITHUB_WEBHOOK_SECRET"),
    ).SerializeToString(deterministic=True)


def examples(folder: Path) -> list[tuple[str, Any]]:
    """Every example from github.com with its event type, shuffled in a fixed order, none twice.

    Those from GitHub Enterprise Server say the same with other hosts, and make the dictionary worse.
    """
    found: dict[str, tuple[str, Any]] = {}
    for kind in json.loads((folder / "api.github.com" / "index.json").read_text(encoding="utf-8")):
        for example in kind["examples"]:
            digest = hashlib.sha256(orjson.dumps([kind["name"], example])).hexdigest()
            found.setdefault(digest, (kind["name"], example))
    return [found[digest] for digest in sorted(found)]


def scrubbed(originals: Iterable[tuple[str, Any]], variants: int, purpose: str) -> list[bytes]:
    """Events to train or to measure on; those of different purposes share no made-up value."""
    made = []
    for number, (kind, document) in enumerate(originals):
        for variant in range(variants):
            seed = f"{SEED}/{purpose}/{number}/{variant}"
            made.append(event(kind, Scrubber(seed).document(document), seed))
    return made


def trained(samples: Sequence[bytes], size_bytes: int) -> bytes:
    """The dictionary's bytes."""
    return zstandard.train_dictionary(size_bytes, list(samples), level=LEVEL).as_bytes()


def ratio(samples: Sequence[bytes], dictionary: bytes | None) -> float:
    """Bytes before over bytes after, all samples together."""
    data = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    compressor = zstandard.ZstdCompressor(
        level=LEVEL, dict_data=data, write_dict_id=False, write_checksum=False
    )
    return sum(map(len, samples)) / sum(len(compressor.compress(sample)) for sample in samples)


def main() -> None:
    """Measure, train, write."""
    parser = argparse.ArgumentParser(description="Trains the compression dictionary of GitHub events.")
    parser.add_argument("examples", type=Path, help="the folder of @octokit/webhooks-examples")
    parser.add_argument("--generation", type=int, default=1, help="counts up with each training that is kept")
    parser.add_argument("--size", type=int, default=SIZE_BYTES, help="bytes")
    parser.add_argument("--out", type=Path, default=Path("shared/webhook_shared/dictionaries"))
    arguments = parser.parse_args()
    try:
        originals = examples(arguments.examples)
    except OSError:
        sys.exit(f"{arguments.examples}: holds no api.github.com/index.json; see --help")
    held_out = scrubbed(originals[1::2], MEASURED_VARIANTS, "measure")
    half = trained(scrubbed(originals[::2], VARIANTS, "train"), arguments.size)
    sys.stdout.write(
        f"{len(originals)} examples; on the half that it was not trained on: "
        f"{ratio(held_out, None):.2f}x without, {ratio(held_out, half):.2f}x with {len(half)} bytes\n"
    )
    content = trained(scrubbed(originals, VARIANTS, "train"), arguments.size)
    digest = hashlib.sha256(content).digest()[:8].hex()
    file = arguments.out / f"github-{arguments.generation}-{digest}.zdict"
    file.write_bytes(content)
    sys.stdout.write(f"{file}: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
