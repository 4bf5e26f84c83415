"""How senders prove who they are, as data.

A scheme says where the proof stands, how it is written and what it covers. `verify` carries it out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from webhook_shared.settings import Duration, Section

SIGNATURE_HEADER_PLACEHOLDER = "{signature_header}"
"""A scheme with this as its header reads the one that `webhook.security.signature_header` names."""

_WHSEC = "whsec_"
_WHPK = "whpk_"
_ED25519_KEY_BYTES = 32
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]
_LowerHeader = Annotated[str, AfterValidator(str.lower)]

Algorithm = Literal["sha1", "sha256", "sha512"]
Encoding = Literal["hex", "base64", "base64url"]

_OF_EVERY_KIND = frozenset({"name", "kind"})
_OF_TOKENS = {
    "token": _OF_EVERY_KIND | {"header", "prefix", "field"},
    "basic": _OF_EVERY_KIND | {"header", "prefix"},
}


def _body_path(value: str) -> str:
    if value and not all(value.split(".")):
        raise ValueError("write a place in the body as KEY.KEY, with * for every element of a list")
    return value


_BodyPath = Annotated[str, AfterValidator(_body_path)]


class TimestampPlace(Section):
    """Where the signed time stands and how far it may be from our clock.

    Attributes:
        header: The header that holds it, or...
        entry: ...the name of the entry that holds it in the signature header's list, or...
        field: ...its place in the body, which is signed: "webhookTimestamp".
        unit: Whole seconds or milliseconds since 1970.
        past: How old it may be; `webhook.security.timestamp_tolerance` where it is left out.
        future: How far ahead it may be; the same.
    """

    header: _LowerHeader = ""
    entry: str = ""
    field: _BodyPath = ""
    unit: Literal["s", "ms"] = "s"
    past: Duration | None = None
    future: Duration | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [bool(self.header), bool(self.entry), bool(self.field)].count(True) != 1:
            raise ValueError("a timestamp stands in a header, an entry or a field: name one of the three")
        return self


class EntryList(Section):
    """Several signatures in one header: "v1,<one> v1,<other>" or "t=1700000000,v1=<one>".

    Attributes:
        delimiter: Between the entries.
        separator: Between the name of an entry and its value.
        version: The name of the entries that are signatures of this scheme; others are passed over.
    """

    delimiter: _OneCharacter
    separator: _OneCharacter
    version: str = Field(min_length=1)


class Scheme(Section):
    """One way to prove a delivery.

    Attributes:
        name: What the trust of an event calls it; "hmac-sha256" and the like where it is left out.
        kind: hmac and ed25519 sign the delivery; token is a shared secret that the sender shows, in a header
            or in the body; basic is a user and a password as HTTP has them.
        header: Where the proof stands.
        field: Of a token that stands in the body: its place there, "value.*.clientState". Every one that is
            there must be right.
        begins: The scheme is meant only where the header's value begins so; tells two schemes of one
            header apart.
        beside: The scheme is meant only where these headers are there, too.
        prefix: Before the signature: "sha256="; before a token in any case of letters: "Bearer ".
        algorithm: Of the HMAC.
        encoding: Of the signature; hex is lower case, base64 has its padding, base64url has none.
        signed: What is signed, with {body}, {timestamp} and {id}.
        id_header: The header behind {id}.
        entries: Set where the header holds a list.
        timestamp: The place of {timestamp}, or of a time within the body.
        key: How the secret is written: raw is its text; hex and base64 are decoded; whsec decodes "whsec_"
            and base64, whpk the same of a public key. A secret that is not so is none of this scheme.
    """

    name: str = Field(min_length=1)
    kind: Literal["hmac", "ed25519", "token", "basic"]
    header: _LowerHeader = ""
    field: _BodyPath = ""
    begins: str = ""
    beside: tuple[_LowerHeader, ...] = ()
    prefix: str = ""
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    signed: str = "{body}"
    id_header: _LowerHeader = ""
    entries: EntryList | None = None
    timestamp: TimestampPlace | None = None
    key: Literal["raw", "hex", "base64", "whsec", "whpk"] = "raw"

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        kind, name = given.get("kind"), given.get("kind")
        if kind == "hmac":
            name = f"hmac-{given.get('algorithm', 'sha256')}"
        basic = {"header": "authorization", "prefix": "Basic "} if kind == "basic" else {}
        return {"name": name, **basic, **given}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind in _OF_TOKENS:
            extra = self.model_fields_set - _OF_TOKENS[self.kind]
            if extra:
                raise ValueError(f"a token has no {', '.join(sorted(extra))}")
            if bool(self.header) == bool(self.field):
                raise ValueError("a token stands in a header or in a field: name one of the two")
            return self
        if not self.header or self.field:
            raise ValueError("a signature stands in a header")
        if self.kind == "ed25519" and self.key not in {"whpk", "hex", "base64"}:
            raise ValueError("the key of ed25519 is public, and written as whpk, hex or base64")
        if self.kind == "ed25519" and "algorithm" in self.model_fields_set:
            raise ValueError("ed25519 has its own algorithm")
        if self.kind == "hmac" and self.key == "whpk":
            raise ValueError("a public key signs no HMAC")
        if self.entries and self.prefix:
            raise ValueError("a list of signatures has no prefix: the version stands before each")
        if self.timestamp and self.timestamp.entry and not self.entries:
            raise ValueError("timestamp.entry needs entries")
        self._check_template()
        return self

    def _check_template(self) -> None:
        names = _PLACEHOLDER.findall(self.signed)
        if names.count("body") != 1 or len(set(names)) != len(names):
            raise ValueError("signed must hold {body}, and each placeholder once")
        expected = {"body"}
        if self.timestamp and not self.timestamp.field:
            expected.add("timestamp")
        if self.id_header:
            expected.add("id")
        if set(names) != expected:
            raise ValueError(
                f"signed must hold exactly {', '.join('{' + name + '}' for name in sorted(expected))}: "
                "a timestamp or id that is not signed proves nothing"
            )

    @property
    def headers(self) -> tuple[str, ...]:
        """Every header that it reads, lower case; none of them may come twice."""
        named = (self.header, self.id_header, self.timestamp.header if self.timestamp else "", *self.beside)
        return tuple(dict.fromkeys(name for name in named if name))

    def parts(self) -> tuple[str, ...]:
        """The template cut up: "v0:{timestamp}:{body}" gives ("v0:", "{timestamp}", ":", "{body}")."""
        return tuple(part for part in re.split(r"(\{[a-z]+\})", self.signed) if part)

    def key_of(self, secret: str) -> bytes | None:
        """The key that a secret gives here, or None where it is none for this scheme."""
        if self.kind == "basic":
            return base64.b64encode(secret.encode()) if ":" in secret else None
        if self.kind == "ed25519":
            key = _decoded(secret, self.key)
            return key if key and len(key) == _ED25519_KEY_BYTES else None
        if secret.startswith(_WHPK) or (self.kind == "token" and secret.startswith(_WHSEC)):
            # What everybody may know proves nothing, and a signing secret that came as a token would be
            # shown to whoever reads the request.
            return None
        return secret.encode() if self.key == "raw" else _decoded(secret, self.key)


def _decoded(secret: str, form: str) -> bytes | None:
    begins = {"whsec": _WHSEC, "whpk": _WHPK}.get(form, "")
    if not secret.startswith(begins) or not secret.isascii():
        return None
    text = secret.removeprefix(begins).encode()
    try:
        if form == "hex":
            return binascii.unhexlify(text) or None
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    # One spelling only: whoever compares two secrets by eye must not be misled.
    return key if key and base64.b64encode(key) == text else None
