"""Rotation: from one master key to the next, in the background, without touching anything that was sealed.

What a rotation does, in steps that may each be repeated:
1. the next key inherits what must outlive the last one, and seals from then on, in every process;
2. each tenant's keys are wrapped under it, a new one of them seals, and their copies beside the sealed
   objects follow;
3. when every process must have noticed, all of it is looked through once more; then copies under the last
   key are dropped, the head of the audit chain is sealed anew, and the last key is needed no more.

How far it is stands in Redis. One replica at a time works on it, by a lease; whoever takes over finds what is
done done. That two do for a moment does no harm.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from enum import IntEnum

import orjson
import structlog
from webhook_shared.errors import Aborted
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.redis import REDIS_TROUBLE, Backoff, Client
from webhook_shared.sealing import master_key_record
from webhook_shared.sealing.key_copies import KeyCopies
from webhook_shared.sealing.master_keys import RECORD, RECORD_AGE_S, MasterKey, MasterKeys

from webhook_context import metrics
from webhook_context.master_keys.key_tables import KeyTables

log = structlog.get_logger()

PER_SECOND = 200
"""Tenants whose keys are rewrapped in a second, unless the order says otherwise."""
LEASE = "masterkeys:lease"
_FIELD = "rotation"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a rotation waits for what.

    Attributes:
        poll_s: How often to look whether something is ordered.
        lease_ms: How long whoever works on it may be silent before another goes on.
        settled_ms: After so long every process has noticed which key seals, and has read the key tables anew.
    """

    poll_s: float = 2.0
    lease_ms: int = 15_000
    settled_ms: int = int(3000 * RECORD_AGE_S)


class Phase(IntEnum):
    """Where a rotation is; numbers as in the contract."""

    CHANGING_OVER = 1
    REWRAPPING = 2
    SETTLING = 3
    DONE = 4


@dataclass(frozen=True, slots=True)
class State:
    """How far a rotation is; times are Unix milliseconds.

    Attributes:
        target: The id of the key that is to seal.
        tenants: How many key tables there are.
        tenants_done: How many of them have been seen to.
        rewrapped: Keys that have been put under the target.
        damaged: Keys that can't be read. They hold up the end.
        stale_copies: Copies under other keys whose tenants no table in Redis has. They hold up the end, too.
        trouble: What stopped the last attempt: UPPER_SNAKE_CASE; empty where nothing did.
        retired: The ids of the keys that are needed no more.
    """

    target: str
    phase: Phase
    start_ms: int
    per_second: int = PER_SECOND
    tenants: int = 0
    tenants_done: int = 0
    rewrapped: int = 0
    damaged: int = 0
    stale_copies: int = 0
    settled_from_ms: int = 0
    end_ms: int = 0
    trouble: str = ""
    retired: tuple[str, ...] = ()


