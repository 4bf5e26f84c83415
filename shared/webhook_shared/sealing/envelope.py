"""Sealed bytes: compressed, encrypted, bound to what they belong to, and self-describing.

Keys: a master key wraps random tenant keys (`tenant_keys`); the tenant key wraps random data keys
(AES-256-GCM); a data key encrypts content (AES-256-GCM). Whoever destroys the wrapped tenant key has
destroyed all that it ever sealed; whoever wraps it under another master key need touch nothing else.

A data key carries a commitment, so that no ciphertext opens under two keys. Streams of small messages
share one data key for a while, which saves the reader an unwrapping per message; stored objects get one
each (`fresh`).

Layout, big-endian: magic 4 | suite 1 | codec 1 | root version 2 | tenant key id 8 | wrap nonce 12 |
wrapped data key 48 | commitment 32 | dictionary id 8 | content size 4 | nonce 12 | ciphertext | tag 16.
Everything before the nonce is authenticated together with tenant and binding.
"""

from __future__ import annotations

import hmac
import math
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from webhook_shared import compression
from webhook_shared.dictionaries.store import Dictionaries
from webhook_shared.redis import REDIS_TROUBLE, Client, Script
from webhook_shared.sealing import tenant_keys
from webhook_shared.sealing.errors import (
    KeysDestroyed,
    Undecodable,
    UnknownDictionary,
    UnknownFormat,
    UnknownKey,
    UnusableKey,
)
from webhook_shared.sealing.master_keys import MasterKeyMissing, MasterKeys
from webhook_shared.sealing.tenant_keys import KeyDamaged, TenantKey

log = structlog.get_logger()

MAGIC = b"WHE1"
SUITE = 1
CODEC_PLAIN, CODEC_ZSTD = 0, 1
ROOT_VERSION = 1

_PREFIX = struct.Struct(">4sBBH8s12s48s32s")
_CONTENT = struct.Struct(">8sI12s")
_LENGTH = struct.Struct(">I")
_CODEC_AT = 5
# What messages of one data key and dictionary begin with.
_COMMON = _PREFIX.size + 8
_AUTHENTICATED = _PREFIX.size + 12
_HEAD = struct.Struct(f">{_COMMON}sI12s")
HEADER_BYTES = _PREFIX.size + _CONTENT.size
TAG_BYTES = 16
LARGEST_CONTENT_BYTES = 256 * 2**20

# Random 96-bit nonces allow 2^32 messages under one key; we stay far below.
DATA_KEY_MESSAGES = 2**20
DATA_KEY_AGE_S = 600.0
# How soon every process notices a change in a tenant's key table.
KEY_TABLE_AGE_S = 10.0
OPENED_KEYS = 8192
OWNERS = 8192
KEY_TABLES = "tenantkeys"
"""SET of every tenant that has a key table."""


@dataclass
class _DataKey:
    cipher: AESGCM
    prefix_zstd: bytes
    prefix_plain: bytes
    messages_left: int
    expires: float


