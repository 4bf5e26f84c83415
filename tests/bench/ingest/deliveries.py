"""Signed deliveries of GitHub's shape, ready to be written to a socket."""

from __future__ import annotations

import hashlib
import hmac
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from tests.bench.consume.corpus import Payload, payloads

SECRET = "the secret of the benchmark, of no other use"
PATH = "/webhooks/github"
SEED = 7
# About as many as people use, so that text compresses as text does.
_LETTERS = random.Random(SEED)
_WORDS = ["".join(_LETTERS.choices("abcdefghijklmnopqrstuvwxyz", k=3 + at % 9)) for at in range(4000)]
_SHORTEST_WORD = 3


@dataclass(frozen=True)
class Mix:
    """What a sender sends.

    Attributes:
        count: Deliveries.
        body_bytes: Of each body; 0: as GitHub has them.
        duplicates: Which share of the deliveries is one that came before, byte for byte.
        forgeries: Which share is signed with another secret.
    """

    count: int
    body_bytes: int = 0
    duplicates: float = 0.0
    forgeries: float = 0.0

    @property
    def again(self) -> int:
        """How many come a second time."""
        return round(self.count * self.duplicates)

    @property
    def forged(self) -> int:
        """How many are nobody's."""
        return round(self.count * self.forgeries)


def deliveries(mix: Mix, round_number: int, payloads: Sequence[Payload]) -> list[bytes]:
    """HTTP requests; but for the duplicates each has a body, ids and a delivery id of its own.

    Args:
        mix: What is sent.
        round_number: Stands in every body, so that what a round before has left in memory is of no use.
        payloads: `bodies` of the mix.
    """
    chance = random.Random(round_number)
    distinct = mix.count - mix.again
    found = []
    for number, payload in enumerate(payloads[:distinct]):
        secret = SECRET if number >= mix.forged else "somebody else's"
        body = b'{"round":%d,%b' % (round_number, payload.body[1:])
        delivery_id = uuid.UUID(int=chance.getrandbits(128), version=4)
        found.append(_delivery(payload.type, body, delivery_id, secret))
    # Of the genuine ones; they come some time after the first, as they do when an answer was lost.
    again = chance.sample(found[mix.forged :], mix.again)
    chance.shuffle(found)
    return found[: distinct // 2] + _mingled(chance, found[distinct // 2 :], again)


def bodies(size_bytes: int, count: int) -> list[Payload]:
    """GitHub's own, or all of one size: an issue whose text makes up for what is missing.

    Raises:
        FileNotFoundError: The examples are not installed (`make node`).
    """
    if not size_bytes:
        return payloads(count)
    chance = random.Random(SEED)
    return [Payload("issues", "opened", _issue(chance, size_bytes)) for _ in range(count)]


def _issue(chance: random.Random, size_bytes: int) -> bytes:
    number = chance.randrange(10**9, 10**10)
    issue = {"id": number, "number": number % 10_000, "title": "The door is stuck", "body": ""}
    repository = {"id": number + 1, "full_name": "octo/door", "owner": {"login": "octo", "id": 1}}
    frame = {"action": "opened", "issue": issue, "repository": repository, "sender": {"login": "hubot"}}
    missing = size_bytes - len(orjson.dumps(frame))
    words = (chance.choice(_WORDS) for _ in range(missing // _SHORTEST_WORD + 1))
    issue["body"] = " ".join(words)[:missing]
    return orjson.dumps(frame)


def _mingled(chance: random.Random, first: list[bytes], second: list[bytes]) -> list[bytes]:
    mingled = first + second
    chance.shuffle(mingled)
    return mingled


def _delivery(event: str, body: bytes, delivery_id: uuid.UUID, secret: str) -> bytes:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST {PATH} HTTP/1.1\r\n"
        "Host: hooks.example.com\r\n"
        "User-Agent: GitHub-Hookshot/044aadd\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/json\r\n"
        f"X-GitHub-Delivery: {delivery_id}\r\n"
        f"X-GitHub-Event: {event}\r\n"
        "X-GitHub-Hook-ID: 292430182\r\n"
        "X-GitHub-Hook-Installation-Target-ID: 79929171\r\n"
        "X-GitHub-Hook-Installation-Target-Type: repository\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body
