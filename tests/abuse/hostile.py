"""Requests that no honest sender makes, each with the one answer that is due to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests import payloads
from tests.senders import AnyTool, Delivery, encoded
from tests.system import Senders
from tests.wire import chunked, request_head, whole

DEFAULT_LIMIT_BYTES = 10 * 2**20
GITHUB_LIMIT_BYTES = 25 * 2**20
NESTING = 2000


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        name: Of the test.
        status: What must come back.
        request: Makes the bytes.
    """

    name: str
    status: int
    request: Callable[[Senders], bytes]


def _issue() -> bytes:
    return encoded(payloads.github_issue("octo/abused", 1, "Never stored", "Nothing of this may be kept."))


def _github(senders: Senders) -> Delivery:
    return senders.github.deliver("issues", _issue())


def _changed(change: Callable[[Delivery], Delivery]) -> Callable[[Senders], bytes]:
    """A good GitHub delivery with one change."""
    return lambda senders: whole(change(_github(senders)))


def _signed(body: bytes) -> Callable[[Senders], bytes]:
    """A body of any kind, signed as it must be."""
    return lambda senders: whole(senders.github.deliver("issues", body))


def _signature(*values: str | bytes) -> Callable[[Senders], bytes]:
    return _changed(lambda delivery: delivery.having("X-Hub-Signature-256", *values))


def _aimed_at(target: bytes) -> Callable[[Senders], bytes]:
    def request(senders: Senders) -> bytes:
        delivery = _github(senders)
        headers = (*delivery.headers, ("Content-Length", str(len(delivery.body))))
        return request_head(target, headers) + delivery.body

    return request


def _with_head(*extra: tuple[str, str | bytes], body: bytes | None = None) -> Callable[[Senders], bytes]:
    """A good GitHub delivery with headers of our own about the length of the body."""

    def request(senders: Senders) -> bytes:
        delivery = _github(senders)
        return request_head(delivery.path, (*delivery.headers, *extra)) + (body or delivery.body)

    return request


def signatures() -> Iterator[Case]:
    """Signatures that are wrong in every way there is."""
    good = "sha256=" + "0" * 64
    yield Case("missing", 401, _changed(lambda delivery: delivery.without("X-Hub-Signature-256")))
    yield Case("of another body", 401, _changed(lambda delivery: delivery.saying(delivery.body + b" ")))
    yield Case("wrong", 401, _signature(good))
    yield Case("empty", 401, _signature(""))
    yield Case("without its prefix", 401, _changed(_without_prefix))
    yield Case("with another prefix", 401, _changed(lambda d: _resigned(d, lambda s: "sha1=" + s[7:])))
    yield Case("cut to a prefix of the right one", 401, _changed(lambda d: _resigned(d, lambda s: s[:-1])))
    yield Case("cut to nothing", 401, _changed(lambda d: _resigned(d, lambda s: s[:7])))
    yield Case("longer than the right one", 401, _changed(lambda d: _resigned(d, lambda s: s + "0")))
    yield Case("in capitals", 401, _changed(lambda d: _resigned(d, str.upper)))
    yield Case("non-ASCII, Latin-1", 401, _signature(b"sha256=" + b"\xe9" * 64))
    yield Case("non-ASCII, UTF-8", 401, _signature("sha256=" + "0" * 62 + "é"))
    yield Case("not UTF-8 at all", 401, _signature(b"sha256=\xff\xfe\x80" + b"0" * 61))
    yield Case("repeated, the right one first", 400, _changed(lambda d: _repeated(d, first=True)))
    yield Case("repeated, the right one last", 400, _changed(lambda d: _repeated(d, first=False)))
    yield Case("too long", 400, _signature("sha256=" + "0" * 9000))
    yield Case("with a line break", 400, _signature(b"sha256=\n" + b"0" * 64))
    yield Case("with a NUL", 400, _signature(b"sha256=\x00" + b"0" * 63))
    yield Case("id header repeated", 400, _changed(lambda d: d.having("X-GitHub-Delivery", "a", "b")))


def _resigned(delivery: Delivery, change: Callable[[str], str]) -> Delivery:
    name = "X-Hub-Signature-256"
    return delivery.having(name, change(delivery.value(name)))


def _without_prefix(delivery: Delivery) -> Delivery:
    return _resigned(delivery, lambda signature: signature.removeprefix("sha256="))


def _repeated(delivery: Delivery, *, first: bool) -> Delivery:
    name = "X-Hub-Signature-256"
    pair = (delivery.value(name), "sha256=" + "0" * 64)
    return delivery.having(name, *(pair if first else reversed(pair)))