class Rotation:
    """Rotates when told to, and goes on with what anybody was told to.

    Args:
        client: Has everything.
        master_keys: Of this process; the newest is what a rotation goes to.
        tables: Of the tenants.
        copies: Of the tables.
        objects: Where the copies lie.
        reseal: Seals the head of the audit chain anew.
        timing: How long to wait for what.
    """

    def __init__(
        self,
        client: Client,
        master_keys: MasterKeys,
        tables: KeyTables,
        copies: KeyCopies,
        objects: ObjectStore,
        *,
        reseal: Callable[[], Awaitable[None]],
        timing: Timing | None = None,
    ) -> None:
        self._client = client
        self._master_keys = master_keys
        self._tables = tables
        self._copies = copies
        self._objects = objects
        self._reseal = reseal
        self._timing = timing or Timing()
        self._token = secrets.token_hex(8)

    async def state(self) -> State | None:
        """Of the rotation under way, or of the last one; None where there was none.

        Raises:
            REDIS_TROUBLE: Not now.
        """
        held = await self._client.hget(RECORD, _FIELD)
        return _read(held) if held else None

    async def order(self, per_second: int) -> State:
        """Have everything put under the newest key; what is under way already goes on as it is.

        Args:
            per_second: At most so many tenants a second.

        Raises:
            Aborted: ROTATION_UNDER_WAY, to another key than this process would.
            REDIS_TROUBLE: It is ordered or not.
        """
        state = await self.state()
        target = self._master_keys.newest.id
        if state and state.phase != Phase.DONE:
            if state.target != target:
                raise Aborted("ROTATION_UNDER_WAY", f"a rotation to master key {state.target} is under way")
            return state
        state = State(target, Phase.CHANGING_OVER, _now_ms(), per_second=per_second)
        log.info("rotation.ordered", target=target)
        await self._note(state)
        return state

    async def run(self) -> None:
        """Work on what is ordered, for ever and through every outage."""
        backoff = Backoff()
        has_record = False
        while True:
            try:
                # A process that could not tell at its start, since there were no objects yet, can later.
                has_record = has_record or await master_key_record.begin(
                    self._client, self._master_keys, self._objects
                )
                if not await self.advance():
                    await asyncio.sleep(self._timing.poll_s)
                backoff.reset()
            except Exception as error:  # noqa: BLE001  # whatever it is, the rotation goes on
                log.warning("rotation.interrupted", error=type(error).__name__)
                await self._tell_trouble(error)
                await backoff.wait()

    async def advance(self) -> bool:
        """Do the next step, if there is one and nobody else does it; whether there was.

        Raises:
            ObjectTrouble, REDIS_TROUBLE: To be repeated.
        """
        state = await self.state()
        if state is None or state.phase == Phase.DONE or not self._master_keys.has(state.target):
            return False
        if not await self._lead():
            return False
        target = self._master_keys.key(state.target)
        if state.phase == Phase.CHANGING_OVER:
            await self._tables.discover()
            await master_key_record.change_over(self._client, self._master_keys, self._objects, target)
            await self._note(replace(state, phase=Phase.REWRAPPING, trouble=""))
        elif state.phase == Phase.REWRAPPING:
            state = await self._pass(state, target)
            await self._note(replace(state, phase=Phase.SETTLING, settled_from_ms=_now_ms(), trouble=""))
        elif _now_ms() - state.settled_from_ms < self._timing.settled_ms:
            return False
        else:
            await self._settle(state, target)
        return True

    async def _pass(self, state: State, target: MasterKey) -> State:
        """See to all tables once."""
        tenants = await self._tables.tenants()
        state = replace(state, tenants=len(tenants), tenants_done=0, damaged=0, trouble="")
        started = noted = time.monotonic()
        for done, tenant in enumerate(tenants, 1):
            outcome = await self._tables.rewrap(tenant, target)
            if outcome.destroyed:
                await self._copies.destroy(tenant)
            elif outcome.entries:
                await self._copies.keep(tenant, outcome.entries)
            metrics.KEYS_REWRAPPED.inc(outcome.count)
            state = replace(
                state,
                tenants_done=done,
                rewrapped=state.rewrapped + outcome.count,
                damaged=state.damaged + outcome.damaged,
            )
            if time.monotonic() - noted > self._timing.lease_ms / 4000 or done == len(tenants):
                noted = time.monotonic()
                metrics.ROTATION_REMAINING.set(len(tenants) - done)
                await self._note(state)
                await self._lead()
            await asyncio.sleep(max(0.0, done / state.per_second - (time.monotonic() - started)))
        return state

    async def _settle(self, state: State, target: MasterKey) -> None:
        before = state.rewrapped
        state = await self._pass(state, target)
        if state.rewrapped > before:
            # Somebody had not noticed yet.
            await self._note(replace(state, settled_from_ms=_now_ms()))
            return
        for tenant in await self._tables.tenants():
            await self._copies.drop_others(tenant, target.id)
        stale = 0
        async for key_id in self._copies.master_keys():
            stale += key_id != target.id
        state = replace(state, stale_copies=stale)
        if state.damaged or stale:
            log.warning("rotation.held_up", damaged=state.damaged, stale_copies=stale)
            await self._note(replace(state, settled_from_ms=_now_ms()))
            return
        await self._reseal()
        retired = await master_key_record.retire(self._client, self._objects, target.id)
        log.info("rotation.done", target=target.id, retired=retired, rewrapped=state.rewrapped)
        await self._note(replace(state, phase=Phase.DONE, end_ms=_now_ms(), retired=tuple(retired)))

    async def _lead(self) -> bool:
        token = self._token.encode()
        if await self._client.set(LEASE, token, nx=True, px=self._timing.lease_ms):
            return True
        if await self._client.get(LEASE) != token:
            return False
        await self._client.pexpire(LEASE, self._timing.lease_ms)
        return True

    async def _note(self, state: State) -> None:
        await self._client.hset(RECORD, _FIELD, orjson.dumps(asdict(state)))

    async def _tell_trouble(self, error: Exception) -> None:
        reason = "COLD_STORE_UNREACHABLE" if isinstance(error, ObjectTrouble) else "INTERNAL"
        if isinstance(error, REDIS_TROUBLE):
            return
        try:
            state = await self.state()
            if state is not None and state.phase != Phase.DONE:
                await self._note(replace(state, trouble=reason))
        except REDIS_TROUBLE:
            # It is said in the log.
            return


def _read(held: bytes | str) -> State:
    told = orjson.loads(held)
    return State(**{**told, "phase": Phase(told["phase"]), "retired": tuple(told["retired"])})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