class Keyring:
    """The tenants' keys, and sealing and opening with them.

    Args:
        client: Where the key table lives (`tenantkey:{<tenant>}`).
        master_key: Wraps the tenants' keys; one, or all that there are.
        dictionaries: What compresses; by default those that are shipped, and every one to read with.

    Attributes:
        dictionaries: See above.
        master_keys: As well.

    Raises:
        ValueError: The master key is missing or weak.
    """

    def __init__(
        self, client: Client, master_key: MasterKeys | SecretStr, dictionaries: Dictionaries | None = None
    ) -> None:
        self._client = client
        self.dictionaries = dictionaries or Dictionaries(client)
        self.master_keys = MasterKeys.of(master_key)
        self._script = Script.load("webhook_shared", "tenant_key")
        self._current: dict[str, tuple[TenantKey, float]] = {}
        self._known: dict[tuple[str, bytes], TenantKey] = {}
        self._unusable: dict[tuple[str, bytes], str] = {}
        self._sealing: dict[str, _DataKey] = {}
        self._unwrapped = lru_cache(maxsize=OPENED_KEYS)(self._unwrap)

    async def prepare(self, tenants: Iterable[str]) -> None:
        """Have these tenants' keys at hand, making them where there are none, and their dictionaries.

        Free while fresh.

        Raises:
            KeysDestroyed: The tenant has none any more.
            UnusableKey: The one that seals does not open.
            REDIS_TROUBLE: The key table can't be read and nothing is known of the tenant.
        """
        now = time.monotonic()
        for tenant in set(tenants):
            known = self._current.get(tenant)
            if known is not None and now - known[1] <= KEY_TABLE_AGE_S:
                continue
            try:
                await self._load(tenant)
            except REDIS_TROUBLE:
                if known is None:
                    raise
                # What is known stays good for another while; a destroyed key waits for Redis to say so.
                self._current[tenant] = (known[0], now)

    async def _load(self, tenant: str) -> None:
        await self.master_keys.refresh(self._client)
        current = self._current.get(tenant)
        if current is None:
            await self._client.sadd(KEY_TABLES, tenant)
        arguments = self._put_back(tenant, current and current[0])
        reply = await self._script(self._client, [table(tenant)], arguments)
        fields = {reply[i].decode(): reply[i + 1].decode() for i in range(0, len(reply), 2)}
        if "destroyed" in fields:
            self._forget(tenant)
            raise KeysDestroyed
        identity = bytes.fromhex(fields.pop("current"))
        for name, entry in fields.items():
            self._know(tenant, bytes.fromhex(name), entry)
        if current is None or current[0].id != identity:
            self._sealing.pop(tenant, None)
        if (tenant, identity) not in self._known:
            raise self._unknown(tenant, identity)
        key = self._known[tenant, identity]
        # Not fresh before the dictionaries are here, too.
        self._current[tenant] = (key, -math.inf)
        await self.dictionaries.load(tenant, self)
        self._current[tenant] = (key, time.monotonic())

    def _put_back(self, tenant: str, current: TenantKey | None) -> list[str]:
        """What the table is told: the key that seals where it names none, then all that it may lack."""
        try:
            held = self.entries(tenant)
            if current is None:
                made = tenant_keys.made(self.master_keys.sealing, tenant)
                arguments = [made.id.hex(), made.entry]
            else:
                arguments = [current.id.hex(), held[current.id]]
        except MasterKeyMissing as error:
            raise UnusableKey(str(error)) from None
        for key_id, entry in held.items():
            arguments += [key_id.hex(), entry]
        return arguments

    def _know(self, tenant: str, key_id: bytes, entry: str) -> None:
        where = (tenant, key_id)
        if where in self._known:
            return
        try:
            self._known[where] = tenant_keys.read(self.master_keys, tenant, key_id, entry)
            self._unusable.pop(where, None)
        except (KeyDamaged, MasterKeyMissing) as error:
            if where not in self._unusable:
                log.error("keys.unusable", tenant=tenant, key=key_id.hex(), reason=str(error))
            self._unusable[where] = str(error)

    def _unknown(self, tenant: str, key_id: bytes) -> UnknownKey:
        reason = self._unusable.get((tenant, key_id))
        if reason is not None:
            return UnusableKey(reason)
        return UnknownKey(f"tenant key {key_id.hex()} is not in the key table")

    async def look(self, tenant: str) -> None:
        """Know the keys that a tenant's table has; none is made, nothing is written.

        Raises:
            KeysDestroyed: There are none any more.
            REDIS_TROUBLE: The table can't be read.
        """
        held: Any = await self._client.hgetall(table(tenant))
        if b"destroyed" in held:
            self._forget(tenant)
            raise KeysDestroyed
        current = held.pop(b"current", None)
        entries = {bytes.fromhex(name.decode()): entry.decode() for name, entry in held.items()}
        for one in sorted(entries, key=lambda key_id: key_id.hex().encode() != current):
            self.learn(tenant, {one: entries[one]})

    def learn(self, tenant: str, entries: Mapping[bytes, str]) -> None:
        """Know a tenant's keys from elsewhere, by key id; `prepare` puts into the table what it lacks.

        The first of them becomes the one that seals, where the table names none.
        """
        for key_id, entry in entries.items():
            self._know(tenant, key_id, entry)
            key = self._known.get((tenant, key_id))
            if key is not None:
                self._current.setdefault(tenant, (key, -math.inf))

    def entries(self, tenant: str) -> dict[bytes, str]:
        """A tenant's keys by key id, as far as they are known here, as the key table is to have them.

        The one that seals comes last. After a rotation all are wrapped under the new master key.

        Raises:
            MasterKeyMissing: The master key that seals is not here.
        """
        sealing, current = self.master_keys.sealing, self._current.get(tenant)
        held = [key for (owner, _), key in self._known.items() if owner == tenant]
        for key in held:
            if sealing.id != (key.master_key_id or self.master_keys.origin):
                self._known[tenant, key.id] = tenant_keys.rewrapped(sealing, tenant, key)
        held.sort(key=lambda key: current is not None and key.id == current[0].id)
        return {key.id: self._known[tenant, key.id].entry for key in held}

    def _forget(self, tenant: str) -> None:
        self._current.pop(tenant, None)
        self._sealing.pop(tenant, None)
        self._known = {owner: key for owner, key in self._known.items() if owner[0] != tenant}
        self._unusable = {owner: why for owner, why in self._unusable.items() if owner[0] != tenant}
        self._unwrapped.cache_clear()
        self.dictionaries.let_go(tenant)

    def seal(
        self,
        tenant: str,
        content: bytes,
        *binding: str,
        dictionary: str = "",
        level: int = compression.LEVEL,
        fresh: bool = False,
    ) -> bytes:
        """Seal content so that it opens only for this tenant and binding.

        Args:
            tenant: Prepared before.
            content: At most LARGEST_CONTENT_BYTES.
            binding: What the content belongs to, its name last: ("event", id).
            dictionary: The compression dictionary's name: "github"; the tenant's own, else the shipped one.
            level: How hard zstd tries.
            fresh: With a data key of its own.

        Raises:
            UnknownKey: The tenant was not prepared.
        """
        key = self._data_key(tenant, fresh=fresh)
        entry = self.dictionaries.current(tenant, dictionary) if dictionary else None
        packed = compression.compress(content, entry, level=level)
        nonce = os.urandom(12)
        if packed is None:
            head = key.prefix_plain + _CONTENT.pack(compression.NO_DICTIONARY, len(content), nonce)
            body = content
        else:
            head = key.prefix_zstd + _CONTENT.pack(packed[1], len(content), nonce)
            body = packed[0]
        return head + key.cipher.encrypt(nonce, body, _associated(head, tenant, binding))

    def open(self, tenant: str, sealed: bytes, *binding: str) -> bytes:
        """The content.

        Raises:
            Undecodable: Not ours, damaged, or of another tenant or binding.
            UnknownFormat: Of a newer version.
            UnknownKey: The tenant was not prepared, or its table lacks the key, or a dictionary is missing.
        """
        return self.opening(tenant, *binding[:-1]).open(sealed, binding[-1].encode())

    def opening(self, tenant: str, *kind: str) -> Opening:
        """Opens many messages of a tenant, all with bindings that begin like this."""
        return Opening(self, self._unwrapped, tenant, kind)

    def inflate(self, tenant: str, frame: bytes, dictionary: bytes, size_bytes: int) -> bytes:
        """The content of a frame that was compressed for this tenant.

        Raises:
            Undecodable: Damaged, or of another size.
            UnknownDictionary: The dictionary is not here; `prepare` looks for it.
        """
        decompressor = self.decompressor(tenant, dictionary)
        try:
            return compression.inflate(decompressor, frame, size_bytes)
        except compression.CompressionError as error:
            raise Undecodable(str(error)) from None

    def decompressor(self, tenant: str, dictionary: bytes) -> compression.Decompressor:
        """What `compression.inflate` takes for a dictionary, in this thread.

        Raises:
            UnknownDictionary: The dictionary is not here; `prepare` looks for it.
        """
        try:
            return compression.decompressor(dictionary)
        except compression.DictionaryMissing as error:
            self.dictionaries.miss(tenant, dictionary)
            known = self._current.get(tenant)
            if known is not None:
                # The next `prepare` looks again at once; sealing goes on.
                self._current[tenant] = (known[0], -math.inf)
            raise UnknownDictionary(str(error)) from None

    def _data_key(self, tenant: str, *, fresh: bool) -> _DataKey:
        if fresh:
            return self._new_data_key(tenant)
        key = self._sealing.get(tenant)
        if key is None or key.messages_left <= 0 or time.monotonic() > key.expires:
            key = self._sealing[tenant] = self._new_data_key(tenant)
        key.messages_left -= 1
        return key

    def _new_data_key(self, tenant: str) -> _DataKey:
        known = self._current.get(tenant)
        if known is None:
            raise UnknownKey("the tenant's key is not loaded")
        tenant_key, secret, nonce = known[0], os.urandom(32), os.urandom(12)
        wrapped = tenant_key.cipher.encrypt(nonce, secret, _wrap_binding(tenant, tenant_key.id))
        cipher, commitment = _expand(secret)

        def prefix(codec: int) -> bytes:
            return _PREFIX.pack(MAGIC, SUITE, codec, ROOT_VERSION, tenant_key.id, nonce, wrapped, commitment)

        return _DataKey(
            cipher=cipher,
            prefix_zstd=prefix(CODEC_ZSTD),
            prefix_plain=prefix(CODEC_PLAIN),
            messages_left=DATA_KEY_MESSAGES,
            expires=time.monotonic() + DATA_KEY_AGE_S,
        )

    def _unwrap(self, tenant: str, prefix: bytes) -> AESGCM:
        magic, suite, codec, _, key_id, nonce, wrapped, commitment = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise Undecodable("not an envelope")
        if suite != SUITE or codec > CODEC_ZSTD:
            raise UnknownFormat(f"suite {suite}, codec {codec}")
        tenant_key = self._known.get((tenant, key_id))
        if tenant_key is None:
            # The next `prepare` looks again at once.
            self._current.pop(tenant, None)
            raise self._unknown(tenant, key_id)
        try:
            secret = tenant_key.cipher.decrypt(nonce, wrapped, _wrap_binding(tenant, key_id))
        except InvalidTag:
            raise Undecodable("the data key is not this tenant's") from None
        cipher, expected = _expand(secret)
        if not hmac.compare_digest(expected, commitment):
            raise Undecodable("the data key is not the one it was sealed with")
        return cipher


