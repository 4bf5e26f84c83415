"""Who is calling: API keys, their tenants and roles, and the check on every RPC.

A key is `whk_<key id>_<secret>`. Only the SHA-256 of the secret is stored: it is random and long, so no
slow hash is needed. The internal key is our own processes' credential; it never depends on Redis, so
that an emptied Redis can't lock the system out of itself. A certificate is a credential too, by the name in
it, wherever no API key is sent along.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

from pydantic import SecretStr

from webhook_shared.errors import InvalidArgument, PermissionDenied, Unauthenticated
from webhook_shared.redis import Client
from webhook_shared.settings import IdentitySection, TlsSection

KEYS = "apikeys"
REQUESTS = "apikeys:requests"
ALL_TENANTS = "*"
CACHE_S = 10.0
CACHED_KEYS = 10_000
SHORTEST_INTERNAL_KEY = 32


class Role(IntEnum):
    """What a caller may do; the numbers are those of `webhook.security.v1.Role`."""

    READER = 1
    WRITER = 2
    OPERATOR = 3
    INTERNAL = 4


@dataclass(frozen=True)
class Caller:
    """Whoever holds a credential."""

    key_id: str
    tenants: frozenset[str]
    roles: frozenset[Role]

    def has(self, role: Role) -> bool:
        """Whether the caller has this role; the internal one has them all."""
        return role in self.roles or Role.INTERNAL in self.roles

    def may(self, tenant: str) -> bool:
        """Whether the caller may act for this tenant."""
        return tenant in self.tenants or ALL_TENANTS in self.tenants

    def tenant(self, requested: str) -> str:
        """The tenant to act for.

        Args:
            requested: What the request names; empty where it names none.

        Raises:
            PermissionDenied: TENANT_NOT_ALLOWED.
            InvalidArgument: None is named and the credential has several.
        """
        if not requested:
            if len(self.tenants) == 1 and ALL_TENANTS not in self.tenants:
                return next(iter(self.tenants))
            raise InvalidArgument(
                "this credential has several tenants: say which",
                fields={"tenant": "is needed with this credential"},
            )
        if not self.may(requested):
            raise PermissionDenied("TENANT_NOT_ALLOWED", "this credential does not cover that tenant")
        return requested


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Whoever made the RPC that is being served."""
    return _caller.get()


def set_caller(found: Caller) -> None:
    """Remember the caller for the rest of this RPC."""
    _caller.set(found)


@dataclass(frozen=True)
class ApiKey:
    """A stored credential, without its secret."""

    key_id: str
    display_name: str
    tenants: tuple[str, ...]
    roles: tuple[Role, ...]
    create_time: float
    expire_time: float | None

    def caller(self) -> Caller:
        """Whoever holds it."""
        return Caller(self.key_id, frozenset(self.tenants), frozenset(self.roles))


