"""Requests that no honest sender makes, each with the one answer that is due to it."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from webhook_ops.delivery import DEFAULT_TENANT
from webhook_ops.doctor.raw_http import Headers, head
from webhook_ops.samples.senders import Proof, sender
from webhook_ops.samples.signing import sign

# Further than any tolerance that somebody may have set.
_TEN_YEARS_S = 10 * 365 * 86_400

BODY = b'{"action":"examined","sender":"webhook-cli doctor"}'


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        name: What is wrong with it.
        status: What must come back.
        request: The bytes.
    """

    name: str
    status: int
    request: bytes


class Forger:
    """Makes deliveries to one source that look good and are not.

    Args:
        tool: The route's name.
        host: For the Host header.
        secret: The source's real one, where it is known: near-misses are nearer with it. It never signs
            what is sent along, nor is it sent itself.
        tenant: Whose source it is.

    Attributes:
        path: Of its route.
        signature: The header that holds one; empty where the sender shows a secret instead.
        timestamp: The header that holds the signed time; empty where there is none of its own.
        knows: Whether it can sign.

    Raises:
        ValueError: The secret can't be one of this sender's.
    """

    def __init__(self, tool: str, host: str, *, secret: str = "", tenant: str = DEFAULT_TENANT) -> None:
        known = sender(tool)
        proof = known.proof_for(secret) if secret else known.proofs[0]
        self.tool = tool
        self.host = host
        self.path = f"/webhooks/{'' if tenant == DEFAULT_TENANT else f'{tenant}/'}{tool}".encode()
        self.signature = _header(proof, lambda template: "{signature}" in template)
        self.timestamp = _header(proof, lambda template: template == "{timestamp}")
        self.knows = bool(secret and self.signature)
        self._secret = secret
        self._guess = proof.begins + base64.b64encode(secrets.token_bytes(32)).decode()

    def headers(
        self, body: bytes = BODY, *, knowing: bool = False, at: float | None = None
    ) -> dict[str, str | bytes]:
        """The headers of a delivery, signed with a guess, or `knowing` the secret if we know it."""
        secret = self._secret if knowing and self.knows else self._guess
        delivery_id = f"doctor-{secrets.token_hex(8)}"
        return dict(
            sign(
                self.tool,
                body,
                secret,
                event_type="examined",
                delivery_id=delivery_id,
                now=time.time() if at is None else at,
            )
        )

    def request(
        self, headers: Headers, body: bytes = BODY, *, path: bytes = b"", method: str = "POST"
    ) -> bytes:
        """The bytes, with the length that they have."""
        told = (*headers, ("Content-Length", str(len(body))))
        return head(path or self.path, told, host=self.host, method=method) + body

    def framed(self, *framing: tuple[str, str], body: bytes = b"{}") -> bytes:
        """The bytes, with what is said of their length."""
        return head(self.path, (*self.headers().items(), *framing), host=self.host) + body


def _header(proof: Proof, holds: Callable[[str], bool]) -> str:
    return next((name for name, template in proof.headers.items() if holds(template)), "")


def cases(forger: Forger) -> Iterator[Case]:
    """All that take no time."""
    yield from _signatures(forger)
    yield from _targets(forger)
    yield from _lengths(forger)
    yield from _heads(forger)


def _signatures(forger: Forger) -> Iterator[Case]:
    name = forger.signature
    forged = forger.headers()
    right = str(forger.headers(knowing=True).get(name, ""))

    def saying(value: str | bytes) -> bytes:
        return forger.request({**forged, name: value}.items())

    unsigned = {key: value for key, value in forged.items() if key != name}
    yield Case("forged signature", 401, forger.request(forged.items()))
    if not name:
        return
    yield Case("no signature", 401, forger.request(unsigned.items()))
    yield Case("signature cut to a prefix", 401, saying(right[:-1]))
    yield Case("signature of another body", 401, forger.request({**forged, name: right}.items(), BODY + b" "))
    yield Case("signature with bytes beyond ASCII", 401, saying(str(forged[name]).encode()[:-1] + b"\xe9"))
    yield Case("signature of 9,000 characters", 400, saying("0" * 9000))
    yield Case("two signatures", 400, forger.request((*forged.items(), (name, "0"))))
    if forger.timestamp:
        for written in ("", "abc", "1e9", "NaN", "9" * 500):
            stamped = {**forged, forger.timestamp: written}
            yield Case(f"timestamp {written[:8]!r}", 400, forger.request(stamped.items()))
        for offset_s in (-_TEN_YEARS_S, _TEN_YEARS_S):
            late = forger.headers(knowing=True, at=time.time() + offset_s)
            when = "ten years ago" if offset_s < 0 else "in ten years"
            yield Case(f"signed {when}", 401, forger.request(late.items()))


def _targets(forger: Forger) -> Iterator[Case]:
    for name, path in (
        ("unknown tool", b"/webhooks/nobody-has-this-one"),
        ("path with dots", b"/webhooks/../webhooks/github"),
        ("path with encoded dots", b"/webhooks/%2e%2e%2fadmin"),
        ("path with an encoded NUL", b"/webhooks/github%00"),
        ("path with encoded garbage", b"/webhooks/%ff%fe"),
        ("path of 4 KiB", b"/webhooks/" + b"a" * 4096),
    ):
        yield Case(name, 404, forger.request(forger.headers().items(), path=path))
    yield Case("method DELETE", 405, forger.request(forger.headers().items(), method="DELETE"))
    for name, changed in (
        ("content type text/plain", {"Content-Type": "text/plain"}),
        ("compressed body", {"Content-Encoding": "gzip"}),
    ):
        yield Case(name, 415, forger.request({**forger.headers(), **changed}.items()))


def _lengths(forger: Forger) -> Iterator[Case]:
    yield Case("body announced as a terabyte", 413, forger.framed(("Content-Length", str(10**12))))
    yield Case("two lengths", 400, forger.framed(("Content-Length", "2"), ("Content-Length", "3")))
    yield Case(
        "length and chunks", 400, forger.framed(("Content-Length", "4"), ("Transfer-Encoding", "chunked"))
    )
    yield Case("negative length", 400, forger.framed(("Content-Length", "-1")))
    yield Case(
        "chunk of no size",
        400,
        forger.framed(("Transfer-Encoding", "chunked"), body=b"xyz\r\n{}\r\n0\r\n\r\n"),
    )
    # Whether it is empty is looked at only where it is believed.
    empty = forger.request(forger.headers(b"", knowing=True).items(), b"")
    yield Case("empty body", 400 if forger.knows else 401, empty)


def _heads(forger: Forger) -> Iterator[Case]:
    yield Case("65 headers", 431, forger.framed(*((f"X-Pad-{n}", "1") for n in range(65))))
    yield Case("40 KiB of header", 431, forger.framed(("X-Pad", "x" * 40_000)))
    yield Case("two hosts", 400, forger.framed(("Host", "other.example"), ("Content-Length", "2")))
    yield Case("folded header", 400, forger.framed(("X-Pad", "one\r\n two"), ("Content-Length", "2")))
    yield Case("no HTTP", 400, b"\x00\x01\x02\x03 hello\r\n\r\n" * 4)
