"""Signatures that the senders published themselves, and each with one thing wrong."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from webhook_security import catalogue
from webhook_security.refusals import Refusal
from webhook_security.schemes import Scheme
from webhook_security.verify import Check, Key, Proof, Verifier, verify

CATALOGUE = catalogue.load("X-Webhook-Signature")
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


class Vector(NamedTuple):
    """A published case: entry of the catalogue, its scheme, and what the sender prints."""

    entry: str
    scheme: int
    secret: str
    headers: dict[str, bytes]
    body: bytes
    now: float


VECTORS = [
    Vector(
        "github",
        0,
        "It's a Secret to Everybody",
        {"x-hub-signature-256": b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
        b"Hello, World!",
        0.0,
    ),
    Vector(
        "jira",
        0,
        "It's a Secret to Everybody",
        {"x-hub-signature": b"sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"},
        b"Hello World!",
        0.0,
    ),
    Vector(
        "slack",
        0,
        "8f742231b10e8888abcd99yyyzzz85a5",
        {
            "x-slack-request-timestamp": b"1531420618",
            "x-slack-signature": b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        SLACK_BODY,
        1531420618.0,
    ),
    *(
        Vector(
            entry,
            0,
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            {
                "webhook-id": b"msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp": b"1614265330",
                "webhook-signature": b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            },
            b'{"test": 2432232314}',
            1614265330.0,
        )
        for entry in ("standard-webhooks", "gitlab")
    ),
]

# Published for a scheme that no entry uses yet: the declarative verifier covers it all the same.
CIRCLECI = Scheme.model_validate(
    {
        "name": "hmac-sha256",
        "kind": "hmac",
        "header": "circleci-signature",
        "entries": {"delimiter": ",", "separator": "=", "version": "v1"},
    }
)
CIRCLECI_VECTORS = [
    ("secret", b"hello world", b"734cc62f32841568f45715aeb9f4d7891324e6d948e4c6c60c0621cdac48623a"),
    ("another-secret", b"lalala", b"daa220016c8f29a8b214fbfc3671aeec2145cfb1e6790184ffb38b6d0425fa00"),
    (
        "hunter123",
        b"an-important-request-payload",
        b"9be2242094a9a8c00c64306f382a7f9d691de910b4a266f67bd314ef18ac49fa",
    ),
]


def checks_of(scheme: Scheme, secret: str) -> list[Check]:
    material = scheme.key_of(secret)
    assert material is not None
    return [Check.of(Verifier(scheme, 300.0), [Key("it", material, float("-inf"), float("inf"))])]


def judged(vector: Vector, headers: dict[str, bytes], body: bytes, now: float) -> Proof | Refusal:
    scheme = CATALOGUE[vector.entry].schemes[vector.scheme]
    return verify(checks_of(scheme, vector.secret), headers, body, now)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.entry)
def test_published_signature_is_accepted(vector: Vector) -> None:
    proof = judged(vector, vector.headers, vector.body, vector.now)
    assert isinstance(proof, Proof)
    assert proof.scheme == "hmac-sha256"


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.entry)
def test_published_signature_of_another_body_is_refused(vector: Vector) -> None:
    assert judged(vector, vector.headers, vector.body + b" ", vector.now) is Refusal.SIGNATURE_INVALID


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.entry)
def test_every_shorter_signature_is_refused(vector: Vector) -> None:
    name = next(name for name in vector.headers if "signature" in name)
    for length in range(len(vector.headers[name])):
        headers = {**vector.headers, name: vector.headers[name][:length]}
        assert judged(vector, headers, vector.body, vector.now) is Refusal.SIGNATURE_INVALID


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.entry)
def test_no_signature_is_refused(vector: Vector) -> None:
    assert judged(vector, {}, vector.body, vector.now) is Refusal.SIGNATURE_MISSING


@pytest.mark.parametrize(("secret", "body", "signature"), CIRCLECI_VECTORS)
def test_circleci_vectors(secret: str, body: bytes, signature: bytes) -> None:
    checks = checks_of(CIRCLECI, secret)
    assert isinstance(verify(checks, {"circleci-signature": b"v1=" + signature}, body, 0.0), Proof)
    rotated = b"v1=" + b"0" * 64 + b",v2=ff,v1=" + signature
    assert isinstance(verify(checks, {"circleci-signature": rotated}, body, 0.0), Proof)
    for wrong in (b"v2=" + signature, signature, b"v1=" + signature.upper(), b""):
        assert verify(checks, {"circleci-signature": wrong}, body, 0.0) is Refusal.SIGNATURE_INVALID


TIMED = [vector for vector in VECTORS if vector.now]


@pytest.mark.parametrize("vector", TIMED, ids=lambda vector: vector.entry)
@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [
        (300.0, None),
        (-300.0, None),
        (300.1, Refusal.TIMESTAMP_EXPIRED),
        (-300.1, Refusal.TIMESTAMP_AHEAD),
    ],
)
def test_tolerance_is_five_minutes_both_ways(
    vector: Vector, offset_s: float, expected: Refusal | None
) -> None:
    found = judged(vector, vector.headers, vector.body, vector.now + offset_s)
    if expected is None:
        assert isinstance(found, Proof)
        assert found.skew_s == pytest.approx(offset_s)
    else:
        assert found is expected


@pytest.mark.parametrize("vector", TIMED, ids=lambda vector: vector.entry)
@pytest.mark.parametrize(
    "timestamp",
    [
        *(b"", b"abc", b"1614265330.9", b"1e9", b"1_614_265_330", b" 1614265330", b"1614265330\n"),
        *(b"+1614265330", b"-1", b"NaN", b"9" * 14, b"9" * 5000, "١٦١٤٢٦٥٣٣٠".encode(), b"\xff\xff"),
    ],
)
def test_timestamps_that_are_no_number_of_seconds(vector: Vector, timestamp: bytes) -> None:
    name = next(name for name in vector.headers if "timestamp" in name)
    headers = {**vector.headers, name: timestamp}
    assert judged(vector, headers, vector.body, vector.now) is Refusal.TIMESTAMP_MALFORMED
    del headers[name]
    assert judged(vector, headers, vector.body, vector.now) is Refusal.TIMESTAMP_MALFORMED
