"""Signatures that the senders published themselves, and each with one thing wrong."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from webhook_security import catalogue
from webhook_security.refusals import Refusal
from webhook_security.verification.handshakes import Handshake, Reply
from webhook_security.verification.schemes import Scheme
from webhook_security.verification.verify import Check, Key, Proof, Verifier, verify

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
        "bitbucket",
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
        # Too short for even the name of a version, it shows nothing at all.
        expected = {Refusal.SIGNATURE_INVALID, Refusal.SIGNATURE_MISSING}
        assert judged(vector, headers, vector.body, vector.now) in expected


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.entry)
def test_no_signature_is_refused(vector: Vector) -> None:
    assert judged(vector, {}, vector.body, vector.now) is Refusal.SIGNATURE_MISSING


@pytest.mark.parametrize(("secret", "body", "signature"), CIRCLECI_VECTORS)
def test_circleci_vectors(secret: str, body: bytes, signature: bytes) -> None:
    checks = checks_of(CATALOGUE["circleci"].schemes[0], secret)
    assert isinstance(verify(checks, {"circleci-signature": b"v1=" + signature}, body, 0.0), Proof)
    rotated = b"v1=" + b"0" * 64 + b",v2=ff,v1=" + signature
    assert isinstance(verify(checks, {"circleci-signature": rotated}, body, 0.0), Proof)
    upper = {"circleci-signature": b"v1=" + signature.upper()}
    assert verify(checks, upper, body, 0.0) is Refusal.SIGNATURE_INVALID
    for none in (b"v2=" + signature, signature, b""):
        assert verify(checks, {"circleci-signature": none}, body, 0.0) is Refusal.SIGNATURE_MISSING


# Convoy's, for all its libraries: algorithm, encoding, header, tolerance in seconds, and whether it is right.
CONVOY_SECRET = "convoy-webhook-secret"
CONVOY_BODY = b'{"event":"charge.success","amount":1000,"currency":"NGN"}'
CONVOY_HEX = "77b8b9269f25a199846a55a2bd25b3fba151c70fdae60bb1dcd87fbbc943c55c"
CONVOY_OTHER = "449623e4897bbde05e35358293f97b8c2f697367ffa3e7466e98178dfba44d19"
CONVOY_THIRD = "c7eff1833c41a2ce2e195599451b240cd282b1bc9fa387e428a9fd5a5dc74933"
CONVOY_SHA512 = (
    "6cc772dc81942ae1b5ffa91c3a6a07b0d37edc8dc6bd83e3518a219f1f19ff71"
    "ae1b76d6b320940d414c236a1aad7f7930b63e0f1928951955d31219545e1b66"
)
CONVOY_LISTED_SHA512 = (
    "b2122e252cd2582cf225cb2b8d4ceede9e34329e2fe95c02619c3ed5d4a3d9a7"
    "3e6beaf2dff8e76d71a693ae198cee40685eed12ad4ee2e033dc2d0399ede057"
)
CENTURY_S = 3_153_600_000
CONVOY_SIMPLE = [
    ("sha256", "hex", "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb4", True),
    ("sha256", "base64", "JERJt/SMvCcJBgydzcKzqkenj1QEMFeQFcV5+xLe+7Q=", True),
    ("sha512", "hex", CONVOY_SHA512, True),
    (
        "sha512",
        "base64",
        "bMdy3IGUKuG1/6kcOmoHsNN+3I3GvYPjUYohnx8Z/3GuG3bWsyCUDUFMI2oarX95MLY+DxkolRlV0xIZVF4bZg==",
        True,
    ),
    ("sha256", "hex", "244449b7f48cbc2709060c9dcdc2b3aa47a78f540430579015c579fb12defbb0", False),
]
CONVOY_LISTED = [
    ("sha256", "hex", f"t=1700000000,v1={CONVOY_HEX}", CENTURY_S, True),
    ("sha256", "base64", "t=1700000000,v1=d7i5Jp8loZmEalWivSWz+6FRxw/a5gux3Nh/u8lDxVw=", CENTURY_S, True),
    ("sha512", "hex", f"t=1700000000,v1={CONVOY_LISTED_SHA512}", CENTURY_S, True),
    (
        "sha512",
        "base64",
        (
            "t=1700000000,v1="
            "shIuJSzSWCzyJcsrjUzu3p40Mp4v6VwCYZw+1dSj2ac+a+ry3/jnbXGmk64ZjO5AaF7tEq1O4uAz3C0Dme3gVw=="
        ),
        CENTURY_S,
        True,
    ),
    ("sha256", "hex", f"t=1700000000,v1={CONVOY_HEX[:-1]}0", CENTURY_S, False),
    ("sha256", "hex", f"t=1700000000,v1={CONVOY_HEX}", 300, False),
    ("sha256", "hex", f"v1={CONVOY_HEX},t=1700000000", CENTURY_S, True),
    ("sha256", "hex", f"t=1700000000,v1={CONVOY_OTHER},v1={CONVOY_HEX}", CENTURY_S, True),
    ("sha256", "hex", f"t=1700000000,v1={CONVOY_OTHER},v1={CONVOY_THIRD}", CENTURY_S, False),
    ("sha256", "hex", f"t=Infinity,v1={CONVOY_HEX}", CENTURY_S, False),
    ("sha256", "hex", "t=1700000000,v1=1234567890", CENTURY_S, False),
    ("sha256", "hex", f"v1={CONVOY_HEX},v2={CONVOY_HEX}", CENTURY_S, False),
]


@pytest.mark.parametrize(("algorithm", "encoding", "header", "right"), CONVOY_SIMPLE)
def test_convoy_simple(algorithm: str, encoding: str, header: str, right: bool) -> None:
    scheme = Scheme.model_validate(
        {"kind": "hmac", "header": "X-Convoy-Signature", "algorithm": algorithm, "encoding": encoding}
    )
    headers = {"x-convoy-signature": header.encode()}
    assert isinstance(verify(checks_of(scheme, CONVOY_SECRET), headers, CONVOY_BODY, 0.0), Proof) is right


@pytest.mark.parametrize(("algorithm", "encoding", "header", "tolerance_s", "right"), CONVOY_LISTED)
def test_convoy_listed(algorithm: str, encoding: str, header: str, tolerance_s: int, right: bool) -> None:
    scheme = Scheme.model_validate(
        {
            "kind": "hmac",
            "header": "X-Convoy-Signature",
            "algorithm": algorithm,
            "encoding": encoding,
            "entries": {"delimiter": ",", "separator": "=", "version": "v1"},
            "signed": "{timestamp},{body}",
            "timestamp": {"entry": "t", "past": f"{tolerance_s}s"},
        }
    )
    headers = {"x-convoy-signature": header.encode()}
    # Three years after the vectors were made.
    found = verify(checks_of(scheme, CONVOY_SECRET), headers, CONVOY_BODY, 1_795_000_000.0)
    assert isinstance(found, Proof) is right


# RFC 8032, 7.1: TEST 2 and TEST 3.
ED25519_VECTORS = [
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


@pytest.mark.parametrize(("public", "body", "signature"), ED25519_VECTORS)
def test_ed25519_vectors(public: str, body: bytes, signature: str) -> None:
    scheme = Scheme.model_validate({"kind": "ed25519", "header": "X-Signature", "key": "hex"})
    checks = checks_of(scheme, public)
    assert isinstance(verify(checks, {"x-signature": signature.encode()}, body, 0.0), Proof)
    for wrong in (signature[:-2] + "ff", signature[:-2], signature + "00", signature.upper(), ""):
        assert verify(checks, {"x-signature": wrong.encode()}, body, 0.0) is Refusal.SIGNATURE_INVALID
    assert verify(checks, {"x-signature": signature.encode()}, body + b"x", 0.0) is Refusal.SIGNATURE_INVALID


def test_twitter_challenge_vector() -> None:
    row = CATALOGUE["twitter"]
    assert row.handshake
    reply = Handshake(row.handshake).reply("uzwcfYtzr9", checks_of(row.schemes[0], "Convoy"), 0.0)
    assert isinstance(reply, Reply)
    assert reply.content_type == "application/json"
    assert reply.body == b'{"response_token":"sha256=HXvxTdsfShG6k2zC9NVANwFquJBdOugRYHax2vNiiOo="}'


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
