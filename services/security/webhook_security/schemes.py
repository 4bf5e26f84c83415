"""How senders prove who they are, as data.

A scheme says where the proof stands, how it is written and what it covers. `verify` carries it out.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from webhook_shared.settings import Duration, Section

SIGNATURE_HEADER_PLACEHOLDER = "{signature_header}"
"""A scheme with this as its header reads the one that `webhook.security.signature_header` names."""

_WHSEC = "whsec_"
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_OneCharacter = Annotated[str, Field(min_length=1, max_length=1)]
_LowerHeader = Annotated[str, AfterValidator(str.lower)]


class TimestampPlace(Section):
    """Where the signed time stands and how far it may be from our clock.

    Attributes:
        header: The header that holds it, or...
        entry: ...the name of the entry that holds it in the signature header's list.
        unit: Whole seconds or milliseconds since 1970.
        past: How old it may be; `webhook.security.timestamp_tolerance` where it is left out.
        future: How far ahead it may be; the same.
    """

    header: _LowerHeader = ""
    entry: str = ""
    unit: Literal["s", "ms"] = "s"
    past: Duration | None = None
    future: Duration | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if bool(self.header) == bool(self.entry):
            raise ValueError("a timestamp stands in a header or in an entry: name one of the two")
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
        name: What the trust of an event calls it.
        kind: hmac signs the delivery; token is a shared secret that the sender shows.
        header: Where the proof stands.
        begins: The scheme is meant only where the header's value begins so; tells two schemes of one
            header apart.
        prefix: Before the signature: "sha256=".
        algorithm: Of the HMAC.
        encoding: Of the signature; hex is lower case, base64 has its padding.
        signed: What is signed, with {body}, {timestamp} and {id}.
        id_header: The header behind {id}.
        entries: Set where the header holds a list.
        timestamp: The place of {timestamp}.
        key: raw uses the secret's text; whsec decodes "whsec_" and base64, and passes over other secrets.
    """

    name: str = Field(min_length=1)
    kind: Literal["hmac", "token"]
    header: _LowerHeader = Field(min_length=1)
    begins: str = ""
    prefix: str = ""
    algorithm: Literal["sha1", "sha256", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    signed: str = "{body}"
    id_header: _LowerHeader = ""
    entries: EntryList | None = None
    timestamp: TimestampPlace | None = None
    key: Literal["raw", "whsec"] = "raw"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "token":
            extra = self.model_fields_set - {"name", "kind", "header"}
            if extra:
                raise ValueError(f"a token has no {', '.join(sorted(extra))}")
            return self
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
        if self.timestamp:
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
        named = (self.header, self.id_header, self.timestamp.header if self.timestamp else "")
        return tuple(name for name in named if name)

    def parts(self) -> tuple[str, ...]:
        """The template cut up: "v0:{timestamp}:{body}" gives ("v0:", "{timestamp}", ":", "{body}")."""
        return tuple(part for part in re.split(r"(\{[a-z]+\})", self.signed) if part)

    def key_of(self, secret: str) -> bytes | None:
        """The key that a secret gives here, or None where it is none for this scheme."""
        if self.key == "whsec":
            return _whsec(secret)
        if self.kind == "token" and secret.startswith(_WHSEC):
            # A signing secret that came as a token would be shown to whoever reads the request.
            return None
        return secret.encode()


def _whsec(secret: str) -> bytes | None:
    if not secret.startswith(_WHSEC):
        return None
    text = secret.removeprefix(_WHSEC).encode()
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return key if key and base64.b64encode(key) == text else None
