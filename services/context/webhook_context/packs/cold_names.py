"""How the context store names its objects in the cold store."""

from __future__ import annotations

import hashlib

from pydantic import SecretStr
from webhook_shared.sealing.master_keys import MasterKeys, Purpose

ALL = "v1/"
"""What the names of all packs begin with."""
SUFFIX = ".pack"
SEGMENTS = "segments/"
"""Behind the tenant: where its segments lie, each with its keys beside it."""
SEGMENT, KEYS_SUFFIX = "members.seg", ".keys"


class ColdNames:
    """Makes the beginnings of names: `v1/<tenant>/<shard>/<context>/`.

    Keyed digests, since names appear in logs and inventories; the tenant first, so that all that a tenant
    has lies together.
    """

    def __init__(self, master_key: MasterKeys | SecretStr) -> None:
        self._key = MasterKeys.of(master_key).names(Purpose.COLD_NAMES)

    def prefix(self, tenant: str, context_id: str) -> str:
        """What the names of a context's objects begin with."""
        context = self.digest(tenant, context_id).hex()
        return f"{self.beginning(tenant)}{context[:2]}/{context}/"

    def digest(self, tenant: str, context_id: str) -> bytes:
        """What stands for a context in names, and in the index of a segment; 16 bytes."""
        return bytes.fromhex(self._digest("context", tenant, context_id))

    def home(self, tenant: str, segment_id: str) -> str:
        """What the names of a segment's objects begin with."""
        return f"{self.beginning(tenant)}{SEGMENTS}{segment_id}/"

    def beginning(self, tenant: str) -> str:
        """What the names of all objects of a tenant begin with."""
        return f"{ALL}{self._digest('tenant', tenant)}/"

    def _digest(self, *parts: str) -> str:
        # Length-prefixed, so that no two lists of parts are the same bytes.
        encoded = [part.encode() for part in parts]
        joined = b"".join(len(part).to_bytes(4, "big") + part for part in encoded)
        return hashlib.blake2b(joined, digest_size=16, key=self._key).hexdigest()


def home_of(name: str) -> str:
    """What the names of all objects of a segment begin with, by one of them or a pointer; '' for none."""
    parts = name.split("/")
    return "/".join(parts[:4]) + "/" if len(parts) == 5 and parts[2] + "/" == SEGMENTS else ""


def segment_id_of(home: str) -> str:
    """The id of the segment whose objects' names begin so."""
    return home.rstrip("/").rpartition("/")[2]
