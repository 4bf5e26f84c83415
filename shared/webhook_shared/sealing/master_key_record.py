"""Which master keys there are and which one seals: on record in Redis, and beside the sealed objects.

A process settles on its keys when it starts, and does not start while a key is missing that something still
needs. Who has the objects, too, finds the record there where Redis has lost it.
"""

from __future__ import annotations

import time
from typing import Any

import structlog

from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client
from webhook_shared.sealing.envelope import KEY_TABLES, table
from webhook_shared.sealing.master_keys import RECORD, MasterKey, MasterKeys
from webhook_shared.sealing.tenant_keys import wrapped_under

log = structlog.get_logger()

BEQUESTS = "keys/roots/"
"""The names of the objects that a master key inherits: this and its id."""
_NEEDED, _RETIRED, _SINCE, _INHERITED = "needed:", "retired:", "since:", "inherited:"


async def settle(client: Client, keys: MasterKeys, objects: ObjectStore | None = None) -> None:
    """Go by the record, which is made where there is none and it can be told. Waits for Redis.

    Args:
        client: Has the record.
        keys: Of this process.
        objects: Where the record's copy is; None: this process has none, and makes no record.

    Raises:
        ValueError: A master key is missing that something still needs. One line says which.
    """
    backoff = Backoff()
    while True:
        try:
            return await _settle(client, keys, objects)
        except REDIS_TROUBLE as error:
            log.warning("keys.waiting_for_redis", error=type(error).__name__)
            await backoff.wait()


async def _settle(client: Client, keys: MasterKeys, objects: ObjectStore | None) -> None:
    record = await read(client)
    if "sealing" not in record:
        await _check_tables(client, keys)
        if objects is None or not await begin(client, keys, objects):
            return
        record = await read(client)
    missing = [one for one in needed(record) if not keys.has(one)]
    if missing:
        raise ValueError(
            f"master key {', '.join(missing)} is still needed and neither ENCRYPTION_MASTER_KEY nor one of "
            f"ENCRYPTION_PREVIOUS_MASTER_KEYS (here: {', '.join(keys.ids)}): put it back; "
            "`webhook-cli keys status` says when it may go"
        )
    for key_id in keys.ids:
        sealed = record.get(_INHERITED + key_id)
        if sealed is not None:
            keys.inherit(key_id, bytes.fromhex(sealed))
    keys.holds(record["sealing"], record["origin"])


async def _check_tables(client: Client, keys: MasterKeys) -> None:
    """Refuse to begin where a key table, any of them, was written under a key that is not here."""
    tenant: Any = await client.srandmember(KEY_TABLES)
    held: Any = await client.hvals(table(tenant.decode())) if tenant else []
    missing = {under for entry in held if (under := wrapped_under(entry.decode())) and not keys.has(under)}
    if missing:
        raise ValueError(
            f"tenants' keys are wrapped under master key {', '.join(sorted(missing))}, which is not here: "
            "set ENCRYPTION_MASTER_KEY or ENCRYPTION_PREVIOUS_MASTER_KEYS to it"
        )


async def begin(client: Client, keys: MasterKeys, objects: ObjectStore) -> bool:
    """Make the record where there is none; False where it is not known whether there was one.

    Raises:
        ValueError: The objects were sealed under a key that is not here.
        REDIS_TROUBLE: To be repeated.
    """
    if "sealing" in await read(client):
        return True
    try:
        names = await objects.names(BEQUESTS)
    except ObjectTrouble:
        # A directory comes to be with its first object, and a bucket may be away: the oldest key seals.
        return False
    heirs = [name.removeprefix(BEQUESTS) for name in names]
    known = [one for one in keys.ids if one in heirs]
    if heirs and not known:
        raise ValueError(
            f"the objects were sealed under master key {' or '.join(heirs)}, which is not here: "
            "set ENCRYPTION_MASTER_KEY or ENCRYPTION_PREVIOUS_MASTER_KEYS to it"
        )
    for heir in known[:1]:
        sealed = await _object(objects, BEQUESTS + heir)
        keys.inherit(heir, sealed)
        await client.hset(RECORD, _INHERITED + heir, sealed.hex())
    sealing = known[0] if known else keys.origin
    await write_beginning(client, keys, sealing)
    return True


