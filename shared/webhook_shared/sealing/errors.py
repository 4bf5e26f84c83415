"""Why sealed bytes do not open."""

from __future__ import annotations


class EnvelopeError(Exception):
    """The bytes can't be opened."""


class Undecodable(EnvelopeError):
    """Tampered with, cut short, bound to something else, or never ours. Final."""


class UnknownFormat(EnvelopeError):
    """Of a suite or codec that this version does not know; a newer one may."""


class UnknownKey(EnvelopeError):
    """Sealed under a tenant key that the key table does not have (now)."""


class KeysDestroyed(UnknownKey):
    """All that the tenant's keys ever sealed is unreadable, on purpose."""

    def __init__(self) -> None:
        super().__init__("the tenant's keys have been destroyed")


class UnusableKey(UnknownKey):
    """The key table has the key, and it does not open: it was changed, or its master key is not here."""


class UnknownDictionary(UnknownKey):
    """Compressed with a dictionary that is not here (now); as with a key, `prepare` looks again."""
