"""Signs a body as each sender does, with the headers that it sends along.

Driven by `senders.yaml`, which is written from the senders' documentation, apart from the verifier: one
checks the other.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from webhook_ops.samples.senders import Example, Proof, sender

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_SEED_BYTES = 32
"""A private key is the seed, or the seed and the public key after it."""

Facts = Mapping[str, str | int]


def sign(
    tool: str, body: bytes, secret: str, *, event_type: str, delivery_id: str, now: float
) -> list[tuple[str, str]]:
    """The request headers with which the tool's sender would deliver the body.

    Args:
        tool: The name of a catalogue entry; any other signs generically.
        body: The body exactly as it is sent.
        secret: The shared secret. One of GitLab's that begins with "whsec_" signs, another is the token; one
            of Standard Webhooks' that begins with "whsk_" is a private key.
        event_type: The sender's event type, for senders that name it in a header.
        delivery_id: The sender's id of the delivery, for senders that name it in a header.
        now: Unix seconds, for senders that sign the time.

    Raises:
        ValueError: A secret that can't be one of this sender's.
    """
    known = sender(tool)
    proof = known.proof_for(secret)
    facts = _facts(event_type, delivery_id, now)
    facts |= {
        "event_name": known.names.get(event_type, known.other_name),
        "secret": secret,
        "basic": base64.b64encode(secret.encode()).decode(),
        "signature": _signature(proof, body, secret, facts),
    }
    headers = {**known.headers, **proof.headers}
    return [(name, str(_filled(template, facts))) for name, template in headers.items()]


def freshened(tool: str, body: bytes, secret: str, *, now: float) -> bytes:
    """The body with what its sender puts into it at the moment of sending: the time, a shared secret.

    As it is for senders that put nothing in, and where it is no JSON.
    """
    places = sender(tool).fresh
    if not places:
        return body
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body
    facts = {**_facts("", "", now), "secret": secret}
    for place, template in places.items():
        _put(document, place.split("."), _filled(template, facts))
    return orjson.dumps(document)


def example_body(example: Example, *, event_type: str, delivery_id: str, now: float) -> bytes:
    """The body of a sender's example for one delivery."""
    return orjson.dumps(_filled(example.body, _facts(event_type, delivery_id, now)))


def _facts(event_type: str, delivery_id: str, now: float) -> dict[str, str | int]:
    return {
        "event_type": event_type,
        "delivery_id": delivery_id,
        "timestamp": int(now),
        "timestamp_ms": int(now * 1000),
    }


def _filled(value: Any, facts: Facts) -> Any:
    """The value with its placeholders filled; one that is all of a text keeps the type of its fact."""
    if isinstance(value, Mapping):
        return {key: _filled(member, facts) for key, member in value.items()}
    if isinstance(value, list):
        return [_filled(member, facts) for member in value]
    if not isinstance(value, str):
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return facts[whole[1]]
    return _PLACEHOLDER.sub(lambda found: str(facts[found[1]]), value)


def _put(document: Any, path: list[str], value: Any) -> None:
    key, *rest = path
    if key == "*":
        for member in document if isinstance(document, list) else ():
            _put(member, rest, value)
    elif isinstance(document, dict) and rest:
        _put(document.get(key), rest, value)
    elif isinstance(document, dict):
        document[key] = value


def _signature(proof: Proof, body: bytes, secret: str, facts: Facts) -> str:
    before, _, after = proof.signed.partition("{body}")
    message = str(_filled(before, facts)).encode() + body + str(_filled(after, facts)).encode()
    key = _key(proof, secret)
    if proof.algorithm == "ed25519":
        made = Ed25519PrivateKey.from_private_bytes(key[:_SEED_BYTES]).sign(message)
    else:
        made = hmac.new(key, message, proof.algorithm).digest()
    return made.hex() if proof.encoding == "hex" else base64.b64encode(made).decode()


def _key(proof: Proof, secret: str) -> bytes:
    text = secret.removeprefix(proof.begins).encode()
    if proof.key == "text":
        return text
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        # The text of the error would quote the secret.
        raise ValueError(f"the secret is not base64 after its {proof.begins} prefix") from None
