"""Carries out any scheme on any bytes: a proof or a refusal, never an exception."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from webhook_security.payloads.fields import values_at
from webhook_security.refusals import Refusal
from webhook_security.verification.schemes import Scheme
from webhook_security.verification.signatures import matcher

MOST_SIGNATURES = 8
LONGEST_HEADER_BYTES = 8192

_TIMESTAMP = re.compile(rb"[0-9]{1,13}")
# Visible ASCII but the dot, which parts the fields of what is signed.
_MESSAGE_ID = re.compile(rb"[!-\-/-~]{1,256}")
_LATEST_TIMESTAMP = 10**13
_FOREVER = (float("-inf"), float("inf"))
_UNITS_PER_S = {"s": 1.0, "ms": 1000.0}


class Key(NamedTuple):
    """A secret made ready for one scheme.

    Attributes:
        key_id: Its public name.
        material: The bytes to sign or compare with.
        not_before: Unix seconds from which it holds.
        not_after: Unix seconds from which it no longer holds.
    """

    key_id: str
    material: bytes
    not_before: float
    not_after: float


class Proof(NamedTuple):
    """What verification established.

    Attributes:
        scheme: The scheme that passed.
        key_id: The secret that made it.
        skew_s: Our clock minus the signed time, seconds; None where no time is signed.
        signature: Over what is signed, as we write it; empty where nothing is.
    """

    scheme: str
    key_id: str
    skew_s: float | None
    signature: bytes = b""


Way = Callable[[Mapping[str, bytes], bytes, Sequence[Key], float], Proof | Refusal]
"""Judges headers (by lower-case name; each stood in the request once) and body (as received) by the keys
that hold now (Unix seconds)."""


class _Signatures(NamedTuple):
    candidates: Sequence[bytes]
    timestamp: bytes | None


class Verifier:
    """A scheme, made ready to run.

    Args:
        scheme: The data.
        tolerance_s: How far a timestamp may be off where the scheme does not say, seconds.

    Attributes:
        scheme: The data.
        verify: Judges a delivery for which the scheme is meant. SIGNATURE_MISSING means that it holds
            nothing of this scheme after all, so that another may be asked.
    """

    def __init__(self, scheme: Scheme, tolerance_s: float) -> None:
        self.scheme = scheme
        self._name, self._header = scheme.name, scheme.header
        self._begins = scheme.begins.encode()
        self._beside = scheme.beside
        self._prefix = scheme.prefix.encode()
        self._prefix_bytes = len(self._prefix)
        self._entries = scheme.entries
        self._field = _path(scheme.field)
        self._parts = tuple(part.encode() for part in scheme.parts())
        self._place = scheme.timestamp
        self._time_field = _path(scheme.timestamp.field) if scheme.timestamp else ()
        self._matches = matcher(scheme)
        self.verify: Way = self._way()
        if self._place:
            past, future = self._place.past, self._place.future
            self._units_per_s = _UNITS_PER_S[self._place.unit]
            self.past_s = past.total_seconds() if past else tolerance_s
            self.future_s = future.total_seconds() if future else tolerance_s

    def _way(self) -> Way:
        scheme = self.scheme
        if scheme.kind in {"token", "basic"}:
            return self._verify_field if scheme.field else self._verify_token
        if scheme.signed == "{body}" and not scheme.entries and not scheme.timestamp:
            return self._verify_body
        return self._verify_message

    def is_meant(self, headers: Mapping[str, bytes]) -> bool:
        """Whether the sender offers this kind of proof."""
        value = headers.get(self._header)
        if value is None:
            return bool(self._field)
        if self._beside and not all(name in headers for name in self._beside):
            return False
        return value.startswith(self._begins)

    def _verify_body(
        self, headers: Mapping[str, bytes], body: bytes, keys: Sequence[Key], now: float
    ) -> Proof | Refusal:
        value = headers[self._header]
        if len(value) > LONGEST_HEADER_BYTES:
            return Refusal.HEADER_MALFORMED
        if not value.startswith(self._prefix):
            return Refusal.SIGNATURE_INVALID
        candidates = (value[self._prefix_bytes :],)
        for key in keys:
            if signature := self._matches(key.material, body, candidates):
                return Proof(self._name, key.key_id, None, signature)
        return Refusal.SIGNATURE_INVALID

    def _verify_message(
        self, headers: Mapping[str, bytes], body: bytes, keys: Sequence[Key], now: float
    ) -> Proof | Refusal:
        value = headers[self._header]
        if len(value) > LONGEST_HEADER_BYTES:
            return Refusal.HEADER_MALFORMED
        signatures = self._read(value)
        if isinstance(signatures, Refusal):
            return signatures
        fields = {b"{body}": body}
        if self.scheme.id_header:
            message_id = headers.get(self.scheme.id_header, b"")
            if not _MESSAGE_ID.fullmatch(message_id):
                return Refusal.HEADER_MALFORMED
            fields[b"{id}"] = message_id
        if self._place and not self._time_field:
            timestamp = headers.get(self._place.header) if self._place.header else signatures.timestamp
            if timestamp is None or not _TIMESTAMP.fullmatch(timestamp):
                return Refusal.TIMESTAMP_MALFORMED
            fields[b"{timestamp}"] = timestamp
        message = b"".join([fields.get(part, part) for part in self._parts])
        for key in keys:
            if signature := self._matches(key.material, message, signatures.candidates):
                return self._timely(key, signature, fields, now)
        return Refusal.SIGNATURE_INVALID

    def _timely(
        self, key: Key, signature: bytes, fields: Mapping[bytes, bytes], now: float
    ) -> Proof | Refusal:
        # After the signature: only who holds the secret learns anything about our clock.
        if not self._place:
            return Proof(self._name, key.key_id, None, signature)
        if self._time_field:
            stamp = _whole_number(values_at(_document(fields[b"{body}"]), self._time_field))
            if stamp is None:
                return Refusal.TIMESTAMP_MALFORMED
        else:
            stamp = int(fields[b"{timestamp}"])
        skew_s = now - stamp / self._units_per_s
        if skew_s > self.past_s:
            return Refusal.TIMESTAMP_EXPIRED
        if skew_s < -self.future_s:
            return Refusal.TIMESTAMP_AHEAD
        return Proof(self._name, key.key_id, skew_s, signature)

    def _read(self, value: bytes) -> _Signatures | Refusal:
        if self._entries is None:
            if not value.startswith(self._prefix):
                return Refusal.SIGNATURE_INVALID
            return _Signatures((value[self._prefix_bytes :],), None)
        entries = value.split(self._entries.delimiter.encode(), MOST_SIGNATURES)
        if len(entries) > MOST_SIGNATURES:
            return Refusal.HEADER_MALFORMED
        version = self._entries.version.encode()
        time_entry = self._place.entry.encode() if self._place else b""
        candidates: list[bytes] = []
        times: list[bytes] = []
        for entry in entries:
            name, _, rest = entry.partition(self._entries.separator.encode())
            if name == version:
                candidates.append(rest)
            elif time_entry and name == time_entry:
                times.append(rest)
        if len(times) > 1:
            return Refusal.HEADER_MALFORMED
        if not candidates:
            return Refusal.SIGNATURE_MISSING
        return _Signatures(candidates, times[0] if times else None)

    def _verify_token(
        self, headers: Mapping[str, bytes], body: bytes, keys: Sequence[Key], now: float
    ) -> Proof | Refusal:
        value = headers[self._header]
        if len(value) > LONGEST_HEADER_BYTES:
            return Refusal.HEADER_MALFORMED
        if value[: self._prefix_bytes].lower() != self._prefix.lower():
            return Refusal.SIGNATURE_MISSING
        return self._shown((value[self._prefix_bytes :],), keys)

    def _verify_field(
        self, headers: Mapping[str, bytes], body: bytes, keys: Sequence[Key], now: float
    ) -> Proof | Refusal:
        found = values_at(_document(body), self._field)
        if not found:
            return Refusal.SIGNATURE_MISSING
        tokens = [value.encode() for value in found if value.__class__ is str]
        return self._shown(tokens, keys) if len(tokens) == len(found) else Refusal.SIGNATURE_INVALID

    def _shown(self, tokens: Sequence[bytes], keys: Sequence[Key]) -> Proof | Refusal:
        for key in keys:
            if all(hmac.compare_digest(key.material, token) for token in tokens):
                return Proof(self._name, key.key_id, None)
        return Refusal.SIGNATURE_INVALID


def _path(place: str) -> tuple[str, ...]:
    return tuple(place.split(".")) if place else ()


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _whole_number(values: Sequence[Any]) -> int | None:
    if len(values) != 1 or values[0].__class__ is not int:
        return None
    return int(values[0]) if 0 <= values[0] < _LATEST_TIMESTAMP else None


class Check(NamedTuple):
    """A scheme of a source with the secrets that fit it.

    Attributes:
        verifier: The scheme.
        keys: The secrets.
        always: No secret has a beginning or an end.
    """

    verifier: Verifier
    keys: Sequence[Key]
    always: bool

    @classmethod
    def of(cls, verifier: Verifier, keys: Sequence[Key]) -> Check:
        """The check of these secrets."""
        return cls(verifier, keys, all(key[2:] == _FOREVER for key in keys))

    def live(self, now: float) -> Sequence[Key]:
        """The secrets that hold now (Unix seconds)."""
        return [key for key in self.keys if key.not_before <= now < key.not_after]


def verify(
    checks: Sequence[Check],
    headers: Mapping[str, bytes],
    body: bytes,
    now: float,
    received: float | None = None,
) -> Proof | Refusal:
    """Judge a delivery by the first scheme that has a live secret and is meant by the sender.

    A weaker scheme is not asked where a stronger one before it is meant: what is signed must be signed
    right, whatever else comes with it.

    Args:
        checks: First choice first.
        headers: By lower-case name; each stood in the request once.
        body: As received.
        now: Unix seconds; the secrets are those that hold then.
        received: What signed times are held against, where the delivery came earlier than now.
    """
    refusal = Refusal.SECRET_UNAVAILABLE
    for check in checks:
        live = check.keys if check.always else check.live(now)
        if live:
            if check.verifier.is_meant(headers):
                found = check.verifier.verify(headers, body, live, now if received is None else received)
                if found is not Refusal.SIGNATURE_MISSING:
                    return found
            refusal = Refusal.SIGNATURE_MISSING
    return refusal
