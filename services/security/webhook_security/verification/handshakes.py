"""Requests that want an answer and are no event, as data, and how each is answered.

Two kinds: one stands in a body that has been verified like any other (Slack), one in the query and proves
nothing (Microsoft Graph, X). Who asks in the query learns no more than that somebody is here, unless the
answer is signed. What is signed for such a stranger can never pass as the body of an event: the token may
hold no character that opens an object or an array.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import parse_qsl

from pydantic import AfterValidator, Field, model_validator
from webhook_shared.settings import Section

from webhook_security.payloads.fields import Place, Selector
from webhook_security.refusals import Refusal
from webhook_security.verification.schemes import Algorithm, Encoding
from webhook_security.verification.signatures import encoder
from webhook_security.verification.verify import Check

LONGEST_ANSWER_BYTES = 1024

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")
_PLACEHOLDER = re.compile(r"\{([a-z]+)\}")
_MOST_PARAMETERS = 16
# Printable ASCII without what could begin markup.
_ECHOED = re.compile(r"[ -;=?-~]{1,1024}")
# Nothing here ends a JSON string, or opens an object or an array.
_WRITTEN = re.compile(r"[A-Za-z0-9._~=+/-]{1,256}")


def media_type(value: str) -> str:
    """The media type itself, which must be lower case and have no parameters."""
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("a media type is lower case and has no parameters")
    return value


MediaType = Annotated[str, AfterValidator(media_type)]


class AnswerSignature(Section):
    """How the token of a handshake is signed with the source's secret; the first live one."""

    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""


class HandshakeRow(Section):
    """A request that wants an answer and is no event.

    Attributes:
        when: The place in a verified delivery that tells...
        equals: ...by holding this...
        reply: ...and the place of the token to answer with. Or:
        query: The parameter of the query that holds the token; such a request has no body and no proof.
        method: Of a request with the token in its query.
        content_types: What a request with the token in its query may come as, beside the source's own.
        signature: Set where the answer is signed.
        body: The answer, at most 1 KiB, with {token} and {signature}.
        content_type: Of the answer, which has status 200.
    """

    when: Place | None = None
    equals: str = ""
    reply: Place | None = None
    query: str = ""
    method: Literal["GET", "POST"] = "POST"
    content_types: tuple[MediaType, ...] = ()
    signature: AnswerSignature | None = None
    body: str = Field("{token}", max_length=512)
    content_type: Literal["text/plain", "application/json"] = "text/plain"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        in_body = [self.when is not None, bool(self.equals), self.reply is not None]
        if any(in_body) == bool(self.query) or any(in_body) != all(in_body):
            raise ValueError("a handshake has either when, equals and reply, or query")
        if not self.query and (self.method != "POST" or self.content_types):
            raise ValueError("method and content_types are those of a handshake in the query")
        names = set(_PLACEHOLDER.findall(self.body))
        if not names or names - {"token", "signature"}:
            raise ValueError("body must hold {token} or {signature}, and no other placeholder")
        if ("signature" in names) != (self.signature is not None):
            raise ValueError("{signature} in body and signature go together")
        return self

    @property
    def places(self) -> tuple[Selector, ...]:
        """Every place that is looked at."""
        return tuple(place for place in (self.when, self.reply) if place)


class Reply(NamedTuple):
    """What a handshake is answered with, status 200."""

    content_type: str
    body: bytes


class Handshake:
    """A handshake, made ready to answer."""

    def __init__(self, row: HandshakeRow) -> None:
        self.row = row
        self._is_written = row.signature is not None or row.content_type != "text/plain"
        self._encode = encoder(row.signature.encoding) if row.signature else None

    def token_of(self, method: str, query: bytes, body: bytes) -> str:
        """The token that a request holds in its query; empty where it is no handshake."""
        if not self.row.query or method != self.row.method or body:
            return ""
        try:
            pairs = parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            return ""
        tokens = [value for name, value in pairs if name == self.row.query]
        return tokens[0] if len(tokens) == 1 else ""

    def reply(self, token: str, checks: Sequence[Check], now: float) -> Reply | Refusal:
        """The answer to a token: refused where it holds what may not be answered, or no secret is live.

        Args:
            token: From the query or from a verified body.
            checks: The source's secrets.
            now: Unix seconds.
        """
        if not (_WRITTEN if self._is_written else _ECHOED).fullmatch(token):
            return Refusal.HEADER_MALFORMED
        signature = ""
        if self.row.signature and self._encode:
            signing = [check for check in checks if check.verifier.scheme.kind == "hmac"]
            key = next((key for check in signing for key in check.live(now)), None)
            if key is None:
                return Refusal.SECRET_UNAVAILABLE
            digest = hmac.digest(key.material, token.encode(), self.row.signature.algorithm)
            signature = self.row.signature.prefix + self._encode(digest).decode()
        # Both at once: what stands in the token is never taken for a placeholder.
        values = {"token": token, "signature": signature}
        body = _PLACEHOLDER.sub(lambda found: values[found[1]], self.row.body).encode()
        if len(body) > LONGEST_ANSWER_BYTES:
            return Refusal.HEADER_MALFORMED
        return Reply(self.row.content_type, body)
