"""How the context store names its objects in the cold store."""

from __future__ import annotations

import hashlib
import hmac

from pydantic import SecretStr

ALL = "v1/"
"""What the names of all packs begin with."""
SUFFIX = ".pack"


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
        context = self._digest("context", tenant, context_id)
        return f"{self.beginning(tenant)}{context[:2]}/{context}/"

    def beginning(self, tenant: str) -> str:
        """What the names of all objects of a tenant begin with."""
        return f"{ALL}{self._digest('tenant', tenant)}/"

    def _digest(self, *parts: str) -> str:
        # Length-prefixed, so that no two lists of parts are the same bytes.
        encoded = [part.encode() for part in parts]
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hashlib.blake2b(joined, digest_size=16, key=self._key).hexdigest()
