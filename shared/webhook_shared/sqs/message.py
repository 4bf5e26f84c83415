"""An event as a message of SQS: one JSON object, in ASCII, as SQS does not take every character."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from typing import Any, NamedTuple

from webhook_shared.claims import Claim

VERSION = 1
OBJECT_PREFIX = "sqs-bodies/"
"""Where sealed bodies lie that are too large for a message."""


_RECORD = re.compile(r"dedup:\{[^{}]+\}:(?P<key>.+)")


class NotOurs(Exception):
    """A message that no gateway of ours has written whole; its text says why, without the message's."""


class Stored(NamedTuple):
    """A sealed body that lies in the store of objects.

    Attributes:
        name: Of the object; made for this one message.
        sha256: Of its bytes, hex.
    """

    name: str
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Stored:
        """The reference to an object that holds this."""
        return cls(name, hashlib.sha256(content).hexdigest())

    def is_of(self, content: bytes) -> bool:
        """Whether these are the bytes."""
        return hashlib.sha256(content).hexdigest() == self.sha256


class Message(NamedTuple):
    """An event on its way through SQS.

    Attributes:
        id: The event's.
        received_ms: Unix milliseconds.
        sealed: Its sealed body; empty where `stored` says where that is.
    """

    id: str
    tenant: str
    tool: str
    type: str
    received_ms: int
    schema: int
    traceparent: str
    claim: Claim
    sealed: bytes = b""
    stored: Stored | None = None

    @property
    def group(self) -> str:
        """What a FIFO queue keeps in order: the events of one tenant's tool. 128 characters at most."""
        return hashlib.sha256(f"{self.tenant}\0{self.tool}".encode()).hexdigest()

    @property
    def dedup(self) -> str:
        """The keys of its records, as an entry of the stream has them."""
        keys = (_RECORD.match(name) for name in (self.claim.record, self.claim.echo))
        return " ".join(key["key"] for key in keys if key)


def encode(message: Message) -> str:
    """As it goes into the queue."""
    tree: dict[str, Any] = {
        "webhook": VERSION,
        "id": message.id,
        "tenant": message.tenant,
        "tool": message.tool,
        "type": message.type,
        "received": message.received_ms,
        "schema": message.schema,
        "claim": list(message.claim),
    }
    if message.traceparent:
        tree["traceparent"] = message.traceparent
    if message.stored:
        tree["stored"] = list(message.stored)
    else:
        tree["sealed"] = base64.b64encode(message.sealed).decode("ascii")
    return json.dumps(tree, separators=(",", ":"))


def decode(text: str) -> Message:
    """As it came out of the queue.

    Raises:
        NotOurs: It is no message of ours, or not whole, or of a version that is not known here.
    """
    try:
        tree = json.loads(text)
    except ValueError:
        raise NotOurs("not a message of ours, or cut short: it is no JSON") from None
    if not isinstance(tree, dict) or "webhook" not in tree:
        raise NotOurs("not a message of ours: it has no `webhook`")
    if tree["webhook"] != VERSION:
        raise NotOurs("a message of a version that is not known here")
    try:
        stored = Stored(*map(_text, tree["stored"])) if "stored" in tree else None
        message = Message(
            id=_text(tree["id"]),
            tenant=_text(tree["tenant"]),
            tool=_text(tree["tool"]),
            type=_text(tree["type"]),
            received_ms=int(tree["received"]),
            schema=int(tree["schema"]),
            traceparent=_text(tree.get("traceparent", "")),
            claim=_claim(tree["claim"]),
            sealed=b"" if stored else base64.b64decode(tree["sealed"], validate=True),
            stored=stored,
        )
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise NotOurs("a message of ours that is not whole") from None
    names = [message.claim.record, *([message.claim.echo] if message.claim.echo else [])]
    if not all(map(_RECORD.match, names)) or (stored and not stored.name.startswith(OBJECT_PREFIX)):
        # Whoever may write to the queue may not have us touch whatever they like.
        raise NotOurs("a message that names what is not an event's")
    return message


def _claim(parts: list[Any]) -> Claim:
    record, occurrences, window_ms, digest, echo, echo_window_ms = parts
    return Claim(
        _text(record), int(occurrences), int(window_ms), _text(digest), _text(echo), int(echo_window_ms)
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()
    return value
