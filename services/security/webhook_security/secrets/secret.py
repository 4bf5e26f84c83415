"""The senders' secrets: named, read by reference, told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from webhook_shared.settings import read_secret

from webhook_security.settings import SecretEntry, as_unix

Values = Mapping[str, str]
"""Secret by reference; a reference that can't be read, or is blank, is not there."""


class Secret(NamedTuple):
    """One secret of a source, by reference.

    Attributes:
        key_id: What metrics, logs and the trust of an event call it.
        reference: Where its value is; tells it apart from every other secret.
        not_before: Unix seconds from which it holds.
        not_after: Unix seconds from which it no longer holds.
    """

    key_id: str
    reference: str
    not_before: float = float("-inf")
    not_after: float = float("inf")

    @classmethod
    def of(cls, entry: SecretEntry) -> Secret:
        """The secret that an entry of the configuration names."""
        bounds = as_unix(entry.not_before, float("-inf")), as_unix(entry.not_after, float("inf"))
        return cls(entry.name, entry.ref, *bounds)

    def holds(self, now: float) -> bool:
        """Whether it verifies at this moment, Unix seconds."""
        return self.not_before <= now < self.not_after


def digest(value: str) -> str:
    """Tells whether two secrets are the same one. It never leaves a sealed record or this process."""
    return hashlib.sha256(value.encode()).hexdigest()


def read(references: Iterable[str]) -> Values:
    """What the references say now. Blank counts as nothing: an empty secret is one that all know."""
    found: dict[str, str] = {}
    for reference in references:
        try:
            value = read_secret(reference)
        except ValueError:
            continue
        if value.strip():
            found[reference] = value
    return found