async def write_beginning(client: Client, keys: MasterKeys, sealing: str) -> None:
    """Put on record what holds before any rotation, where nothing is."""
    needs = keys.ids if sealing != keys.origin else [sealing]
    fields: dict[str, str | int] = {"origin": keys.origin, _SINCE + sealing: _now()}
    fields |= {_NEEDED + one: _now() for one in needs}
    async with client.pipeline(transaction=True) as pipeline:
        for name, value in fields.items():
            pipeline.hsetnx(RECORD, name, value)
        # Last: whoever finds this finds all of it.
        pipeline.hsetnx(RECORD, "sealing", sealing)
        await pipeline.execute()


async def change_over(client: Client, keys: MasterKeys, objects: ObjectStore, heir: MasterKey) -> None:
    """Let another key seal, in every process within RECORD_AGE_S; may be repeated.

    Raises:
        ObjectTrouble, REDIS_TROUBLE: It may seal or not.
    """
    if "sealing" not in await read(client):
        await write_beginning(client, keys, keys.sealing.id)
    # Before anything can need it.
    sealed = await _bequeathed(keys, objects, heir)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.hset(RECORD, _INHERITED + heir.id, sealed.hex())
        pipeline.hset(RECORD, _NEEDED + heir.id, _now())
        pipeline.hset(RECORD, "sealing", heir.id)
        pipeline.hsetnx(RECORD, _SINCE + heir.id, _now())
        pipeline.hdel(RECORD, _RETIRED + heir.id)
        await pipeline.execute()
    await keys.reread(client)


async def _bequeathed(keys: MasterKeys, objects: ObjectStore, heir: MasterKey) -> bytes:
    name = BEQUESTS + heir.id
    if name in await _names(objects):
        held = await _object(objects, name)
        if keys.inherit(heir.id, held):
            # An attempt before this one has left it.
            return held
        await objects.delete(name)
    sealed = keys.bequest(heir)
    await objects.put(name, sealed)
    if await _object(objects, name) != sealed:
        raise ObjectTrouble("NotAsWritten")
    return sealed


async def retire(client: Client, objects: ObjectStore, sealing: str) -> list[str]:
    """Note that no key but this one is needed any more; returns the ids of those that were.

    Raises:
        ObjectTrouble, REDIS_TROUBLE: To be repeated.
    """
    record = await read(client)
    old = [one for one in needed(record) if one != sealing]
    for name in await _names(objects):
        if name != BEQUESTS + sealing:
            await objects.delete(name)
    async with client.pipeline(transaction=True) as pipeline:
        for one in old:
            pipeline.hdel(RECORD, _NEEDED + one, _INHERITED + one)
            pipeline.hset(RECORD, _RETIRED + one, _now())
        await pipeline.execute()
    return old


async def read(client: Client) -> dict[str, str]:
    """The record as it stands.

    Raises:
        REDIS_TROUBLE: Not now.
    """
    found: Any = await client.hgetall(RECORD)
    return {name.decode(): value.decode() for name, value in found.items()}


def needed(record: dict[str, str]) -> list[str]:
    """The ids of the keys that something is still sealed under."""
    return sorted(name.removeprefix(_NEEDED) for name in record if name.startswith(_NEEDED))


def retired(record: dict[str, str]) -> dict[str, int]:
    """When keys came to be needed no more, Unix milliseconds, by id."""
    return _times(record, _RETIRED)


def since(record: dict[str, str]) -> dict[str, int]:
    """When keys began to seal, Unix milliseconds, by id."""
    return _times(record, _SINCE)


def _times(record: dict[str, str], kind: str) -> dict[str, int]:
    return {name.removeprefix(kind): int(value) for name, value in record.items() if name.startswith(kind)}


async def _names(objects: ObjectStore) -> list[str]:
    try:
        return await objects.names(BEQUESTS)
    except ObjectTrouble:
        # A directory comes to be with its first object; what is away says so again.
        return []


async def _object(objects: ObjectStore, name: str) -> bytes:
    try:
        return await objects.get(name)
    except ObjectMissing:
        raise ObjectTrouble("NotAsWritten") from None


def _now() -> int:
    return time.time_ns() // 1_000_000