class ApiKeys:
    """The stored credentials: hash `apikeys`, key id to record."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def mint(
        self,
        display_name: str,
        tenants: Iterable[str],
        roles: Iterable[Role],
        *,
        expire_time: float | None = None,
        request_id: str = "",
    ) -> tuple[ApiKey, str]:
        """Make a credential and store its digest.

        Args:
            display_name: For people.
            tenants: "*" means all.
            roles: At least one.
            expire_time: Unix seconds.
            request_id: A repeated call with the same one gives the first record and no secret.

        Returns:
            The record and the credential, which nobody can show again.
        """
        key_id = secrets.token_hex(6)
        if request_id and not await self._client.hsetnx(REQUESTS, request_id, key_id):
            first = await self._client.hget(REQUESTS, request_id)
            stored = await self._record(_text(first))
            if stored:
                return stored[0], ""
        secret = secrets.token_urlsafe(32)
        record = ApiKey(key_id, display_name, tuple(tenants), tuple(roles), time.time(), expire_time)
        await self._client.hset(KEYS, key_id, _to_json(record, _digest(secret)))
        return record, f"whk_{key_id}_{secret}"

    async def store(
        self, credential: str, display_name: str, tenants: Iterable[str], roles: Iterable[Role]
    ) -> None:
        """Store the digest of a credential that was minted before (and perhaps lost by Redis since)."""
        parts = _parts(credential)
        if parts is None:
            raise ValueError("not a credential of ours")
        record = ApiKey(parts[0], display_name, tuple(tenants), tuple(roles), time.time(), None)
        await self._client.hset(KEYS, parts[0], _to_json(record, _digest(parts[1])))

    async def get(self, key_id: str) -> ApiKey | None:
        """The record of a credential, or None."""
        stored = await self._record(key_id)
        return stored[0] if stored else None

    async def revoke(self, key_id: str) -> bool:
        """Forget a credential; False where there was none."""
        return bool(await self._client.hdel(KEYS, key_id))

    async def find(self, credential: str) -> Caller | None:
        """Whoever holds this credential, if it is good now."""
        parts = _parts(credential)
        stored = await self._record(parts[0]) if parts else None
        if parts is None or stored is None:
            return None
        record, digest = stored
        if not hmac.compare_digest(digest, _digest(parts[1])):
            return None
        if record.expire_time is not None and record.expire_time <= time.time():
            return None
        return record.caller()

    async def _record(self, key_id: str) -> tuple[ApiKey, str] | None:
        stored = await self._client.hget(KEYS, key_id)
        if stored is None:
            return None
        fields = json.loads(stored)
        digest = fields.pop("digest")
        fields["tenants"] = tuple(fields["tenants"])
        fields["roles"] = tuple(Role(role) for role in fields["roles"])
        return ApiKey(key_id=key_id, **fields), digest


class Certificates:
    """Whose certificates are credentials, by the name in them.

    A name is a SAN URI, or the common name of a certificate that has no URI; which of the two an entry
    means is seen by its "://", so neither can be passed off as the other.

    Args:
        identity: Who is known.
        tls: Where nobody must show a certificate, none is a credential.

    Raises:
        ValueError: A name stands twice.
    """

    def __init__(self, identity: IdentitySection, tls: TlsSection) -> None:
        self._callers: dict[str, Caller] = {}
        self.know_ours = False
        if not tls.cert_file or tls.client_certificates == "none":
            return
        for entry in identity.certificates:
            roles = frozenset(Role[role.upper()] for role in entry.roles)
            self._add(entry.name, frozenset(entry.tenants), roles)
        if identity.internal_certificate:
            self._add(identity.internal_certificate, frozenset({ALL_TENANTS}), frozenset({Role.INTERNAL}))
            self.know_ours = True

    def caller(self, uris: Sequence[str], common_name: str) -> Caller:
        """The caller that a verified certificate names.

        Raises:
            Unauthenticated: CERTIFICATE_UNKNOWN: It names nobody that we know.
        """
        for name in uris or (common_name,):
            found = self._callers.get(name) if ("://" in name) == bool(uris) else None
            if found is not None:
                return found
        raise Unauthenticated("CERTIFICATE_UNKNOWN", "no API key, and a certificate that nobody here knows")

    def _add(self, name: str, tenants: frozenset[str], roles: frozenset[Role]) -> None:
        if name in self._callers:
            raise ValueError(f"webhook.identity: the certificate {name!r} stands twice")
        self._callers[name] = Caller(f"cert:{name}", tenants, roles)


NO_CERTIFICATES = Certificates(IdentitySection(), TlsSection())


class Authenticator:
    """Says who holds a credential; what it found holds for CACHE_S seconds.

    Args:
        client: Where the API keys are.
        internal_key: Our own processes' credential; may be empty where their certificates are it.
        certificates: Whose certificates are credentials.

    Raises:
        ValueError: The internal key is missing or short.
    """

    def __init__(
        self, client: Client, internal_key: SecretStr, certificates: Certificates = NO_CERTIFICATES
    ) -> None:
        self.certificates = certificates
        secret = internal_key.get_secret_value()
        if len(secret) < SHORTEST_INTERNAL_KEY and (secret or not certificates.know_ours):
            raise ValueError(
                "WEBHOOK_INTERNAL_KEY must be at least 32 random characters, the same for all our "
                "processes (or empty, where each has a certificate); make one with `openssl rand -hex 32`"
            )
        self._internal = secret.encode()
        self._insider = Caller("internal", frozenset({ALL_TENANTS}), frozenset({Role.INTERNAL}))
        self._keys = ApiKeys(client)
        self._cache: dict[str, tuple[Caller | None, float]] = {}

    async def authenticate(self, authorization: str) -> Caller:
        """The caller behind an `authorization` header: `Bearer <credential>`.

        Raises:
            Unauthenticated: No such credential, or no longer.
            REDIS_TROUBLE: It can't be looked up now.
        """
        scheme, _, credential = authorization.partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated(message="send the API key as metadata `authorization: Bearer <key>`")
        if self._internal and hmac.compare_digest(credential.encode(), self._internal):
            return self._insider
        now = time.monotonic()
        known = self._cache.get(credential)
        if known is None or now - known[1] > CACHE_S:
            if len(self._cache) >= CACHED_KEYS:
                self._cache.clear()
            known = (await self._keys.find(credential), now)
            self._cache[credential] = known
        if known[0] is None:
            raise Unauthenticated
        return known[0]


def _text(reply: bytes | str | None) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply or ""


def _parts(credential: str) -> tuple[str, str] | None:
    prefix, _, rest = credential.partition("_")
    key_id, _, secret = rest.partition("_")
    return (key_id, secret) if prefix == "whk" and key_id and secret else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _to_json(record: ApiKey, digest: str) -> str:
    return json.dumps(
        {
            "display_name": record.display_name,
            "tenants": record.tenants,
            "roles": [int(role) for role in record.roles],
            "create_time": record.create_time,
            "expire_time": record.expire_time,
            "digest": digest,
        }
    )
