"""What a rotation leaves behind: secrets that were added, and the ends of older ones.

An end belongs to a value, not to a name: where an operator puts another secret behind a reference whose
old one was ended, the new one holds; the old one stays ended under whatever name it comes back.
"""

from __future__ import annotations

import base64
import secrets as randomness
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from webhook_security.secrets.secret import Secret, Values, digest

ADDED_PREFIX = "stored:"
MINTED_BYTES = 32


class Record(NamedTuple):
    """One secret, as far as rotations have to do with it.

    Attributes:
        tool: The source, within the tenant.
        name: Of the record, within the source.
        key_id: Of the secret.
        added: A rotation brought it; False: it is configured elsewhere, and only its end is recorded.
        value: The secret; empty where it is configured elsewhere, or has been retired.
        digest: Of the value that this speaks of.
        created: Unix seconds; the order in which they came.
        not_after: Unix seconds from which it no longer holds; None: no end.
    """

    tool: str
    name: str
    key_id: str
    added: bool
    value: str
    digest: str
    created: float
    not_after: float | None

    @classmethod
    def adding(cls, tool: str, key_id: str, value: str, now: float) -> Record:
        """A new secret, which has no end."""
        return cls(tool, key_id, key_id, True, value, digest(value), now, None)

    @classmethod
    def ended(cls, tool: str, key_id: str, value: str, now: float) -> Record:
        """The beginning of the end of a secret that is configured elsewhere."""
        return cls(tool, f"end-{randomness.token_hex(8)}", key_id, False, "", digest(value), now, None)

    def ending(self, not_after: float) -> Record:
        """The same, holding no longer than that."""
        return self._replace(not_after=min(_end(self), not_after))

    def retired(self, now: float) -> Record:
        """The same, ended, its value forgotten."""
        return self.ending(now)._replace(value="")


Records = Sequence[Record]
"""In the order in which they came."""


def reference_of(tenant: str, record: Record) -> str:
    """Where the value of an added secret is looked up among all values."""
    return f"{ADDED_PREFIX}{tenant}/{record.tool}/{record.key_id}"


def joined(
    tenant: str, configured: Iterable[Secret], values: Values, records: Records
) -> tuple[list[Secret], Values]:
    """The secrets of a source: those that are configured, with their ends, and those that were added.

    Returns:
        The secrets, those that were added last first, and the values of all of them.
    """
    if not records:
        return list(configured), values
    ends = {record.digest: _end(record) for record in records if not record.added}
    added = [record for record in reversed(records) if record.added]
    secrets = [
        Secret(record.key_id, reference_of(tenant, record), not_after=_end(record)) for record in added
    ]
    for secret in configured:
        value = values.get(secret.reference)
        end = ends.get(digest(value), secret.not_after) if value is not None else secret.not_after
        secrets.append(secret._replace(not_after=min(secret.not_after, end)))
    return secrets, {**values, **{reference_of(tenant, one): one.value for one in added if one.value}}


def _end(record: Record) -> float:
    return float("inf") if record.not_after is None else record.not_after


def minted(fits: Callable[[str], bool], like: Iterable[str]) -> str | None:
    """A new random secret of a form that a source can use.

    Args:
        fits: Whether some scheme of the source can use a secret.
        like: The secrets that it has; the new one looks like the first.

    Returns:
        None where only the sender can make one.
    """
    key = randomness.token_bytes(MINTED_BYTES)
    forms = [key.hex(), f"whsec_{base64.b64encode(key).decode()}"]
    if next(iter(like), "").startswith("whsec_"):
        forms.reverse()
    return next((form for form in forms if fits(form)), None)
