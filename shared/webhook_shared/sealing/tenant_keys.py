"""Tenants' keys, and how a key table has them: wrapped under a master key.

An entry is `<master key id>:<nonce 12 | wrapped key 32 | tag 16>` in hex, bound to tenant and key id, so that
another master key can wrap the same key. Keys of earlier versions follow from the first master key and a
random salt; their entries are the salt, in hex.

Whoever destroys the entry and its copies has destroyed all that the key ever sealed.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook_shared.sealing.master_keys import MasterKey, MasterKeyMissing, MasterKeys, Purpose

KEY_ID_BYTES = 8
KEY_BYTES = 32
_LENGTH = struct.Struct(">I")
_BETWEEN = ":"


class KeyDamaged(Exception):
    """An entry was changed, or is of another tenant or key."""


@dataclass(frozen=True)
class TenantKey:
    """A key of a tenant.

    Attributes:
        id: Names it within its tenant, 8 bytes.
        entry: As the key table has it.
        cipher: Wraps data keys with it.
    """

    id: bytes
    entry: str
    secret: bytes = field(repr=False)
    cipher: AESGCM = field(repr=False)

    @property
    def master_key_id(self) -> str:
        """Under which master key it is wrapped; empty: it follows from the first one."""
        return wrapped_under(self.entry)


def wrapped_under(entry: str) -> str:
    """The id of the master key of an entry; empty: it is a salt, and that the first one."""
    before, between, _ = entry.partition(_BETWEEN)
    return before if between else ""


def made(master_key: MasterKey, tenant: str) -> TenantKey:
    """A new key."""
    return _wrapped(master_key, tenant, os.urandom(KEY_ID_BYTES), os.urandom(KEY_BYTES))


def rewrapped(master_key: MasterKey, tenant: str, key: TenantKey) -> TenantKey:
    """The same key, wrapped under this master key."""
    if key.master_key_id == master_key.id:
        return key
    return _wrapped(master_key, tenant, key.id, key.secret)


def read(master_keys: MasterKeys, tenant: str, key_id: bytes, entry: str) -> TenantKey:
    """The key of an entry.

    Raises:
        MasterKeyMissing: Its master key is not here.
        KeyDamaged: It is not what was written.
    """
    name = wrapped_under(entry)
    try:
        rest = bytes.fromhex(entry.rpartition(_BETWEEN)[2])
    except ValueError:
        raise _damaged(key_id) from None
    master_key = master_keys.key(name or master_keys.origin)
    if name:
        secret = master_key.open(Purpose.TENANT_KEYS, rest, _bound(tenant, key_id))
    else:
        info = b"webhook tenant key 1" + _bound(tenant, key_id)
        secret = master_key.derived(info, rest) if len(rest) == KEY_BYTES else None
    if secret is None or len(secret) != KEY_BYTES:
        raise _damaged(key_id)
    return TenantKey(key_id, entry, secret, AESGCM(secret))


def is_readable(master_keys: MasterKeys, tenant: str, key_id: bytes, entry: str) -> bool:
    """Whether its master key is here and it is what was written."""
    try:
        read(master_keys, tenant, key_id, entry)
    except (MasterKeyMissing, KeyDamaged):
        return False
    return True


def _wrapped(master_key: MasterKey, tenant: str, key_id: bytes, secret: bytes) -> TenantKey:
    sealed = master_key.seal(Purpose.TENANT_KEYS, secret, _bound(tenant, key_id))
    return TenantKey(key_id, f"{master_key.id}{_BETWEEN}{sealed.hex()}", secret, AESGCM(secret))


def _damaged(key_id: bytes) -> KeyDamaged:
    return KeyDamaged(f"tenant key {key_id.hex()} was changed in the key table, or is another tenant's")


def _bound(tenant: str, key_id: bytes) -> bytes:
    # Length-prefixed, so that no two pairs are the same bytes.
    return b"".join(_LENGTH.pack(len(part)) + part for part in (tenant.encode(), key_id))
