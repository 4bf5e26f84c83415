"""The master keys: one seals, the others open what they have sealed.

Which one seals is on record in Redis, so that all processes change over together and none writes what its
neighbours can't read yet. From each follow keys for single purposes; those that are needed for ever (names
of objects) or for as long as anything lies under them (the archive) are inherited, sealed under the master
key that comes next: so a master key that nothing needs any more can go, and take nothing with it.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any

import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from webhook_shared.redis import Client
from webhook_shared.settings import EncryptionSection

log = structlog.get_logger()

RECORD = "masterkeys"
"""HASH: `sealing` and `origin`, ids; `needed:<id>`, `since:<id>` and `retired:<id>`, Unix milliseconds;
`inherited:<id>`, sealed under that key."""
RECORD_AGE_S = 10.0
"""How soon every process notices that another key seals."""
SHORTEST_MASTER_KEY = 32

_ID_BYTES = 8
_NONCE_BYTES = 12
_KEY_BYTES = 32


class Purpose(Enum):
    """What a master key is for; from each follows a key of its own."""

    AUDIT_CHAIN = b"webhook audit chain 1"
    ARCHIVE = b"webhook archive 1"
    COLD_NAMES = b"webhook cold names 1"
    DICTIONARY_NAMES = b"webhook dictionary names 1"
    ERASURES = b"webhook erasures 1"
    INHERITANCE = b"webhook inheritance 1"
    KEY_COPIES = b"webhook key copies 1"
    KEY_COPY_NAMES = b"webhook key copy names 1"
    TENANT_KEYS = b"webhook tenant keys 1"


NAMES = frozenset({Purpose.COLD_NAMES, Purpose.DICTIONARY_NAMES, Purpose.ERASURES, Purpose.KEY_COPY_NAMES})
"""Those that name objects and erasures. They come from the first key for good: a name is made once."""
INHERITED = frozenset({*NAMES, Purpose.ARCHIVE})
_WITH_SHA256 = frozenset({Purpose.AUDIT_CHAIN})


class MasterKeyMissing(Exception):
    """Something was sealed under a master key that is not here.

    Attributes:
        key_id: Which.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(f"master key {key_id} is needed: add it to ENCRYPTION_PREVIOUS_MASTER_KEYS")
        self.key_id = key_id


class MasterKey:
    """One master key.

    Args:
        secret: At least 32 random characters.

    Attributes:
        id: Names it, and tells nothing else of it; 16 hex characters.

    Raises:
        ValueError: It is missing or weak.
    """

    def __init__(self, secret: SecretStr) -> None:
        text = secret.get_secret_value()
        if len(text) < SHORTEST_MASTER_KEY or len(set(text)) < SHORTEST_MASTER_KEY // 4:
            raise ValueError(
                "ENCRYPTION_MASTER_KEY must be at least 32 random characters; "
                "make one with `openssl rand -base64 48` and keep it: without it nothing opens"
            )
        self._secret = text.encode()
        self.id = HKDF(SHA256(), _ID_BYTES, None, b"webhook master key id 1").derive(self._secret).hex()
        self.subkey = cache(self._subkey)

    def _subkey(self, purpose: Purpose) -> bytes:
        """The key for one purpose; 32 bytes."""
        if purpose in NAMES:
            return hmac.digest(self._secret, purpose.value, "sha256")
        return self.derived(purpose.value, None, with_sha256=purpose in _WITH_SHA256)

    def derived(self, info: bytes, salt: bytes | None, *, with_sha256: bool = False) -> bytes:
        """A key that follows from this one; 32 bytes."""
        return HKDF(SHA256() if with_sha256 else SHA512(), _KEY_BYTES, salt, info).derive(self._secret)

    def seal(self, purpose: Purpose, content: bytes, binding: bytes) -> bytes:
        """Sealed for one purpose, bound to a name: nonce 12 | ciphertext | tag 16."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.subkey(purpose)).encrypt(nonce, content, binding)

    def open(self, purpose: Purpose, sealed: bytes, binding: bytes) -> bytes | None:
        """What was sealed so; None where it was not, or is not what it was."""
        return opened(self.subkey(purpose), sealed, binding)


def opened(key: bytes, sealed: bytes, binding: bytes) -> bytes | None:
    """What was sealed with this key (nonce 12 | ciphertext | tag 16); None where it was not."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], binding)
    except (InvalidTag, ValueError):
        return None


