"""Signed deliveries of GitHub's shape, ready to be written to a socket."""

from __future__ import annotations

import hashlib
import hmac
import random
import uuid

from tests.bench.consume.corpus import Payload, payloads

SECRET = "the secret of the benchmark, of no other use"
PATH = "/webhooks/github"
SEED = 7


def deliveries(count: int) -> list[bytes]:
    """HTTP requests, each with a body, ids and a delivery id of its own, and signed.

    Raises:
        FileNotFoundError: The examples are not installed (`make node`).
    """
    chance = random.Random(SEED)
    return [
        _delivery(payload, uuid.UUID(int=chance.getrandbits(128), version=4)) for payload in payloads(count)
    ]


def _delivery(payload: Payload, delivery_id: uuid.UUID) -> bytes:
    signature = hmac.new(SECRET.encode(), payload.body, hashlib.sha256).hexdigest()
    head = (
        f"POST {PATH} HTTP/1.1\r\n"
        "Host: hooks.example.com\r\n"
        "User-Agent: GitHub-Hookshot/044aadd\r\n"
        "Accept: */*\r\n"
        "Content-Type: application/json\r\n"
        f"X-GitHub-Delivery: {delivery_id}\r\n"
        f"X-GitHub-Event: {payload.type}\r\n"
        "X-GitHub-Hook-ID: 292430182\r\n"
        "X-GitHub-Hook-Installation-Target-ID: 79929171\r\n"
        "X-GitHub-Hook-Installation-Target-Type: repository\r\n"
        f"X-Hub-Signature-256: sha256={signature}\r\n"
        f"Content-Length: {len(payload.body)}\r\n\r\n"
    )
    return head.encode("ascii") + payload.body
