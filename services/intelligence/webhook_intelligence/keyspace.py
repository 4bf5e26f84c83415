"""Names in Redis that begin with whose they are, so that all that a tenant has can be found and dropped."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_DIGEST_CHARS = 64


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The names of one kind.

    Attributes:
        kind: "emb".
    """

    kind: str

    def key(self, tenant: str, content: bytes) -> str:
        """The name of what has this digest (32 bytes)."""
        return f"{self._prefix(tenant)}{content.hex()}"

    def of(self, tenant: str) -> str:
        """Matches the names of a tenant; of what all tenants share, for an empty one."""
        return f"{self._prefix(tenant)}*"

    @property
    def of_former_times(self) -> str:
        """Matches names that do not tell whose they are."""
        return f"{self.kind}:{'?' * _DIGEST_CHARS}"

    def has(self, key: bytes) -> bool:
        """Whether a name that matched is one of these."""
        return key.startswith(f"{self.kind}:".encode()) and len(key.rpartition(b":")[2]) == _DIGEST_CHARS

    def _prefix(self, tenant: str) -> str:
        owner = hashlib.sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{self.kind}:{owner}:"


def digest(*parts: str, purpose: bytes = b"") -> bytes:
    """32 bytes that are equal only where the purpose and all parts are."""
    joined = hashlib.sha256(purpose)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        # The length before each part keeps ("ab", "c") and ("a", "bc") apart.
        joined.update(len(encoded).to_bytes(8, "big"))
        joined.update(encoded)
    return joined.digest()
