"""Where rotations are kept: sealed in Redis, followed by every replica within a second or two.

One hash per tenant, `secrets:{<tenant>}`, holds a sealed record per field `<tool>/<name>`, and a revision
that every change raises. The hash `secrets:index` names the tenants with their revisions and counts all
changes (under "*"), so that a replica asks for one number to know that nothing happened. Each says in
`secrets:replicas` how far it has come, so that a rotation knows when it may be relied on.
"""

from __future__ import annotations

import asyncio
import secrets as randomness
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import orjson
import structlog
from webhook_shared.errors import Aborted, Unavailable
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client, RedisError, Script
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import EnvelopeError, UnknownKey

from webhook_security.secrets.rotated import Record, Records

log = structlog.get_logger()

INDEX = "secrets:index"
REPLICAS = "secrets:replicas"
SYNC_S = 1.0
"""How often a replica asks whether anything changed, seconds."""
LOOK_EVERYWHERE_S = 60.0
"""How often it looks at every tenant, seconds: a change whose announcement was lost is found then."""
SPREAD_WITHIN_S = 5.0
"""How long a rotation waits for the other replicas, seconds."""
GONE_AFTER_S = 30
"""After how long a replica that says nothing no longer counts, seconds."""

_CHANGES = "*"
_REVISION = b"revision"
_ATTEMPTS = 5
_SPREAD_CHECK_S = 0.05
_FORGOTTEN_AFTER_S = 7 * 24 * 3600.0
_TROUBLE: tuple[type[BaseException], ...] = (*REDIS_TROUBLE, RedisError, EnvelopeError)

ByTool = Mapping[str, Records]


class _Held(NamedTuple):
    """The records of one tenant; not whole while the key of some of them is missing."""

    revision: int
    fields: Mapping[bytes, bytes]
    records: ByTool
    whole: bool


_NOTHING = _Held(0, {}, {}, whole=True)


