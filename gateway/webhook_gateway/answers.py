"""What the HTTP edge says, per outcome and per source.

Answers are told apart by their status alone: every refusal of one status has the same body, so a prober
learns nothing about the cause. The cause goes to metrics and to security's audit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from webhook_gateway.outcome import Answered, Refused

RETRY_AFTER_DEFAULT_S = 1.0
EVENT_ID_CHARACTERS = 36


class Answer(NamedTuple):
    """One HTTP response, ready to be written.

    Attributes:
        status: As in `HTTPStatus`.
        head: Status line and headers, each with its line end; the connection adds its own and the last one.
        body: As long as the head's content-length says.
    """

    status: int
    head: bytes
    body: bytes


def head(status: int, length: int, content_type: str = "application/json", **headers: str) -> bytes:
    """Status line and headers of an answer; underscores in header names become hyphens."""
    lines = [
        f"HTTP/1.1 {status} {_phrase(status)}",
        f"content-type: {content_type}",
        f"content-length: {length}",
    ]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _whole_seconds(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))


def plain(status: int, body: bytes, **headers: str) -> Answer:
    """An answer with a JSON body."""
    return Answer(status, head(status, len(body), **headers), body)


def refusal(status: int, error: str, **headers: str) -> Answer:
    """An answer that says no."""
    return plain(status, b'{"error":"%s"}' % error.encode("ascii"), **headers)


BAD_REQUEST = refusal(400, "bad request")
UNAUTHORIZED = refusal(401, "refused")
FORBIDDEN = refusal(403, "refused")
NOT_FOUND = refusal(404, "not found")
REQUEST_TIMEOUT = refusal(408, "too slow")
TOO_LARGE = refusal(413, "too large")
UNSUPPORTED = refusal(415, "unsupported media type")
HEADERS_TOO_LARGE = refusal(431, "headers too large")

_BY_CAUSE = {
    "UNKNOWN_SOURCE": NOT_FOUND,
    "SIGNATURE_MISSING": UNAUTHORIZED,
    "SIGNATURE_INVALID": UNAUTHORIZED,
    "TIMESTAMP_EXPIRED": UNAUTHORIZED,
    "TIMESTAMP_AHEAD": UNAUTHORIZED,
    "TIMESTAMP_MALFORMED": BAD_REQUEST,
    "HEADER_MALFORMED": BAD_REQUEST,
    "BODY_EMPTY": BAD_REQUEST,
    "CONTENT_TYPE": UNSUPPORTED,
    "BODY_TOO_LARGE": TOO_LARGE,
    "ADDRESS": FORBIDDEN,
    "EVENT_TYPE": FORBIDDEN,
}


def method_not_allowed(methods: Sequence[str]) -> Answer:
    """405, naming what is allowed."""
    return refusal(405, "method not allowed", allow=", ".join(methods))


def unavailable(retry_after_s: float) -> Answer:
    """Our own fault, whatever it is: 503, and when to come again."""
    return refusal(503, "unavailable", retry_after=_whole_seconds(retry_after_s))


UNAVAILABLE = unavailable(RETRY_AFTER_DEFAULT_S)


def too_many(retry_after_s: float) -> Answer:
    """Above a rate: 429, and when to come again."""
    return refusal(429, "too many requests", retry_after=_whole_seconds(retry_after_s))


TOO_MANY = too_many(RETRY_AFTER_DEFAULT_S)


def refused(outcome: Refused, not_allowed: Answer) -> Answer:
    """The answer to what security refused; `not_allowed` is the source's own 405.

    A cause that is our fault, or that we do not know, is answered 503.
    """
    answer = _BY_CAUSE.get(outcome.cause)
    if answer is not None:
        return answer
    if outcome.cause == "METHOD":
        return not_allowed
    if outcome.cause == "RATE":
        return too_many(outcome.retry_after_s)
    return unavailable(outcome.retry_after_s or RETRY_AFTER_DEFAULT_S)


def handshake(outcome: Answered) -> Answer:
    """What a handshake is answered with; never sniffed for markup, since a part of it is the sender's."""
    content_type = outcome.content_type.replace("\r", "").replace("\n", "") or "text/plain"
    return Answer(
        outcome.status,
        head(outcome.status, len(outcome.body), content_type, x_content_type_options="nosniff"),
        outcome.body,
    )


class SourceAnswers:
    """The answers of one source to what is in a stream: its status codes, with the heads made ready."""

    def __init__(self, accepted_status: int, duplicate_status: int) -> None:
        self._accepted_status = accepted_status
        self._duplicate_status = duplicate_status
        self._accepted_head = head(accepted_status, len(_accepted_body("0" * EVENT_ID_CHARACTERS)))
        self._quarantined_head = head(202, len(_accepted_body("0" * EVENT_ID_CHARACTERS)))

    def accepted(self, event_id: str, *, quarantined: bool) -> Answer:
        """Durable. What is quarantined is answered 202 whatever the source's own status is."""
        body = _accepted_body(event_id)
        if len(event_id) != EVENT_ID_CHARACTERS:
            return plain(202 if quarantined else self._accepted_status, body)
        if quarantined:
            return Answer(202, self._quarantined_head, body)
        return Answer(self._accepted_status, self._accepted_head, body)

    def duplicate(self, event_id: str) -> Answer:
        """Accepted before, as the first event says."""
        body = b'{"event_id":"%s","status":"duplicate","duplicate":true}' % event_id.encode("ascii")
        return plain(self._duplicate_status, body, x_webhook_duplicate="true")


def _accepted_body(event_id: str) -> bytes:
    return b'{"event_id":"%s","status":"accepted"}' % event_id.encode("ascii")