def standard_signatures() -> Iterator[Case]:
    """Lists of signatures."""

    def changed(change: Callable[[str], str]) -> Callable[[Senders], bytes]:
        def request(senders: Senders) -> bytes:
            delivery = senders.standard.deliver(payloads.standard("invoice.paid", {"id": "never"}))
            return whole(delivery.having("webhook-signature", change(delivery.value("webhook-signature"))))

        return request

    yield Case("no comma", 401, changed(lambda good: good.replace(",", "")))
    yield Case("bad base64", 401, changed(lambda _: "v1,!!!!"))
    yield Case("junk within base64", 401, changed(lambda good: good[:8] + "!!!" + good[8:]))
    yield Case("another version only", 401, changed(lambda good: "v2," + good[3:]))
    yield Case("10,000 of them", 431, changed(lambda good: " ".join([good] * 10_000)))
    yield Case("nine of them", 400, changed(lambda good: " ".join(["v1,AAAA"] * 8 + [good])))


def targets() -> Iterator[Case]:
    """Tools that there are not, and paths that want to be somewhere else."""
    for name, target in (
        ("unknown tool", b"/webhooks/nobody"),
        ("unknown tenant", b"/webhooks/nobody/github"),
        ("no tool", b"/webhooks/"),
        ("no tool, no slash", b"/webhooks"),
        ("too deep", b"/webhooks/default/github/more"),
        ("trailing slash", b"/webhooks/github/"),
        ("capitals", b"/webhooks/GitHub"),
        ("dots", b"/webhooks/../webhooks/github"),
        ("dots as a tool", b"/webhooks/.."),
        ("encoded dots", b"/webhooks/%2e%2e%2fwebhooks%2fgithub"),
        ("encoded tool", b"/webhooks/git%68ub"),
        ("encoded slash", b"/webhooks%2fgithub"),
        ("encoded NUL", b"/webhooks/github%00"),
        ("encoded garbage", b"/webhooks/%ff%fe"),
        ("double slash", b"//webhooks/github"),
        ("backslash", b"/webhooks\\github"),
        ("semicolon", b"/webhooks/github;jsessionid=1"),
        ("4 KiB of tool", b"/webhooks/" + b"a" * 4096),
        ("etc", b"/webhooks/../../../../etc/passwd"),
        ("admin", b"/admin"),
        ("root", b"/"),
    ):
        yield Case(name, 404, _aimed_at(target))
    yield Case("absolute URL of a stranger", 404, _aimed_at(b"http://169.254.169.254/webhooks/github"))


def methods() -> Iterator[Case]:
    """Everything but POST."""
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):

        def request(senders: Senders, method: str = method) -> bytes:
            return whole(_github(senders), method=method)

        yield Case(method, 405, request)


def content_types() -> Iterator[Case]:
    """What the source does not take."""

    def typed(*values: str) -> Callable[[Senders], bytes]:
        return _changed(lambda delivery: delivery.having("Content-Type", *values))

    yield Case("xml", 415, typed("application/xml"))
    yield Case("text", 415, typed("text/plain"))
    yield Case("multipart", 415, typed("multipart/form-data; boundary=x"))
    yield Case("missing", 415, typed())
    yield Case("gzip", 415, _changed(lambda delivery: delivery.having("Content-Encoding", "gzip")))
    yield Case("form at a tool that takes none", 415, _form_at_slack)


def _form_at_slack(senders: Senders) -> bytes:
    delivery = senders.slack.deliver(b"payload=%7B%7D")
    return whole(delivery.having("Content-Type", "application/x-www-form-urlencoded"))


def lengths() -> Iterator[Case]:
    """Bodies that are empty, too large, or not as long as they say."""
    yield Case("empty", 400, lambda senders: whole(senders.github.deliver("issues", b"")))
    yield Case("too large", 413, lambda senders: whole(_large(senders.acme, DEFAULT_LIMIT_BYTES + 1)))
    yield Case(
        "too large, chunked", 413, lambda senders: chunked(_large(senders.acme, DEFAULT_LIMIT_BYTES + 1))
    )
    yield Case(
        "over GitHub's limit",
        413,
        lambda senders: whole(senders.github.deliver("push", b" " * (GITHUB_LIMIT_BYTES + 1))),
    )
    yield Case("announced too large, never sent", 413, _with_head(("Content-Length", str(10**12)), body=b"{"))
    yield Case("an absurd length", 413, _with_head(("Content-Length", "9" * 19), body=b"{"))
    yield Case("a length beyond numbers", 400, _with_head(("Content-Length", "9" * 400), body=b"{"))
    yield Case("a negative length", 400, _with_head(("Content-Length", "-1")))
    yield Case("no number", 400, _with_head(("Content-Length", "0x10")))
    yield Case("two lengths", 400, _with_head(("Content-Length", "5"), ("Content-Length", "6")))
    yield Case(
        "length and chunks",
        400,
        _with_head(("Content-Length", "4"), ("Transfer-Encoding", "chunked"), body=b"0\r\n\r\n"),
    )
    yield Case(
        "bad chunk size", 400, _with_head(("Transfer-Encoding", "chunked"), body=b"xyz\r\n{}\r\n0\r\n\r\n")
    )
    yield Case("another transfer coding", 400, _with_head(("Transfer-Encoding", "gzip"), body=b"{}"))


