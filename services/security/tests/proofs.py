"""Right requests for any scheme, made by another road than the verifier's."""

from __future__ import annotations

import base64
import hmac
import json
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from webhook_security.verification.schemes import Scheme
from webhook_security.verification.verify import Check, Key, Verifier

ALWAYS = (float("-inf"), float("inf"))
NOW = 1_700_000_000
SECRET = "a long and boring: secret"
WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
SECRETS = {
    "raw": SECRET,
    "whsec": WHSEC,
    "whpk": "whpk_" + base64.b64encode(PUBLIC).decode(),
    "hex": PUBLIC.hex(),
    "base64": base64.b64encode(PUBLIC).decode(),
}


class Signed(NamedTuple):
    headers: dict[str, bytes]
    body: bytes


def checks_of(*schemes: Scheme, secret: str = "") -> list[Check]:
    checks = []
    for scheme in schemes:
        material = scheme.key_of(secret or SECRETS[scheme.key])
        assert material is not None
        checks.append(Check.of(Verifier(scheme, 300.0), [Key("it", material, *ALWAYS)]))
    return checks


def signed(scheme: Scheme, body: bytes, secret: str = "", now: int = NOW) -> Signed:
    """A right request; where the proof or the time stands in the body, a document around these bytes."""
    secret = secret or SECRETS[scheme.key]
    if scheme.kind == "basic":
        return Signed({"authorization": b"Basic " + base64.b64encode(secret.encode())}, body)
    if scheme.field:
        assert scheme.field == "value.*.clientState"
        value = [{"id": body.hex(), "clientState": secret}, {"clientState": secret}]
        return Signed({}, json.dumps({"value": value}).encode())
    if scheme.kind == "token":
        return Signed({scheme.header: scheme.prefix.encode() + secret.encode()}, body)
    if scheme.timestamp and scheme.timestamp.field:
        body = json.dumps({"a": body.hex(), scheme.timestamp.field: now * 1000}).encode()
    headers: dict[str, bytes] = {}
    stamp = str(now).encode()
    message = scheme.signed.encode()
    if scheme.id_header:
        headers[scheme.id_header] = b"msg-1"
        message = message.replace(b"{id}", b"msg-1")
    if scheme.timestamp:
        if scheme.timestamp.header:
            headers[scheme.timestamp.header] = stamp
        message = message.replace(b"{timestamp}", stamp)
    text = _written(scheme, secret, message.replace(b"{body}", body))
    if scheme.entries:
        separator, delimiter = scheme.entries.separator.encode(), scheme.entries.delimiter.encode()
        text = scheme.entries.version.encode() + separator + text
        if scheme.timestamp and scheme.timestamp.entry:
            text = scheme.timestamp.entry.encode() + separator + stamp + delimiter + text
    headers[scheme.header] = scheme.prefix.encode() + text
    return Signed(headers, body)


def _written(scheme: Scheme, secret: str, message: bytes) -> bytes:
    if scheme.kind == "ed25519":
        digest = PRIVATE.sign(message)
    else:
        key = scheme.key_of(secret)
        assert key is not None
        digest = hmac.digest(key, message, scheme.algorithm)
    return digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)
