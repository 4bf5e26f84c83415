"""The declarative verifier on hostile input: it accepts or refuses, and never raises."""

from __future__ import annotations

import base64
import hmac
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webhook.security.v1 import admission_pb2
from webhook_security import catalogue
from webhook_security.refusals import Refusal
from webhook_security.schemes import Scheme
from webhook_security.verify import Check, Key, Proof, Verifier, verify

ALWAYS = (float("-inf"), float("inf"))
CATALOGUE = catalogue.load("X-Webhook-Signature")
SCHEMES = [(entry, scheme) for entry, row in CATALOGUE.items() for scheme in row.schemes]
NAMES = [f"{entry}-{scheme.kind}-{scheme.begins}" for entry, scheme in SCHEMES]
SECRET = "a long and boring secret"
WHSEC = "whsec_" + base64.b64encode(bytes(range(24))).decode()
NOW = 1_700_000_000


class Signed(NamedTuple):
    headers: dict[str, bytes]
    body: bytes


def secret_of(scheme: Scheme) -> str:
    return WHSEC if scheme.key == "whsec" else SECRET


def checks_of(*schemes: Scheme) -> list[Check]:
    checks = []
    for scheme in schemes:
        material = scheme.key_of(secret_of(scheme))
        assert material is not None
        checks.append(Check.of(Verifier(scheme, 300.0), [Key("it", material, *ALWAYS)]))
    return checks


def signed(scheme: Scheme, body: bytes) -> Signed:
    """A right request, built from the scheme's data by another road than the verifier's."""
    if scheme.kind == "token":
        return Signed({scheme.header: SECRET.encode()}, body)
    headers: dict[str, bytes] = {}
    stamp = str(NOW).encode()
    message = scheme.signed.encode()
    if scheme.id_header:
        headers[scheme.id_header] = b"msg-1"
        message = message.replace(b"{id}", b"msg-1")
    if scheme.timestamp:
        if scheme.timestamp.header:
            headers[scheme.timestamp.header] = stamp
        message = message.replace(b"{timestamp}", stamp)
    key = scheme.key_of(secret_of(scheme))
    assert key is not None
    digest = hmac.digest(key, message.replace(b"{body}", body), scheme.algorithm)
    text = digest.hex().encode() if scheme.encoding == "hex" else base64.b64encode(digest)
    if scheme.entries:
        separator, delimiter = scheme.entries.separator.encode(), scheme.entries.delimiter.encode()
        text = scheme.entries.version.encode() + separator + text
        if scheme.timestamp and scheme.timestamp.entry:
            text = scheme.timestamp.entry.encode() + separator + stamp + delimiter + text
    headers[scheme.header] = scheme.prefix.encode() + text
    return Signed(headers, body)


def test_the_numbers_are_those_of_the_contract() -> None:
    ours = {f"REFUSAL_{refusal.name}": refusal.value for refusal in Refusal}
    theirs = dict(admission_pb2.Refusal.items())
    del theirs["REFUSAL_UNSPECIFIED"]
    assert ours == theirs


@pytest.mark.parametrize("scheme", [scheme for _, scheme in SCHEMES], ids=NAMES)
@given(body=st.binary(max_size=300))
def test_what_is_signed_is_accepted(scheme: Scheme, body: bytes) -> None:
    request = signed(scheme, body)
    proof = verify(checks_of(scheme), request.headers, request.body, NOW)
    assert isinstance(proof, Proof)
    assert (proof.scheme, proof.key_id) == (scheme.name, "it")
    assert proof.skew_s == (0.0 if scheme.timestamp else None)


@pytest.mark.parametrize("scheme", [scheme for _, scheme in SCHEMES], ids=NAMES)
@given(body=st.binary(min_size=1, max_size=100), data=st.data())
def test_any_flipped_bit_is_refused(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    request = signed(scheme, body)
    # A token covers nothing but itself.
    fields = [*request.headers] if scheme.kind == "token" else [*request.headers, "the body"]
    field = data.draw(st.sampled_from(fields))
    value = bytearray(request.body if field == "the body" else request.headers[field])
    bit = data.draw(st.integers(0, len(value) * 8 - 1))
    value[bit // 8] ^= 1 << bit % 8
    body = bytes(value) if field == "the body" else request.body
    headers = request.headers if field == "the body" else {**request.headers, field: bytes(value)}
    assert isinstance(verify(checks_of(scheme), headers, body, NOW), Refusal)


@pytest.mark.parametrize("scheme", [scheme for _, scheme in SCHEMES], ids=NAMES)
@given(values=st.lists(st.binary(max_size=200), min_size=3, max_size=3), body=st.binary(max_size=50))
def test_arbitrary_bytes_are_refused(scheme: Scheme, values: list[bytes], body: bytes) -> None:
    headers = dict(zip(scheme.headers, values, strict=False))
    assert isinstance(verify(checks_of(scheme), headers, body, NOW), Refusal)


@pytest.mark.parametrize("scheme", [scheme for _, scheme in SCHEMES if scheme.entries], ids=str)
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