def _large(sender: AnyTool, size: int) -> Delivery:
    return sender.deliver("deployment", b'{"pad":"' + b"x" * (size - 10) + b'"}')


def heads() -> Iterator[Case]:
    """Requests that are no requests, or too many headers of one."""
    yield Case("65 headers", 431, _with_head(*((f"X-Pad-{n}", "1") for n in range(65))))
    yield Case("40 KiB of header", 431, _with_head(("X-Pad", "x" * 40_000)))
    yield Case(
        "two hosts", 400, _with_head(("Host", "other.example.com"), ("Content-Length", "2"), body=b"{}")
    )
    yield Case("no HTTP", 400, lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20)
    yield Case("a version of its own", 400, lambda _: b"POST /webhooks/github HTTP/7.7\r\n\r\n")
    yield Case("space before the colon", 400, _raw_header(b"X-Hub-Signature-256 : sha256=00"))
    yield Case("folded header", 400, _raw_header(b"X-Pad: one\r\n two"))
    yield Case("header without a name", 400, _raw_header(b": nothing"))


def _raw_header(line: bytes) -> Callable[[Senders], bytes]:
    def request(_: Senders) -> bytes:
        return b"POST /webhooks/github HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 2\r\n\r\n{}" % line

    return request


def timestamps() -> Iterator[Case]:
    """Signed times that are too far away, or no times."""

    def sent(offset_s: float) -> Callable[[Senders], bytes]:
        return lambda senders: whole(senders.acme.deliver("deployment", b"{}", sent_s=time.time() + offset_s))

    def slack(offset_s: float) -> Callable[[Senders], bytes]:
        message = payloads.slack_message("C1", "1795166400.000100", "Too late")
        return lambda senders: whole(senders.slack.deliver(message, sent_s=time.time() + offset_s))

    def written(timestamp: str | bytes) -> Callable[[Senders], bytes]:
        def request(senders: Senders) -> bytes:
            delivery = senders.slack.deliver(b'{"type":"event_callback"}')
            return whole(delivery.having("X-Slack-Request-Timestamp", timestamp))

        return request

    yield Case("expired", 401, sent(-301))
    yield Case("of the future", 401, sent(+330))
    yield Case("expired, Slack", 401, slack(-301))
    yield Case("of the future, Slack", 401, slack(+330))
    yield Case("of 1970", 401, sent(-time.time()))
    for timestamp in (
        "",
        "abc",
        "1e9",
        "1_700_000_000",
        " ",
        "NaN",
        "-5",
        "1" * 5000,
        "\N{ARABIC-INDIC DIGIT ONE}".encode() * 10,
    ):
        yield Case(f"written as {timestamp[:14]!r}", 400, written(timestamp))


def quarantined() -> Iterator[Case]:
    """Signed bodies that nobody can read: kept, and answered 202."""
    deep = b'{"a":' * NESTING + b"1" + b"}" * NESTING
    bodies = {
        "not JSON": b"this is not JSON, but signed",
        "half of JSON": b'{"action": "opened", "issue": {',
        "invalid UTF-8": b'{"action": "\xff\xfe\x80"}',
        "UTF-16": '{"action": "opened"}'.encode("utf-16"),
        "nested 2,000 deep": deep,
        "lists 2,000 deep": b"[" * NESTING + b"]" * NESTING,
        "a lone surrogate": b'{"action": "\\ud800"}',
        "NaN": b'{"number": NaN}',
        "NUL bytes": b"\x00" * 64,
        "binary": bytes(range(256)),
        "two documents": b'{"a": 1}{"a": 2}',
    }
    for name, body in bodies.items():
        yield Case(name, 202, _signed(body))


def odd_but_readable() -> Iterator[Case]:
    """Signed bodies that are JSON, if only just: taken in and answered 202, whatever becomes of them."""
    bodies = {
        "a 5,000-digit number": b'{"action": "opened", "number": ' + b"9" * 5000 + b"}",
        "duplicate keys": b'{"action": "opened", "action": "closed"}',
        "an empty object": b"{}",
        "an empty list": b"[]",
        "a string": b'"opened"',
        "null": b"null",
        "100,000 keys": json.dumps({f"k{n}": n for n in range(100_000)}).encode(),
        "a megabyte of text": json.dumps({"action": "opened", "text": "ä" * 2**20}).encode(),
        "types turned round": b'{"action": {"x": []}, "issue": [1, 2], "repository": "octo", "sender": 7}',
        "numbers as names": b'{"repository": {"full_name": 1e400}, "issue": {"number": {"deep": true}}}',
        "control characters": json.dumps({"action": "\x00\x1b[31m\r\nX: y", "zen": "\u202e"}).encode(),
    }
    for name, body in bodies.items():
        yield Case(name, 202, _signed(body))


def unknown_secret() -> Case:
    """A source whose secret nobody has set: our fault, so the sender is to come again."""
    stranger = AnyTool("secretless", "guessed")
    return Case("no secret", 503, lambda _: whole(stranger.deliver("deployment", b"{}")))
