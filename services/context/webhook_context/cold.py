"""What the context store asks of a cold store: a place for named, immutable objects.

Names are made once and never again, so no write ever replaces anything, and whoever has a name and the
checksum of what it names can tell whether it holds what it should. Nothing else is relied on.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Protocol

from pydantic import SecretStr

DEADLINE_S = 60.0
"""For one call, repetitions included. Well below the lease of a transition."""
SUFFIX = ".pack"


class ColdTrouble(Exception):
    """The store can't be reached, refuses or is too slow; the call may or may not have had its effect."""


class ColdMissing(Exception):
    """The store has no object of this name."""


class ColdStore(Protocol):
    """Keeps objects; every method raises ColdTrouble."""

    async def put(self, name: str, content: bytes) -> None:
        """Make an object durable."""

    async def get(self, name: str) -> bytes:
        """The bytes of an object.

        Raises:
            ColdMissing: There is none.
        """

    async def delete(self, name: str) -> None:
        """Let there be no such object."""


class ColdNames:
    """Makes the beginnings of names: `v1/<tenant>/<shard>/<context>/`.

    Keyed digests, since names appear in logs and inventories; the tenant first, so that all that a tenant
    has lies together.
    """

    def __init__(self, master_key: SecretStr) -> None:
        secret = master_key.get_secret_value().encode()
        self._key = hmac.digest(secret, b"webhook cold names 1", "sha256")

    def prefix(self, tenant: str, context_id: str) -> str:
        """What the names of a context's objects begin with."""
        owner = self._digest("tenant", tenant)
        context = self._digest("context", tenant, context_id)
        return f"v1/{owner}/{context[:2]}/{context}/"

    def _digest(self, *parts: str) -> str:
        # Length-prefixed, so that no two lists of parts are the same bytes.
        encoded = [part.encode() for part in parts]
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hashlib.blake2b(joined, digest_size=16, key=self._key).hexdigest()
