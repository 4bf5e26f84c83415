"""Sealed events of GitHub's shape and size, as security makes them and the gateway queues them."""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import orjson
from webhook.event.v1.event_pb2 import Trust, WebhookEvent
from webhook_shared.compression import QUICK_LEVEL
from webhook_shared.sealing.envelope import Keyring

EXAMPLES = Path("node_modules/@octokit/webhooks-examples/api.github.com/index.json")
TENANT = "default"
SEED = 20_261_122
# What differs from one delivery to the next: hashes, ids, times, the words that people choose.
_VARYING = re.compile(
    rb"\b[0-9a-f]{40}\b|\b\d{5,}\b|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d|Codertocat|Hello-World|octo[a-z-]+"
)
_HEX = b"0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Payload:
    """One body and what GitHub says of it in its headers."""

    type: str
    action: str
    body: bytes


def payloads(count: int) -> list[Payload]:
    """Bodies of all event types that GitHub documents, each varied until there are `count`.

    Raises:
        FileNotFoundError: The examples are not installed (`make node`).
    """
    chance = random.Random(SEED)
    examples = [
        (entry["name"], example)
        for entry in orjson.loads(EXAMPLES.read_bytes())
        for example in entry["examples"]
    ]
    found = []
    for number in range(count):
        name, example = examples[number % len(examples)]
        # Within one payload the same id stays the same id.
        varied = cache(partial(_varied, chance))
        body = _VARYING.sub(partial(_replaced, varied), orjson.dumps(example))
        found.append(Payload(name, str(example.get("action") or ""), body))
    chance.shuffle(found)
    return found


def _replaced(varied: Callable[[bytes], bytes], match: re.Match[bytes]) -> bytes:
    return varied(match[0])


def entries(
    keyring: Keyring, bodies: Sequence[Payload], count: int
) -> Iterator[dict[str, bytes | str | int]]:
    """The stream entries of `count` events, each with an id and an envelope of its own.

    Args:
        keyring: Prepared for TENANT.
        bodies: Used in turn.
        count: How many.
    """
    now_ms = time.time_ns() // 1_000_000
    for number in range(count):
        payload = bodies[number % len(bodies)]
        event_id = str(uuid.UUID(int=(now_ms << 80) | (7 << 76) | (2 << 62) | number))
        event = WebhookEvent(
            id=event_id,
            tenant=TENANT,
            tool="github",
            type=payload.type,
            action=payload.action,
            delivery_id=str(uuid.UUID(int=number)),
            headers={
                "user-agent": "GitHub-Hookshot/6f2a1c9",
                "x-github-event": payload.type,
                "x-github-delivery": str(uuid.UUID(int=number)),
                "x-github-hook-id": "448120937",
            },
            payload=payload.body,
            content_type="application/json",
            trust=Trust(scheme="hmac-sha256", key_id="current"),
        )
        event.received_time.FromMilliseconds(now_ms)
        yield {
            "id": event_id,
            "tenant": TENANT,
            "tool": "github",
            "type": payload.type,
            "received": now_ms,
            "schema": "1",
            "sealed": keyring.seal(
                TENANT, event.SerializeToString(), "event", event_id, dictionary="github", level=QUICK_LEVEL
            ),
        }


def _varied(chance: random.Random, text: bytes) -> bytes:
    if len(text) == 40:
        return bytes(chance.choices(_HEX, k=40))
    if text.isdigit():
        return str(chance.randrange(10 ** (len(text) - 1), 10 ** len(text))).encode()
    if text[4:5] == b"-" and b"T" in text:
        moment = time.gmtime(chance.randrange(1_700_000_000, 1_790_000_000))
        return time.strftime("%Y-%m-%dT%H:%M:%S", moment).encode()
    return bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=len(text)))
