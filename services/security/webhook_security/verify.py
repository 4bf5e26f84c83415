"""Carries out any scheme on any bytes: a proof or a refusal, never an exception.

Signatures are compared in the form in which they are written: what we compute is encoded, what was sent is
never decoded. So there is one spelling of each signature, and no decoder to confuse.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from webhook_security.refusals import Refusal
from webhook_security.schemes import Scheme

MOST_SIGNATURES = 8
LONGEST_HEADER_BYTES = 8192

_TIMESTAMP = re.compile(rb"[0-9]{1,13}")
# Visible ASCII but the dot, which parts the fields of what is signed.
_MESSAGE_ID = re.compile(rb"[!-\-/-~]{1,256}")
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
    """

    scheme: str
    key_id: str
    skew_s: float | None


class _Signatures(NamedTuple):
    candidates: Sequence[bytes]
    timestamp: bytes | None


class Verifier:
    """A scheme, made ready to run.

    Args:
        scheme: The data.
        tolerance_s: How far a timestamp may be off where the scheme does not say, seconds.
    """

    def __init__(self, scheme: Scheme, tolerance_s: float) -> None:
        self.scheme = scheme
        self._name, self._header = scheme.name, scheme.header
        self._algorithm, self._is_hex = scheme.algorithm, scheme.encoding == "hex"
        self._is_token = scheme.kind == "token"
        self._begins = scheme.begins.encode()
        self._prefix = scheme.prefix.encode()
        self._entries = scheme.entries
        self._parts = tuple(part.encode() for part in scheme.parts())
        self._body_only = scheme.signed == "{body}"
        self._place = scheme.timestamp
        if self._place:
            past, future = self._place.past, self._place.future
            self._units_per_s = _UNITS_PER_S[self._place.unit]
            self.past_s = past.total_seconds() if past else tolerance_s
            self.future_s = future.total_seconds() if future else tolerance_s

    def is_meant(self, headers: Mapping[str, bytes]) -> bool:
        """Whether the sender offers this kind of proof."""
        value = headers.get(self._header)
        return value is not None and value.startswith(self._begins)

    def verify(
        self, headers: Mapping[str, bytes], body: bytes, keys: Sequence[Key], now: float
    ) -> Proof | Refusal:
        """Judge a delivery for which the scheme is meant.

        Args:
            headers: By lower-case name; each stood in the request once.
            body: As received.
            keys: That hold now.
            now: Unix seconds.
        """
        value = headers[self._header]
        if len(value) > LONGEST_HEADER_BYTES:
            return Refusal.HEADER_MALFORMED
        if self._is_token:
            return self._match(value, keys)
        signatures = self._read(value)
        if isinstance(signatures, Refusal):
            return signatures
        if self._body_only:
            return self._find(signatures.candidates, body, keys, None)
        return self._verify_fields(headers, body, keys, now, signatures)

    def _verify_fields(
        self,
        headers: Mapping[str, bytes],
        body: bytes,
        keys: Sequence[Key],
        now: float,
        signatures: _Signatures,
    ) -> Proof | Refusal:
        fields = {b"{body}": body}
        if self.scheme.id_header:
            message_id = headers.get(self.scheme.id_header, b"")
            if not _MESSAGE_ID.fullmatch(message_id):
                return Refusal.HEADER_MALFORMED
            fields[b"{id}"] = message_id
        skew_s: float | None = None
        if self._place:
            timestamp = headers.get(self._place.header) if self._place.header else signatures.timestamp
            if timestamp is None or not _TIMESTAMP.fullmatch(timestamp):
                return Refusal.TIMESTAMP_MALFORMED
            fields[b"{timestamp}"] = timestamp
            skew_s = now - int(timestamp) / self._units_per_s
        message = b"".join([fields.get(part, part) for part in self._parts])
        found = self._find(signatures.candidates, message, keys, skew_s)
        # Only who holds the secret learns anything about our clock.
        if skew_s is not None and not isinstance(found, Refusal):
            if skew_s > self.past_s:
                return Refusal.TIMESTAMP_EXPIRED
            if skew_s < -self.future_s:
                return Refusal.TIMESTAMP_AHEAD
        return found

    def _read(self, value: bytes) -> _Signatures | Refusal:
        if self._entries is None:
            if not value.startswith(self._prefix):
                return Refusal.SIGNATURE_INVALID
            return _Signatures((value[len(self._prefix) :],), None)
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
        return _Signatures(candidates, times[0] if times else None)

    def _find(
        self, candidates: Sequence[bytes], message: bytes, keys: Sequence[Key], skew_s: float | None
    ) -> Proof | Refusal:
        if not candidates:
            return Refusal.SIGNATURE_INVALID
        for key in keys:
            digest = hmac.digest(key.material, message, self._algorithm)
            expected = digest.hex().encode() if self._is_hex else base64.b64encode(digest)
            for candidate in candidates:
                if hmac.compare_digest(expected, candidate):
                    return Proof(self._name, key.key_id, skew_s)
        return Refusal.SIGNATURE_INVALID

    def _match(self, token: bytes, keys: Sequence[Key]) -> Proof | Refusal:
        for key in keys:
            if hmac.compare_digest(key.material, token):
                return Proof(self._name, key.key_id, None)
        return Refusal.SIGNATURE_INVALID


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


def verify(checks: Sequence[Check], headers: Mapping[str, bytes], body: bytes, now: float) -> Proof | Refusal:
    """Judge a delivery by the first scheme that has a live secret and is meant by the sender.

    A weaker scheme is not asked where a stronger one before it is meant: what is signed must be signed
    right, whatever else comes with it.

    Args:
        checks: First choice first.
        headers: By lower-case name; each stood in the request once.
        body: As received.
        now: Unix seconds.
    """
    refusal = Refusal.SECRET_UNAVAILABLE
    for check in checks:
        live = check.keys
        if not check.always:
            live = [key for key in live if key.not_before <= now < key.not_after]
        if live:
            if check.verifier.is_meant(headers):
                return check.verifier.verify(headers, body, live, now)
            refusal = Refusal.SIGNATURE_MISSING
    return refusal