class MasterKeys:
    """All master keys of one process.

    Args:
        newest: ENCRYPTION_MASTER_KEY: the one that seals, or will after the next rotation.
        previous: Those before, the latest first.

    Attributes:
        newest: See above.
        origin: The id of the first one of all, whose names hold.

    Raises:
        ValueError: One is missing or weak.
    """

    def __init__(self, newest: SecretStr, previous: Sequence[SecretStr] = ()) -> None:
        self.newest = MasterKey(newest)
        keys = [self.newest, *map(MasterKey, previous)]
        self._keys = {key.id: key for key in keys}
        # Until the record tells: the oldest one sealed all that there is.
        self._sealing = self.origin = keys[-1].id
        self._inherited: dict[tuple[str, Purpose], bytes] = {}
        self._read_at_s = float("-inf")

    @classmethod
    def of(cls, keys: MasterKeys | SecretStr) -> MasterKeys:
        """The same, or a sole one."""
        return keys if isinstance(keys, MasterKeys) else cls(keys)

    @property
    def ids(self) -> list[str]:
        """Of all keys that are here, the newest first."""
        return list(self._keys)

    @property
    def sealing_id(self) -> str:
        """The id of the one that seals."""
        return self._sealing

    @property
    def sealing(self) -> MasterKey:
        """The one that seals.

        Raises:
            MasterKeyMissing: It is not here.
        """
        return self.key(self._sealing)

    def key(self, key_id: str) -> MasterKey:
        """One of them.

        Raises:
            MasterKeyMissing: It is not here.
        """
        found = self._keys.get(key_id)
        if found is None:
            raise MasterKeyMissing(key_id)
        return found

    def has(self, key_id: str) -> bool:
        """Whether it is here."""
        return key_id in self._keys

    def names(self, purpose: Purpose) -> bytes:
        """The key that makes the names of objects; the same for good.

        Raises:
            MasterKeyMissing: Neither the first master key nor its inheritance is here.
        """
        return self.subkey(self.origin, purpose)

    def subkey(self, key_id: str, purpose: Purpose) -> bytes:
        """The key for one purpose of a master key that is here, or was.

        Raises:
            MasterKeyMissing: Neither it nor its inheritance is here.
        """
        inherited = self._inherited.get((key_id, purpose))
        return inherited if inherited is not None else self.key(key_id).subkey(purpose)

    def holds(self, sealing: str, origin: str) -> None:
        """Go by what is on record."""
        self._sealing, self.origin = sealing, origin

    async def refresh(self, client: Client) -> None:
        """Notice within RECORD_AGE_S that another key seals.

        Raises:
            REDIS_TROUBLE: Not now.
        """
        if time.monotonic() - self._read_at_s < RECORD_AGE_S:
            return
        await self.reread(client)

    async def reread(self, client: Client) -> None:
        """Notice at once which key seals.

        Raises:
            REDIS_TROUBLE: Not now.
        """
        sealing: Any = await client.hget(RECORD, "sealing")
        if sealing is not None and sealing.decode() != self._sealing:
            self._sealing = sealing.decode()
            log.info("keys.sealing", master_key=self._sealing, is_here=self.has(self._sealing))
        self._read_at_s = time.monotonic()

    def bequest(self, heir: MasterKey) -> bytes:
        """All that outlives the other master keys, sealed under one that comes after them."""
        former = {*self._keys, *(key_id for key_id, _ in self._inherited)} - {heir.id}
        wanted = [(self.origin, purpose) for purpose in NAMES] + [
            (key_id, Purpose.ARCHIVE) for key_id in former
        ]
        subkeys = {
            f"{key_id}/{purpose.name}": self.subkey(key_id, purpose).hex()
            for key_id, purpose in sorted(wanted, key=lambda one: (one[0], one[1].name))
        }
        content = orjson.dumps({"origin": self.origin, "subkeys": subkeys})
        return heir.seal(Purpose.INHERITANCE, content, heir.id.encode())

    def inherit(self, key_id: str, sealed: bytes) -> bool:
        """Take over what was sealed under a key that is here; False where it does not open."""
        content = self._keys[key_id].open(Purpose.INHERITANCE, sealed, key_id.encode())
        if content is None:
            return False
        told: Mapping[str, Any] = orjson.loads(content)
        for name, subkey in told["subkeys"].items():
            owner, _, purpose = name.partition("/")
            # What a later version bequeathed beside is nothing to this one.
            if purpose in Purpose.__members__:
                self._inherited[owner, Purpose[purpose]] = bytes.fromhex(subkey)
        self.origin = told["origin"]
        return True


def all_of(section: EncryptionSection) -> MasterKeys:
    """The keys that the settings name.

    Raises:
        ValueError: One is missing or weak.
    """
    return MasterKeys(section.master_key, section.previous_master_keys)