class Opening:
    """Opens messages of one tenant and kind; what they have in common is looked at once.

    For one thread, and for a batch at most: it does not notice that a key is destroyed meanwhile.

    Args:
        keyring: Has the tenant's dictionaries.
        unwrapped: The data key of a tenant's messages that begin like this.
        tenant: Prepared before.
        kind: The binding but for its last part, which is a message's own.
    """

    __slots__ = ("_keyring", "_known", "_owner", "_tenant", "_unwrapped")

    def __init__(
        self,
        keyring: Keyring,
        unwrapped: Callable[[str, bytes], AESGCM],
        tenant: str,
        kind: tuple[str, ...],
    ) -> None:
        self._keyring = keyring
        self._unwrapped = unwrapped
        self._tenant = tenant
        self._owner = _owner(tenant, kind)
        self._known: dict[bytes, tuple[AESGCM, compression.Decompressor]] = {}

    def open(self, sealed: bytes, name: bytes) -> bytes:
        """The content of a message, given the last part of its binding. Raises as `Keyring.open`."""
        if len(sealed) < HEADER_BYTES + TAG_BYTES:
            raise Undecodable("not an envelope")
        common, size_bytes, nonce = _HEAD.unpack_from(sealed)
        cipher, decompressor = self._known.get(common) or (
            self._unwrapped(self._tenant, common[: _PREFIX.size]),
            None,
        )
        if size_bytes > LARGEST_CONTENT_BYTES:
            raise Undecodable("the content is too large")
        associated = b"".join((sealed[:_AUTHENTICATED], self._owner, _LENGTH.pack(len(name)), name))
        try:
            body = cipher.decrypt(nonce, sealed[HEADER_BYTES:], associated)
        except InvalidTag:
            raise Undecodable("tampered with, or bound to something else") from None
        if decompressor is None:
            if sealed[_CODEC_AT] == CODEC_PLAIN:
                return body
            # Not before it is known that the dictionary's id is no invention.
            decompressor = self._keyring.decompressor(self._tenant, common[_PREFIX.size :])
            self._known[common] = cipher, decompressor
        try:
            return compression.inflate(decompressor, body, size_bytes)
        except compression.CompressionError as error:
            raise Undecodable(str(error)) from None


def table(tenant: str) -> str:
    """The key table of a tenant."""
    return f"tenantkey:{{{tenant}}}"


def _expand(secret: bytes) -> tuple[AESGCM, bytes]:
    material = HKDF(SHA512(), 64, None, b"webhook data key 1").derive(secret)
    return AESGCM(material[:32]), material[32:]


def _wrap_binding(tenant: str, key_id: bytes) -> bytes:
    return _joined(b"wrap", tenant.encode(), key_id)


def _associated(head: bytes, tenant: str, binding: tuple[str, ...]) -> bytes:
    # The name differs each time; what stands before it is the same for all of a kind.
    name = binding[-1].encode()
    return b"".join((head[:_AUTHENTICATED], _owner(tenant, binding[:-1]), _LENGTH.pack(len(name)), name))


@lru_cache(maxsize=OWNERS)
def _owner(tenant: str, kind: tuple[str, ...]) -> bytes:
    return _joined(tenant.encode(), *[part.encode() for part in kind])


def _joined(*parts: bytes) -> bytes:
    # Length-prefixed, so that no two lists of parts join to the same bytes.
    joined = b""
    for part in parts:
        joined += _LENGTH.pack(len(part)) + part
    return joined
