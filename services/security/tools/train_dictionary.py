#!/usr/bin/env python3
"""Trains the compression dictionaries that are shipped: `make dictionaries`.

A shipped dictionary is part of what it compresses: whatever stands in it, everybody with this repository can
read. So it is made of published examples (`@octokit/webhooks-examples`, MIT) and of the samples that this
repository sends in demonstrations, and those are scrubbed first (`webhook_shared.dictionaries.scrubbing`):
names of fields, words of APIs and the shape of URLs stay; every name, text, number, date and digest is made
up anew, several times per example, from a fixed seed. The same examples, seed and libzstd give the same
bytes.

For each sender it prints the ratio on examples that were held out of the training, then trains on all. A
dictionary that has changed gets the next generation; none is ever removed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.event.v1.event_pb2 import Trust, WebhookEvent
from webhook_shared import compression
from webhook_shared.dictionaries.scrubbing import LEAST_SAMPLES, Scrubber, Vocabulary, learned, public
from webhook_shared.dictionaries.training import dictionary_of, ratio

SEED = 20261122
VARIANTS = 24
MEASURED_VARIANTS = 2
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "node_modules/@octokit/webhooks-examples/api.github.com/index.json"
SAMPLES = ROOT / "deploy/ops/webhook_ops/samples"
OUT = ROOT / "shared/webhook_shared/dictionaries/shipped"
SIZES_BYTES = {"github": 65_536, "gitlab": 24_576, "jira": 24_576, "slack": 8_192}
_OF_SAMPLES = {"gitlab": "object_kind", "jira": "webhookEvent", "slack": "type"}
"""Senders of whom we have samples, and the field that names the type of an event."""

Original = tuple[str, Any]


def originals(sender: str) -> list[Original]:
    """Event type and payload of every example, in a fixed order, none twice.

    Those from GitHub Enterprise Server say the same with other hosts, and would make the dictionary worse.

    Raises:
        FileNotFoundError: GitHub's examples are not installed (`make node`).
    """
    if sender in _OF_SAMPLES:
        documents = [json.loads(file.read_bytes()) for file in sorted((SAMPLES / sender).glob("*.json"))]
        return [(str(document.get(_OF_SAMPLES[sender], "")), document) for document in documents]
    found: dict[str, Original] = {}
    for kind in json.loads(EXAMPLES.read_bytes()):
        for example in kind["examples"]:
            digest = hashlib.sha256(orjson.dumps([kind["name"], example])).hexdigest()
            found.setdefault(digest, (kind["name"], example))
    return [found[digest] for digest in sorted(found)]


def vocabulary(of: Sequence[Original]) -> Vocabulary:
    """What may stay: of examples that were published for that purpose, every name of a field."""
    bodies = [orjson.dumps(document) for _, document in of]
    seen = learned(
        (body for body in bodies for _ in range(LEAST_SAMPLES)), lambda body, walk: walk.content(body)
    )
    known = public()
    return replace(seen, words=known.words)


def event(sender: str, kind: str, body: bytes, seed: str) -> bytes:
    """What is sealed for one delivery: the event around a scrubbed payload."""
    source = random.Random(seed)  # noqa: S311  # must repeat; guards nothing
    digits = "".join(source.choices(string.digits, k=9))
    identity, delivery = (
        "-".join("".join(source.choices("0123456789abcdef", k=length)) for length in (8, 4, 4, 4, 12))
        for _ in range(2)
    )
    headers = {
        "x-github-event": kind,
        "x-github-delivery": delivery,
        "x-github-hook-id": digits,
        "x-github-hook-installation-target-id": digits[::-1],
        "x-github-hook-installation-target-type": source.choice(["repository", "organization"]),
        "user-agent": f"GitHub-Hookshot/{delivery[:7]}",
    }
    return WebhookEvent(
        id=identity,
        tenant="default",
        tool=sender,
        type=kind,
        received_time=Timestamp(seconds=source.randrange(1_700_000_000, 1_900_000_000)),
        delivery_id=delivery,
        headers=headers if sender == "github" else {},
        payload=body,
        content_type="application/json",
        trust=Trust(scheme="hmac-sha256", key_id=f"env:{sender.upper()}_WEBHOOK_SECRET"),
    ).SerializeToString(deterministic=True)


def scrubbed(
    sender: str, of: Iterable[Original], known: Vocabulary, purpose: str, variants: int
) -> list[bytes]:
    """Events to train or to measure on; those of different purposes share no made-up value."""
    made = []
    for number, (kind, document) in enumerate(of):
        for variant in range(variants):
            seed = f"{SEED}/{purpose}/{number}/{variant}"
            body = Scrubber(known, seed).content(orjson.dumps(document))
            made.append(event(sender, kind, body, seed))
    return made


def measured(sender: str, of: Sequence[Original], known: Vocabulary) -> str:
    """The ratios on examples that were held out of the training: every second, or each of a few in turn."""
    folds = [of[1::2]] if len(of) > 10 else [[one] for one in of]
    without = made = 0.0
    for held_out in folds:
        taught = [one for one in of if one not in held_out]
        content = dictionary_of(scrubbed(sender, taught, known, "train", VARIANTS), SIZES_BYTES[sender])
        tried = scrubbed(sender, held_out, known, "measure", MEASURED_VARIANTS)
        without += ratio(tried, b"", compression.QUICK_LEVEL) / len(folds)
        made += ratio(tried, content, compression.QUICK_LEVEL) / len(folds)
    return f"{without:.2f}x without a dictionary, {made:.2f}x with one, level {compression.QUICK_LEVEL}"


def main() -> None:
    """Measure, train, write."""
    parser = argparse.ArgumentParser(description="Trains the compression dictionaries that are shipped.")
    parser.add_argument("senders", nargs="*", default=list(SIZES_BYTES), help="github, gitlab, jira, slack")
    parser.add_argument("--out", type=Path, default=OUT, help="where they go")
    arguments = parser.parse_args()
    for sender in arguments.senders:
        try:
            of = originals(sender)
        except OSError:
            sys.exit(f"{EXAMPLES} is missing: run `make node` first")
        known = vocabulary(of)
        sys.stdout.write(f"{sender}: {len(of)} examples; held out: {measured(sender, of, known)}\n")
        content = dictionary_of(scrubbed(sender, of, known, "train", VARIANTS), SIZES_BYTES[sender])
        held = compression.shipped(sender)
        if held is not None and held.content == content:
            sys.stdout.write(f"{sender}: unchanged\n")
            continue
        generation = held.generation + 1 if held else 1
        file = arguments.out / f"{sender}-{generation}-{compression.identity(content).hex()}.zdict"
        file.write_bytes(content)
        sys.stdout.write(f"{file}: {len(content)} bytes\n")


if __name__ == "__main__":
    main()