class StoredSecrets:
    """The records of all tenants' rotations, as far as this replica has them.

    Args:
        client: Where they are kept.
        keyring: Seals them.
        changed: Is given a tenant and its records, by tool, whenever they differ.
    """

    def __init__(self, client: Client, keyring: Keyring, changed: Callable[[str, ByTool], None]) -> None:
        self._client = client
        self._keyring = keyring
        self._changed = changed
        self._held: dict[str, _Held] = {}
        self._applied = -1
        self._loading = asyncio.Lock()
        self._replica = randomness.token_hex(8)
        self._change = Script.load("webhook_security", "secrets_change")
        self._restore = Script.load("webhook_security", "secrets_restore")
        self._seen = Script.load("webhook_security", "secrets_seen")

    def records(self, tenant: str, tool: str) -> Records:
        """What is recorded of a source."""
        return self._held.get(tenant, _NOTHING).records.get(tool, ())

    async def load(self, tenants: Collection[str]) -> None:
        """Have everything, however long Redis takes; before that, what is signed anew would be refused."""
        backoff = Backoff(base_s=0.1, cap_s=2.0)
        while True:
            try:
                await self._sync(tenants)
            except _TROUBLE as error:
                log.warning("secrets.waiting", error=type(error).__name__)
                await backoff.wait()
            else:
                return

    async def keep(self, tenants: Callable[[], Collection[str]]) -> None:
        """Follow the changes for ever. While Redis is away, what we have goes on working."""
        looked = time.monotonic()
        reachable = True
        while True:
            await asyncio.sleep(SYNC_S)
            everywhere = time.monotonic() - looked >= LOOK_EVERYWHERE_S
            try:
                await self._sync(tenants() if everywhere else ())
            except _TROUBLE as error:
                if reachable:
                    log.warning("secrets.not_followed", error=type(error).__name__)
                reachable = False
            else:
                reachable = True
                looked = time.monotonic() if everywhere else looked

    async def leave(self) -> None:
        """No rotation is to wait for this replica any more."""
        try:
            await self._client.hdel(REPLICAS, self._replica)
        except _TROUBLE:
            log.info("secrets.left_silently")

    async def change(self, tenant: str, decide: Callable[[ByTool], Records]) -> int:
        """Write records.

        Args:
            tenant: Whose.
            decide: Says, from what is recorded of the tenant now, which records to write; may be asked more
                than once.

        Returns:
            The number to wait for with `behind`.

        Raises:
            Aborted: SECRETS_CHANGED: others were always faster.
            Unavailable: SECRETS_UNREADABLE: a key is missing, so it is not known what there is.
            REDIS_TROUBLE: Nothing was written, or it is not known.
        """
        backoff = Backoff(base_s=0.01, cap_s=0.1)
        for _ in range(_ATTEMPTS):
            await self._load(tenant)
            held = self._held.get(tenant, _NOTHING)
            if not held.whole:
                raise Unavailable("SECRETS_UNREADABLE", "a key that secrets are sealed with is missing now")
            written = decide(held.records)
            # Announced even where nothing was left to do: the announcement may be what failed the last time.
            if not written or await self._write(tenant, held, written):
                await self._load(tenant)
                return await self._announce(tenant)
            await backoff.wait()
        raise Aborted("SECRETS_CHANGED", "others change the secrets of this tenant: try again")

    async def behind(self, changes: int) -> int:
        """How many other replicas have not come that far, waiting for them a while.

        Where that can't be asked it is 1: the change is made, and may not be known everywhere.
        """
        deadline = time.monotonic() + SPREAD_WITHIN_S
        while True:
            try:
                behind = await self._say(changes)
            except _TROUBLE:
                return 1
            if not behind or time.monotonic() > deadline:
                return behind
            await asyncio.sleep(_SPREAD_CHECK_S)

    async def _say(self, wanted: int) -> int:
        arguments = [self._replica, max(self._applied, 0), wanted, GONE_AFTER_S]
        return int(await self._seen(self._client, [REPLICAS], arguments))

    async def _sync(self, tenants: Collection[str]) -> None:
        changes = int(await self._client.hget(INDEX, _CHANGES) or 0)
        parts = {tenant for tenant, held in self._held.items() if not held.whole}
        if changes != self._applied or tenants or parts:
            found: dict[Any, Any] = await self._client.hgetall(INDEX)
            index = {name.decode(): int(number) for name, number in found.items()}
            changes = index.pop(_CHANGES, 0)
            for tenant in {*index, *self._held, *tenants}:
                if (
                    tenant in parts
                    or tenant in tenants
                    or index.get(tenant) != self._held.get(tenant, _NOTHING).revision
                ):
                    await self._load(tenant)
            self._applied = changes
        await self._say(0)

    async def _announce(self, tenant: str) -> int:
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.hset(INDEX, tenant, self._held.get(tenant, _NOTHING).revision)
            pipeline.hincrby(INDEX, _CHANGES, 1)
            changes = int((await pipeline.execute())[1])
        # Others may have announced something just before: the next look is at everything.
        self._applied = -1
        return changes

    async def _load(self, tenant: str) -> None:
        # One at a time: what was read before somebody else's change would look like a loss.
        async with self._loading:
            await self._load_alone(tenant)

    async def _load_alone(self, tenant: str) -> None:
        fields: dict[Any, Any] = await self._client.hgetall(_key(tenant))
        revision = int(fields.pop(_REVISION, 0))
        held = self._held.get(tenant, _NOTHING)
        if revision < held.revision:
            log.warning("secrets.restored", tenant=tenant, revision=held.revision, found=revision)
            arguments = [held.revision, *(part for pair in held.fields.items() for part in pair)]
            await self._restore(self._client, [_key(tenant)], arguments)
            await self._announce(tenant)
        elif revision > held.revision or not held.whole:
            records, unread = await self._opened(tenant, fields)
            self._held[tenant] = _Held(revision, fields, records, UnknownKey not in unread.values())
            if revision > held.revision:
                _tell(tenant, revision, records, unread)
            self._changed(tenant, records)

    async def _opened(
        self, tenant: str, fields: Mapping[bytes, bytes]
    ) -> tuple[ByTool, Mapping[str, type[EnvelopeError]]]:
        """The records by tool, and why each of the others can't be read."""
        try:
            await self._keyring.prepare([tenant])
        except UnknownKey:
            log.warning("secrets.destroyed", tenant=tenant)
            return {}, {}
        records: dict[str, list[Record]] = {}
        unread: dict[str, type[EnvelopeError]] = {}
        for field, sealed in fields.items():
            name = field.decode()
            tool, _, own_name = name.partition("/")
            try:
                content = orjson.loads(self._keyring.open(tenant, sealed, "secret", name))
            except EnvelopeError as error:
                unread[name] = type(error)
            else:
                records.setdefault(tool, []).append(Record(tool, own_name, **content))
        ordered = {tool: sorted(found, key=lambda record: record.created) for tool, found in records.items()}
        return ordered, unread

    async def _write(self, tenant: str, held: _Held, written: Records) -> bool:
        await self._keyring.prepare([tenant])
        dropped = [_field(record) for records in held.records.values() for record in _forgettable(records)]
        arguments: list[str | int | bytes] = [held.revision, len(dropped), *dropped]
        for record in written:
            field, content = _field(record), record._asdict()
            del content["tool"], content["name"]
            arguments += [
                field,
                self._keyring.seal(tenant, orjson.dumps(content), "secret", field, fresh=True),
            ]
        return int(await self._change(self._client, [_key(tenant)], arguments)) > 0


def _tell(tenant: str, revision: int, records: ByTool, unread: Mapping[str, type[EnvelopeError]]) -> None:
    log.info("secrets.followed", tenant=tenant, revision=revision, tools=sorted(records))
    if unread:
        why = {name: error.__name__ for name, error in unread.items()}
        log.error("secrets.unreadable", tenant=tenant, records=why)


def _forgettable(records: Records) -> Records:
    # The end of a configured secret is never forgotten: the secret would come back to life.
    before = time.time() - _FORGOTTEN_AFTER_S
    return [
        record
        for record in records
        if record.added and record.not_after is not None and record.not_after < before
    ]


def _key(tenant: str) -> str:
    return f"secrets:{{{tenant}}}"


def _field(record: Record) -> str:
    return f"{record.tool}/{record.name}"
