"""The declarative verifier on hostile input: it accepts or refuses, and never raises."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webhook.security.v1 import admission_pb2
from webhook_security import catalogue
from webhook_security.refusals import Refusal
from webhook_security.verification.schemes import Scheme
from webhook_security.verification.verify import Check, Key, Proof, Verifier, verify

from services.security.tests.proofs import ALWAYS, NOW, PRIVATE, SECRET, SECRETS, WHSEC, checks_of, signed

CATALOGUE = catalogue.load("X-Webhook-Signature")
SCHEMES = [(entry, scheme) for entry, row in CATALOGUE.items() for scheme in row.schemes]
ALL = [scheme for _, scheme in SCHEMES]
NAMES = [f"{entry}-{scheme.name}-{scheme.begins}" for entry, scheme in SCHEMES]
# Each scheme has its own run of each property, so that few examples of each make many.
FEW = settings(max_examples=12)


def test_the_numbers_are_those_of_the_contract() -> None:
    ours = {f"REFUSAL_{refusal.name}": refusal.value for refusal in Refusal}
    theirs = dict(admission_pb2.Refusal.items())
    del theirs["REFUSAL_UNSPECIFIED"]
    assert ours == theirs


@pytest.mark.parametrize("scheme", ALL, ids=NAMES)
@FEW
@given(body=st.binary(max_size=300))
def test_what_is_signed_is_accepted(scheme: Scheme, body: bytes) -> None:
    request = signed(scheme, body)
    proof = verify(checks_of(scheme), request.headers, request.body, NOW)
    assert isinstance(proof, Proof)
    assert (proof.scheme, proof.key_id) == (scheme.name, "it")
    assert proof.skew_s == (0.0 if scheme.timestamp else None)


@pytest.mark.parametrize("scheme", ALL, ids=NAMES)
@FEW
@given(body=st.binary(min_size=1, max_size=100), data=st.data())
def test_any_flipped_bit_is_refused(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    request = signed(scheme, body)
    places = {name: bytearray(value) for name, value in request.headers.items()}
    places["the body"] = bytearray(request.body)
    first, end = 0, 0
    if scheme.kind in {"token", "basic"}:
        # A token covers nothing but itself; HTTP writes "Basic" in any case.
        field = scheme.header or "the body"
        value = bytes(places[field])
        shown = SECRET.encode() if scheme.kind == "token" else base64.b64encode(SECRET.encode())
        first = value.index(shown)
        end = first + len(shown)
    else:
        field = data.draw(st.sampled_from([name for name, value in places.items() if value]))
        end = len(places[field])
    bit = data.draw(st.integers(first * 8, end * 8 - 1))
    places[field][bit // 8] ^= 1 << bit % 8
    changed = bytes(places.pop("the body"))
    headers = {name: bytes(value) for name, value in places.items()}
    assert isinstance(verify(checks_of(scheme), headers, changed, NOW), Refusal)


@pytest.mark.parametrize("scheme", ALL, ids=NAMES)
@FEW
@given(values=st.lists(st.binary(max_size=200), min_size=4, max_size=4), body=st.binary(max_size=50))
def test_arbitrary_bytes_are_refused(scheme: Scheme, values: list[bytes], body: bytes) -> None:
    headers = dict(zip(scheme.headers, values, strict=False))
    assert isinstance(verify(checks_of(scheme), headers, body, NOW), Refusal)


@FEW
@given(text=st.text(max_size=60), value=st.none() | st.integers() | st.text() | st.lists(st.integers()))
def test_a_secret_is_one_or_is_none(text: str, value: Any) -> None:
    body = json.dumps({"value": value, "webhookTimestamp": value}).encode()
    for scheme in ALL:
        headers = dict.fromkeys(scheme.headers, b"v1a,AAAA")
        for secret in (text, f"whsec_{text}", f"whpk_{text}"):
            material = scheme.key_of(secret)
            if material:
                check = Check.of(Verifier(scheme, 300.0), [Key("k", material, *ALWAYS)])
                assert isinstance(verify([check], headers, body, NOW), Refusal)


LISTED = {name: scheme for name, scheme in zip(NAMES, ALL, strict=True) if scheme.entries}


@pytest.mark.parametrize("scheme", LISTED.values(), ids=list(LISTED))
@FEW
@given(entries=st.lists(st.sampled_from([b"v1,AAAA", b"v1=00", b"v1,", b"t=1", b"", b"=", b",", b"v2,x"])))
def test_arbitrary_lists_are_refused(scheme: Scheme, entries: list[bytes]) -> None:
    assert scheme.entries
    request = signed(scheme, b"{}")
    value = scheme.entries.delimiter.encode().join(entries)
    headers = {**request.headers, scheme.header: scheme.begins.encode() + value}
    assert isinstance(verify(checks_of(scheme), headers, b"{}", NOW), Refusal)


STANDARD = CATALOGUE["standard-webhooks"].schemes[0]


def standard_with(*entries: bytes) -> Proof | Refusal:
    request = signed(STANDARD, b"{}")
    headers = {**request.headers, STANDARD.header: b" ".join(entries)}
    return verify(checks_of(STANDARD), headers, b"{}", NOW)


def right_entry() -> bytes:
    return signed(STANDARD, b"{}").headers[STANDARD.header]


def test_a_right_signature_among_bad_ones_is_found() -> None:
    found = standard_with(b"garbage", b"", b"v1", b"v1,!!!!", b"v1a,abc", b"v1,AAAA=", right_entry())
    assert isinstance(found, Proof)


def test_more_than_eight_signatures_are_not_looked_at() -> None:
    assert isinstance(standard_with(*[b"v1,AAAA"] * 7, right_entry()), Proof)
    assert standard_with(*[b"v1,AAAA"] * 8, right_entry()) is Refusal.HEADER_MALFORMED
    assert standard_with(*[b"v1,AAAA"] * 1170) is Refusal.HEADER_MALFORMED


def test_a_list_without_a_signature_of_ours_shows_none() -> None:
    assert standard_with(b"v2,AAAA") is Refusal.SIGNATURE_MISSING


def test_a_signature_header_has_at_most_8_kib() -> None:
    assert standard_with(b"v1," + b"A" * 8189) is Refusal.SIGNATURE_INVALID
    assert standard_with(b"v1," + b"A" * 8190) is Refusal.HEADER_MALFORMED


@pytest.mark.parametrize("spelling", [b"%s\n", b"%s ", b" %s", b"!%s", b"%s=", b"%s,"])
def test_base64_has_one_spelling(spelling: bytes) -> None:
    text = right_entry().removeprefix(b"v1,")
    # A space parts two entries, so it leaves the right one whole.
    if b" " in spelling:
        assert standard_with(b"v1," + text.replace(b"=", b" =")) is Refusal.SIGNATURE_INVALID
    else:
        assert standard_with(b"v1," + spelling % text) is Refusal.SIGNATURE_INVALID


def test_spare_bits_of_base64_count() -> None:
    text = right_entry()
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(text[-2:-1])
    other = alphabet[last ^ 1 : (last ^ 1) + 1]
    assert standard_with(text[:-2] + other + b"=") is Refusal.SIGNATURE_INVALID


def test_a_message_id_has_no_dot() -> None:
    # "a.1" + "2" and "a" + "1.2" would sign the same bytes.
    request = signed(STANDARD, b"{}")
    for message_id in (b"a.b", b"", b"a b", b"\xff", b"x" * 257):
        headers = {**request.headers, "webhook-id": message_id}
        assert verify(checks_of(STANDARD), headers, b"{}", NOW) is Refusal.HEADER_MALFORMED


def test_two_timestamps_in_one_list_are_malformed() -> None:
    scheme = CATALOGUE["generic"].schemes[0]
    request = signed(scheme, b"{}")
    headers = {scheme.header: b"t=%d," % NOW + request.headers[scheme.header]}
    assert verify(checks_of(scheme), headers, b"{}", NOW) is Refusal.HEADER_MALFORMED


def test_a_forged_signature_is_not_saved_by_a_right_token() -> None:
    signature, token = CATALOGUE["gitlab"].schemes
    request = signed(signature, b"{}")
    shown = signed(token, b"{}").headers
    both = checks_of(signature, token)
    found = verify(both, {**request.headers, **shown}, b"{}", NOW)
    assert isinstance(found, Proof)
    assert found.scheme == "hmac-sha256"
    forged = {**request.headers, **shown, "webhook-signature": b"v1,AAAA"}
    assert verify(both, forged, b"{}", NOW) is Refusal.SIGNATURE_INVALID
    only_token = verify(both, shown, b"{}", NOW)
    assert isinstance(only_token, Proof)
    assert only_token.scheme == "token"


def test_a_signing_secret_is_never_a_token() -> None:
    _, token = CATALOGUE["gitlab"].schemes
    assert token.key_of(WHSEC) is None
    assert STANDARD.key_of("whsec_not base64!") is None
    assert STANDARD.key_of("whsec_") is None
    assert STANDARD.key_of("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") is None


def test_without_a_secret_it_is_our_fault() -> None:
    request = signed(STANDARD, b"{}")
    assert verify([], request.headers, b"{}", NOW) is Refusal.SECRET_UNAVAILABLE
    material = STANDARD.key_of(WHSEC)
    assert material
    gone = [Check.of(Verifier(STANDARD, 300.0), [Key("old", material, float("-inf"), NOW)])]
    assert verify(gone, request.headers, b"{}", NOW) is Refusal.SECRET_UNAVAILABLE
    coming = [Check.of(Verifier(STANDARD, 300.0), [Key("new", material, NOW + 1, float("inf"))])]
    assert verify(coming, request.headers, b"{}", NOW) is Refusal.SECRET_UNAVAILABLE


STANDARD_ED25519 = CATALOGUE["standard-webhooks"].schemes[1]


def test_whichever_of_two_keys_signed_is_found() -> None:
    both = checks_of(STANDARD, STANDARD_ED25519)
    for scheme in (STANDARD, STANDARD_ED25519):
        request = signed(scheme, b"{}")
        found = verify(both, request.headers, b"{}", NOW)
        assert isinstance(found, Proof)
        assert found.scheme == scheme.name
    # What is signed by the first must be right, whatever the second says.
    other = signed(STANDARD_ED25519, b"{}").headers
    headers = {**other, "webhook-signature": b"v1,AAAA " + other["webhook-signature"]}
    assert verify(both, headers, b"{}", NOW) is Refusal.SIGNATURE_INVALID


@pytest.mark.parametrize("spelling", [b"%s\n", b"!%s", b"%s=", b"%s,", b"%s%s"])
def test_an_ed25519_signature_has_one_spelling(spelling: bytes) -> None:
    request = signed(STANDARD_ED25519, b"{}")
    text = request.headers["webhook-signature"].removeprefix(b"v1a,")
    written = spelling.replace(b"%s", text)
    headers = {**request.headers, "webhook-signature": b"v1a," + written}
    assert verify(checks_of(STANDARD_ED25519), headers, b"{}", NOW) is Refusal.SIGNATURE_INVALID
    unpadded = text.rstrip(b"=")
    headers["webhook-signature"] = b"v1a," + unpadded
    assert verify(checks_of(STANDARD_ED25519), headers, b"{}", NOW) is Refusal.SIGNATURE_INVALID


def test_a_public_key_is_no_secret() -> None:
    public = SECRETS["whpk"]
    assert all(scheme.key_of(public) is None for scheme in ALL if scheme.kind in {"hmac", "token"})
    assert STANDARD_ED25519.key_of("whpk_" + base64.b64encode(b"short").decode()) is None
    assert STANDARD_ED25519.key_of(WHSEC) is None


@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_ed25519_as_others_write_it(encoding: str) -> None:
    scheme = Scheme.model_validate(
        {
            "kind": "ed25519",
            "header": "X-Signature-Ed25519",
            "encoding": encoding,
            "key": "hex",
            "signed": "{timestamp}{body}",
            "timestamp": {"header": "X-Signature-Timestamp"},
        }
    )
    made = PRIVATE.sign(b"%d{}" % NOW)
    text = {
        "hex": made.hex().encode(),
        "base64": base64.b64encode(made),
        "base64url": base64.urlsafe_b64encode(made).rstrip(b"="),
    }[encoding]
    headers = {"x-signature-ed25519": text, "x-signature-timestamp": str(NOW).encode()}
    assert isinstance(verify(checks_of(scheme), headers, b"{}", NOW), Proof)
    assert verify(checks_of(scheme), headers, b"{ }", NOW) is Refusal.SIGNATURE_INVALID


BASIC = CATALOGUE["azure-devops"].schemes[0]


def basic(value: bytes, secret: str = "hook:pass:word") -> Proof | Refusal:
    return verify(checks_of(BASIC, secret=secret), {"authorization": value}, b"{}", NOW)


def test_basic() -> None:
    right = base64.b64encode(b"hook:pass:word")
    for written in (b"Basic ", b"basic ", b"BASIC "):
        assert isinstance(basic(written + right), Proof)
    for wrong in (right[:-2], right[:-1], right + b" ", b"", base64.b64encode(b"hook:pass")):
        assert basic(b"Basic " + wrong) is Refusal.SIGNATURE_INVALID
    for other in (b"Bearer " + right, right, b"Basic", b""):
        assert basic(other) is Refusal.SIGNATURE_MISSING
    assert basic(b"Basic " + b"A" * 9000) is Refusal.HEADER_MALFORMED
    assert BASIC.key_of("a password without a user") is None


def test_a_token_after_a_word() -> None:
    scheme = Scheme.model_validate({"kind": "token", "header": "Authorization", "prefix": "Bearer "})
    checks = checks_of(scheme)
    assert isinstance(verify(checks, {"authorization": b"bearer " + SECRET.encode()}, b"{}", NOW), Proof)
    found = verify(checks, {"authorization": b"Bearer " + SECRET.upper().encode()}, b"{}", NOW)
    assert found is Refusal.SIGNATURE_INVALID
    assert verify(checks, {"authorization": SECRET.encode()}, b"{}", NOW) is Refusal.SIGNATURE_MISSING


GRAPH = CATALOGUE["microsoft-graph"].schemes[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"clientState": SECRET}], None),
        ([{"clientState": SECRET, "a": 1}, {"clientState": SECRET}], None),
        ([{"clientState": SECRET}, {"clientState": "another"}], Refusal.SIGNATURE_INVALID),
        ([{"clientState": SECRET}, {}], Refusal.SIGNATURE_INVALID),
        ([{"clientState": SECRET}, {"clientState": None}], Refusal.SIGNATURE_INVALID),
        ([{"clientState": SECRET}, 7], Refusal.SIGNATURE_INVALID),
        ([{"clientState": [SECRET]}], Refusal.SIGNATURE_INVALID),
        ([{"clientState": SECRET[:-1]}], Refusal.SIGNATURE_INVALID),
        ([{"clientState": ""}], Refusal.SIGNATURE_INVALID),
        ([], Refusal.SIGNATURE_MISSING),
        ({"clientState": SECRET}, Refusal.SIGNATURE_MISSING),
        (SECRET, Refusal.SIGNATURE_MISSING),
    ],
)
def test_every_token_in_a_body_must_be_right(value: Any, expected: Refusal | None) -> None:
    found = verify(checks_of(GRAPH), {}, json.dumps({"value": value}).encode(), NOW)
    assert found is expected if expected else isinstance(found, Proof)


def test_a_body_that_is_no_json_holds_no_token() -> None:
    for body in (b"", b"{", b"[" * 5000, b"\xff", b'"' + SECRET.encode() + b'"'):
        assert verify(checks_of(GRAPH), {}, body, NOW) is Refusal.SIGNATURE_MISSING


LINEAR = CATALOGUE["linear"].schemes[0]


@pytest.mark.parametrize(
    ("offset_s", "expected"),
    [(60, None), (-60, None), (61, Refusal.TIMESTAMP_EXPIRED), (-61, Refusal.TIMESTAMP_AHEAD)],
)
def test_a_time_in_the_body(offset_s: int, expected: Refusal | None) -> None:
    request = signed(LINEAR, b"x")
    found = verify(checks_of(LINEAR), request.headers, request.body, NOW + offset_s)
    assert found is expected if expected else isinstance(found, Proof)


@pytest.mark.parametrize("stamp", ["1700000000000", 1.7e12, None, True, -1, 10**13, [NOW], {}])
def test_a_signed_body_whose_time_is_none(stamp: Any) -> None:
    plain = Scheme.model_validate({"kind": "hmac", "header": "Linear-Signature"})
    for body in (json.dumps({"webhookTimestamp": stamp}).encode(), b"{}", b"not json", b"[]"):
        headers = signed(plain, body).headers
        assert verify(checks_of(LINEAR), headers, body, NOW) is Refusal.TIMESTAMP_MALFORMED


def test_a_scheme_may_want_another_header_beside() -> None:
    timed, plain = CATALOGUE["grafana"].schemes
    both = checks_of(timed, plain)
    with_time, without = signed(timed, b"{}"), signed(plain, b"{}")
    assert isinstance(verify(both, with_time.headers, b"{}", NOW), Proof)
    assert isinstance(verify(both, without.headers, b"{}", NOW), Proof)
    assert verify(both, with_time.headers, b"{}", NOW + 301) is Refusal.TIMESTAMP_EXPIRED
    stripped = {timed.header: with_time.headers[timed.header]}
    assert verify(both, stripped, b"{}", NOW) is Refusal.SIGNATURE_INVALID
