"""The tenants' own compression dictionaries: sealed, never changed, and kept as long as anything needs them.

A dictionary belongs to one tenant and is sealed under that tenant's key, so none can say anything of
another tenant, and none outlives what was compressed with it in any form that can be read. It is deleted
when the keys are destroyed, and not before: nobody can know what still lies somewhere.

In Redis, in one hash slot per tenant: `dictionaries:{<tenant>}`, a hash, has for each use and name
(`events/github`) the id of the newest, and for each id what is known of it; `dictionary:{<tenant>}:<id>`
are the sealed bytes. A new one is used only after every process has had time to load it.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import structlog

from webhook_shared import compression
from webhook_shared.compression import Dictionary
from webhook_shared.redis import Client, Script
from webhook_shared.sealing.errors import EnvelopeError

if TYPE_CHECKING:
    from webhook_shared.dictionaries.copies import Copies
    from webhook_shared.sealing.envelope import Keyring

log = structlog.get_logger()

SPREAD_S = 30.0
"""How long after its adoption a dictionary is first used; well above the age of any key table."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a tenant's dictionary.

    Attributes:
        use: What it compresses: "events".
        name: What it was trained on: "github".
        id: From its content, hex.
        create_ms: When it was trained, Unix milliseconds.
        from_ms: From when on it is used, Unix milliseconds.
        size_bytes: Of itself.
        sample_count: Of those that it was trained and tried on.
        ratio: How many times smaller samples became that it was not trained on.
        plain_ratio: The same samples without a dictionary.
        previous_ratio: The same samples with the dictionary that it replaced; 0 for none.
    """

    use: str
    name: str
    generation: int
    id: str
    create_ms: int
    from_ms: int
    size_bytes: int
    sample_count: int
    ratio: float
    plain_ratio: float
    previous_ratio: float = 0.0


_FIELDS = tuple(one.name for one in fields(Entry))
_ID = re.compile(rb"[0-9a-f]{16}")


class Dictionaries:
    """The dictionaries of the tenants whose keys a process has at hand.

    Args:
        client: Where they are kept.
        use: What this process compresses; it reads with all.
        copies: Where they lie a second time, if anywhere.
        spread_s: See SPREAD_S.
    """

    def __init__(
        self, client: Client, use: str = "", *, copies: Copies | None = None, spread_s: float = SPREAD_S
    ) -> None:
        self.use = use
        self._client = client
        self._copies = copies
        self._spread_ms = int(spread_s * 1000)
        self._in_use: dict[tuple[str, str], Dictionary] = {}
        self._entries: dict[str, dict[str, Entry]] = {}
        self._missed: dict[str, set[str]] = {}
        self._copied: set[tuple[str, str]] = set()
        self._put_back_copies: set[str] = set()
        self._adopt = Script.load("webhook_shared", "dictionary_adopt")
        self._forget = Script.load("webhook_shared", "dictionary_forget")

    def current(self, tenant: str, name: str) -> Dictionary | None:
        """What compresses now: the tenant's own dictionary, else the shipped one, else none."""
        held = self._in_use.get((tenant, name))
        if held is not None:
            return held
        shipped = compression.shipped(name)
        if shipped is not None:
            # Asked once per event; a name that nothing is shipped for may be anybody's, and is not kept.
            self._in_use[tenant, name] = shipped
        return shipped

    def newest(self, tenant: str, name: str) -> Entry | None:
        """What is known of a tenant's newest dictionary of a name, in use or soon to be."""
        return self._newest(tenant, self.use, name)

    def _newest(self, tenant: str, use: str, name: str) -> Entry | None:
        generations = [one for one in self.entries(tenant) if (one.use, one.name) == (use, name)]
        return generations[-1] if generations else None

    def entries(self, tenant: str) -> list[Entry]:
        """What is known of a tenant's dictionaries of all uses, the newest of each name last."""
        known = self._entries.get(tenant, {}).values()
        return sorted(known, key=lambda one: (one.use, one.name, one.generation))

    def is_used(self, tenant: str, entry: Entry) -> bool:
        """Whether it is the one that compresses now what it is for."""
        rivals = [
            one.generation
            for one in self.entries(tenant)
            if (one.use, one.name) == (entry.use, entry.name) and one.from_ms <= _now_ms()
        ]
        return bool(rivals) and max(rivals) == entry.generation

    def miss(self, tenant: str, one: bytes) -> None:
        """Something was met that needs this dictionary; `load` looks for it."""
        self._missed.setdefault(tenant, set()).add(one.hex())

    async def load(self, tenant: str, keyring: Keyring) -> None:
        """Have a tenant's dictionaries at hand; put back what Redis has lost and we still have.

        Raises:
            REDIS_TROUBLE: What was here before still is.
        """
        entries = await self._index(tenant)
        lost = [entry for one, entry in self._entries.get(tenant, {}).items() if one not in entries]
        for entry in lost:
            await self._put_back(tenant, entry, keyring)
            entries[entry.id] = entry
        missed = set(self._missed.get(tenant, ()))
        for one in {*entries, *missed}:
            if compression.known(bytes.fromhex(one)) is None:
                await self._fetch(tenant, one, entries.get(one), keyring)
        # Only now: another task that missed the same must not think that it is all here already.
        self._missed.get(tenant, set()).difference_update(missed)
        self._entries[tenant] = entries
        self._choose(tenant)

    async def _index(self, tenant: str) -> dict[str, Entry]:
        found: dict[Any, Any] = await self._client.hgetall(_index_key(tenant))
        entries = {name.decode(): _entry(known) for name, known in found.items() if _ID.fullmatch(name)}
        return {one: entry for one, entry in entries.items() if entry is not None and entry.id == one}

    def _choose(self, tenant: str) -> None:
        now_ms = _now_ms()
        for entry in self.entries(tenant):
            here = compression.known(bytes.fromhex(entry.id))
            if entry.use == self.use and entry.from_ms <= now_ms and here is not None:
                self._in_use[tenant, entry.name] = here

    async def _fetch(self, tenant: str, one: str, entry: Entry | None, keyring: Keyring) -> None:
        sealed: Any = await self._client.get(_key(tenant, one))
        if sealed is None and self._copies is not None:
            sealed = await self._copies.get(tenant, one)
            if sealed is not None:
                await self._client.set(_key(tenant, one), sealed, nx=True)
        if sealed is None:
            log.warning("dictionary.missing", tenant=tenant, dictionary=one)
            return
        try:
            content = keyring.open(tenant, sealed, "dictionary", one)
        except EnvelopeError as error:
            log.error("dictionary.unreadable", tenant=tenant, dictionary=one, error=type(error).__name__)
            return
        name, generation = (entry.name, entry.generation) if entry else ("", 0)
        learned = Dictionary.of(name, generation, content)
        if learned.id.hex() != one:
            log.error("dictionary.unreadable", tenant=tenant, dictionary=one, error="AnotherDictionary")
            return
        compression.learn(learned)

    async def _put_back(self, tenant: str, entry: Entry, keyring: Keyring) -> None:
        here = compression.known(bytes.fromhex(entry.id))
        if here is None:
            return
        log.warning("dictionary.put_back", tenant=tenant, dictionary=entry.id)
        sealed = _sealed(tenant, entry.id, here.content, keyring)
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(_key(tenant, entry.id), sealed, nx=True)
            pipeline.hset(_index_key(tenant), entry.id, json.dumps(asdict(entry)))
            if self._newest(tenant, entry.use, entry.name) == entry:
                pipeline.hsetnx(_index_key(tenant), f"{entry.use}/{entry.name}", entry.id)
            await pipeline.execute()

    async def recall(self, tenant: str, keyring: Keyring) -> None:
        """Have what was missed at hand, from Redis or from its copies; nothing is written."""
        for one in self._missed.pop(tenant, set()):
            sealed: Any = await self._client.get(_key(tenant, one))
            if sealed is None and self._copies is not None:
                sealed = await self._copies.get(tenant, one)
            if sealed is None:
                continue
            try:
                learned = Dictionary.of("", 0, keyring.open(tenant, sealed, "dictionary", one))
            except EnvelopeError as error:
                log.error("dictionary.unreadable", tenant=tenant, dictionary=one, error=type(error).__name__)
                continue
            if learned.id.hex() == one:
                compression.learn(learned)

    async def adopt(
        self, tenant: str, content: bytes, entry: Entry, previous: Entry | None, keyring: Keyring
    ) -> Entry | None:
        """Let a new dictionary replace another one, a while from now; None where a third was faster.

        It is durable everywhere before anything can be compressed with it.

        Args:
            tenant: Whose; prepared.
            content: The dictionary.
            entry: What is known of it; generation, id and times are filled in here.
            previous: The newest when the training began.
            keyring: Seals it.

        Raises:
            REDIS_TROUBLE, ObjectTrouble: It may have been adopted; nothing is half done.
        """
        now_ms = _now_ms()
        learned = Dictionary.of(entry.name, previous.generation + 1 if previous else 1, content)
        entry = replace(
            entry,
            generation=learned.generation,
            id=learned.id.hex(),
            create_ms=now_ms,
            from_ms=now_ms + self._spread_ms,
        )
        sealed = _sealed(tenant, entry.id, content, keyring)
        if self._copies is not None:
            await self._copies.put(tenant, entry.id, sealed)
        where = [_index_key(tenant), _key(tenant, entry.id)]
        slot = f"{entry.use}/{entry.name}"
        known = [slot, previous.id if previous else "", entry.id, json.dumps(asdict(entry)), sealed]
        if not await self._adopt(self._client, where, known):
            return None
        compression.learn(learned)
        self._entries.setdefault(tenant, {})[entry.id] = entry
        self._choose(tenant)
        return entry

    async def copy(self, tenant: str) -> None:
        """Copy those of a tenant's dictionaries, of all uses, that have no copy yet.

        The first time, copies of what Redis has lost go back into it, for those who can't reach them.

        Raises:
            REDIS_TROUBLE, ObjectTrouble: The rest is copied the next time.
        """
        if self._copies is None:
            return
        if tenant not in self._put_back_copies:
            await self._restore(tenant, self._copies)
            self._put_back_copies.add(tenant)
        for one in await self._index(tenant):
            if (tenant, one) in self._copied:
                continue
            sealed: Any = await self._client.get(_key(tenant, one))
            if sealed is not None and await self._copies.get(tenant, one) is None:
                await self._copies.put(tenant, one, sealed)
            self._copied.add((tenant, one))

    async def _restore(self, tenant: str, copies: Copies) -> None:
        if await self._client.hexists(_table(tenant), "destroyed"):
            return
        for one in await copies.all(tenant):
            if not await self._client.exists(_key(tenant, one)):
                sealed = await copies.get(tenant, one)
                if sealed is not None:
                    log.warning("dictionary.put_back", tenant=tenant, dictionary=one)
                    await self._client.set(_key(tenant, one), sealed, nx=True)

    async def forget(self, tenant: str) -> int:
        """Delete the dictionaries of a tenant whose keys have been destroyed; how many there were.

        Returns:
            -1 where the tenant has keys: then nothing is deleted, since something may need them.

        Raises:
            REDIS_TROUBLE, ObjectTrouble: Some may be left; nobody can open them.
        """
        mine = await self._index(tenant)
        places = [_key(tenant, one) for one in mine]
        tables = [_table(tenant), _index_key(tenant)]
        deleted = int(await self._forget(self._client, [*tables, *places]))
        if deleted < 0:
            return deleted
        self.let_go(tenant)
        if self._copies is not None:
            # Also those of which Redis knows nothing any more, as after a call that was cut short.
            for one in {*mine, *await self._copies.all(tenant)}:
                await self._copies.delete(tenant, one)
        return deleted

    def let_go(self, tenant: str) -> None:
        """The tenant's keys are no more: compress nothing with its dictionaries."""
        self._entries.pop(tenant, None)
        self._in_use = {slot: entry for slot, entry in self._in_use.items() if slot[0] != tenant}


def _entry(known: bytes) -> Entry | None:
    """What is written of a dictionary, by whichever version; None where it is not to be read."""
    try:
        written = json.loads(known)
        return Entry(**{name: written[name] for name in _FIELDS if name in written})
    except (ValueError, TypeError):
        return None


def _sealed(tenant: str, one: str, content: bytes, keyring: Keyring) -> bytes:
    return keyring.seal(tenant, content, "dictionary", one, fresh=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _table(tenant: str) -> str:
    # As the keyring has it.
    return f"tenantkey:{{{tenant}}}"


def _index_key(tenant: str) -> str:
    return f"dictionaries:{{{tenant}}}"


def _key(tenant: str, one: str) -> str:
    return f"dictionary:{{{tenant}}}:{one}"
