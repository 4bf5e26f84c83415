"""The event queue on SQS, standard or FIFO.

SQS keeps the leases: a message that was handed out is nobody else's until its visibility runs out, which
the heartbeat puts off. So nothing is taken over, promoted or handed on here; SQS does that by itself. What
it can't count is kept in Redis beside: how often an entry failed, and how often it came back in good order,
which is no sign that it kills its workers. Dead letters go where those of the stream go.

A process settles nothing whose visibility has run out by its own clock.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from webhook_shared.objects.protocol import ObjectMissing, ObjectStore, ObjectTrouble
from webhook_shared.redis import Client
from webhook_shared.sqs.client import (
    BATCH_ENTRIES,
    LONGEST_VISIBILITY_S,
    LONGEST_WAIT_S,
    Fault,
    Received,
    Sqs,
    SqsTrouble,
    side_by_side,
)
from webhook_shared.sqs.message import Message, NotOurs, Stored, decode
from webhook_shared.tasks import ended
from webhook_shared.telemetry import log

from webhook_consumer.entry import Entry
from webhook_consumer.queue.redis import QUEUE_TROUBLE, Burial, Claimed, Counts, Delayed, Lane
from webhook_consumer.sqs.notes import Notes

# Calls at once; each carries ten messages.
AT_ONCE = 8
# Entries that are put aside come back to see whether they may go on: soon at first, then less and less often.
LONGEST_PARKED_S = 60
# How long the answer to a call may have been under way.
HANDED_OUT_WITHIN_S = 1.0
SWEPT_WITHIN_S = 2.0
STAGE = "sqs"

#: Fields that no entry of a stream has; a dead letter has the last one only where the body is not to be had.
UNREADABLE, CLAIM, STORED = b"unreadable", b"claim", b"stored"

_UNTIDY: tuple[type[BaseException], ...] = (*QUEUE_TROUBLE, ObjectTrouble)
_Call = Callable[[Sequence[str]], Awaitable[list[Fault | None]]]


@dataclass(slots=True)
class _Held:
    entry: Entry
    handle: str
    until_s: float
    noted: bool
    in_order: int


class SqsQueue:
    """Stage one's queue on SQS, as one process sees it.

    Args:
        sqs: The queue.
        events: Stage one's lane in Redis: whose dead letters it shares.
        redis: For counts and dead letters.
        objects: Where bodies lie that are too large for a message.
        block_ms: How long a read waits for the first entry; SQS knows whole seconds, LONGEST_WAIT_S at most.
        visibility_ms: How long an entry stays this process's without a heartbeat; rounded up to seconds.
    """

    def __init__(
        self,
        sqs: Sqs,
        events: Lane,
        redis: Client,
        objects: ObjectStore,
        *,
        block_ms: int,
        visibility_ms: int,
    ) -> None:
        self.lane = Lane(STAGE, sqs.name, STAGE, events.dead_letters)
        self.name = STAGE
        self._sqs = sqs
        self._redis = redis
        self._notes = Notes(redis, events.stream)
        self._objects = objects
        self._block_ms = block_ms
        self._visibility_s = min(max(1, math.ceil(visibility_ms / 1000)), LONGEST_VISIBILITY_S)
        self._held: dict[bytes, _Held] = {}
        self._numbers = itertools.count()
        self._stale_at_s = 0.0
        self._woken = asyncio.Event()
        self._sweeping: set[asyncio.Task[None]] = set()

    async def join(self) -> None:
        """See that SQS answers."""
        await self._sqs.counts()

    async def keep_name(self) -> bool:
        """True: SQS knows nobody by name."""
        return True

    async def leave(self) -> None:
        """Tidy up what there is time for."""
        if self._sweeping:
            await asyncio.wait(self._sweeping, timeout=SWEPT_WITHIN_S)
        await ended(self._sweeping)

    async def read(self, most: int) -> list[Entry]:
        """New entries; waits up to `block_ms` for the first.

        One call waits. Only where it comes back full do several more fetch what else there is.
        """
        self._woken.clear()
        asked_s = time.monotonic()
        self._forget_stale(asked_s)
        wait_s = min(self._block_ms // 1000, LONGEST_WAIT_S)
        received = await self._sqs.receive(most, wait_s=wait_s, visibility_s=self._visibility_s)
        # What a call brings that waited was handed out at its end.
        until_s = max(asked_s, time.monotonic() - HANDED_OUT_WITHIN_S) + self._visibility_s
        if len(received) == BATCH_ENTRIES < most:
            received += await self._burst(most - len(received))
        if not received and not wait_s:
            await self._sleep(self._block_ms / 1000)
        return await self._entries(received, until_s)

    def _forget_stale(self, now_s: float) -> None:
        """Let go of entries that nobody settled: they have long been handed out again."""
        if now_s < self._stale_at_s:
            return
        self._stale_at_s = now_s + self._visibility_s
        self._drop(
            [held.entry.id for held in self._held.values() if held.until_s + self._visibility_s < now_s]
        )

    async def _burst(self, most: int) -> list[Received]:
        sizes = [min(BATCH_ENTRIES, most - at) for at in range(0, most, BATCH_ENTRIES)]
        calls = [
            partial(self._sqs.receive, size, wait_s=0, visibility_s=self._visibility_s)
            for size in sizes[:AT_ONCE]
        ]
        # What failed is there the next time; what came is ours by now.
        found = await side_by_side(calls, AT_ONCE)
        return [message for portion in found if isinstance(portion, list) for message in portion]

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def wake(self) -> None:
        """End the wait between two reads. A read itself is not cut off: what it was given would be hidden."""
        self._woken.set()

    async def _entries(self, received: Sequence[Received], until_s: float) -> list[Entry]:
        again = [message for message in received if message.receives > 1]
        noted = await self._notes.read([message.id for message in again])
        counts = dict(zip((message.id for message in again), noted, strict=True))
        entries = []
        for message in received:
            failures, in_order = counts.get(message.id, (0, 0))
            sent_ms = message.sent_ms or round(time.time() * 1000)
            # One for each time that it is handed out: a message may be back before its old hold has ended.
            entry_id = b"%d-%d-%s" % (sent_ms, next(self._numbers), message.id.encode())
            fields = _fields(message.body)
            if failures:
                fields[b"attempt"] = b"%d" % failures
            entry = Entry(entry_id, fields, max(1, message.receives - in_order))
            self._held[entry_id] = _Held(entry, message.handle, until_s, message.receives > 1, in_order)
            entries.append(entry)
        return entries

    async def claim(
        self, cursor: bytes, *, held: Sequence[bytes], room: int, idle_ms: int | None = None
    ) -> Claimed:
        """Nothing: SQS hands out again what nobody has settled in time."""
        return Claimed([], 0, b"")

    async def promote(self, most: int) -> tuple[int, int | None]:
        """Nothing: SQS shows again what is due."""
        return 0, None

    async def ack(self, ids: Sequence[bytes]) -> list[bytes]:
        """Delete. Returns the ids whose visibility has run out, which stay as they are."""
        lost, done, trouble = await self._each(ids, self._sqs.delete)
        self._drop([*lost, *(held.entry.id for held in done)])
        self._sweep(done)
        if trouble:
            raise trouble
        return lost

    async def renew(self, ids: Sequence[bytes]) -> list[bytes]:
        """Put off the end of their visibility. Returns the ids whose visibility has run out.

        SQS allows LONGEST_VISIBILITY_S in all since an entry was handed out; past that it is lost.
        """
        until_s = time.monotonic() + self._visibility_s
        lost, done, trouble = await self._each(ids, self._hiding(ids, [self._visibility_s] * len(ids)))
        self._drop(lost)
        for held in done:
            held.until_s = until_s
        if trouble:
            raise trouble
        return lost

    async def delay(self, items: Sequence[Delayed]) -> list[bytes]:
        """Hide entries until they are due, LONGEST_VISIBILITY_S at most. Returns the ids that are lost."""
        await self._came_back([(item.id, item.failures) for item in items])
        seconds = [min(round(item.delay_ms / 1000), LONGEST_VISIBILITY_S) for item in items]
        return await self._hide([item.id for item in items], seconds)

    async def park(self, entries: Sequence[Entry]) -> list[bytes]:
        """Hide entries, for longer each time, up to LONGEST_PARKED_S. Returns the ids that are lost."""
        await self._came_back([(entry.id, entry.failures) for entry in entries])
        mine = [held for entry in entries if (held := self._held.get(entry.id))]
        seconds = [min(2 ** min(held.in_order, 10), LONGEST_PARKED_S) for held in mine]
        return await self._hide([held.entry.id for held in mine], seconds)

    async def unpark(self, most: int, allowances: Mapping[str, int], *, wanted: int, least: int) -> int:
        """Nothing: SQS shows again what was hidden."""
        return 0

    async def reap(self, idle_ms: int, most: int) -> list[str]:
        """Nobody: SQS knows nobody by name."""
        return []

    async def release(self, ids: Sequence[bytes], idle_ms: int) -> None:
        """Show entries that were not started to everybody again."""
        mine = [self._held[entry_id].entry for entry_id in ids if entry_id in self._held]
        await self._came_back([(entry.id, entry.failures) for entry in mine])
        await self._hide([entry.id for entry in mine], [0] * len(mine))

    async def bury(self, items: Sequence[Burial]) -> list[bytes]:
        """Move entries to the dead letters of the stream. Returns the ids whose visibility has run out.

        Killed in between, an entry is there twice rather than nowhere.
        """
        now_s = time.monotonic()
        known = [item for item in items if item.id in self._held]
        lost = [item.id for item in known if self._held[item.id].until_s <= now_s]
        self._drop(lost)
        mine = [item for item in known if item.id in self._held]
        letters = await asyncio.gather(*(self._letter(item) for item in mine))
        async with self._redis.pipeline(transaction=False) as together:
            for letter in letters:
                together.xadd(self.lane.dead_letters, letter)
            if letters:
                await together.execute()
        return lost + await self.ack([item.id for item in mine])

    async def _letter(self, item: Burial) -> dict[Any, Any]:
        held = self._held[item.id]
        fields = {name: value for name, value in held.entry.fields.items() if name not in {CLAIM, STORED}}
        if stored := held.entry.fields.get(STORED):
            try:
                fields[b"sealed"] = await self._objects.get(Stored(*orjson.loads(stored)).name)
            except (ObjectMissing, ObjectTrouble):
                # The letter says where it would be.
                fields[STORED] = stored
        return fields | {
            b"cause": str(item.cause).encode(),
            b"detail": item.detail.encode(errors="replace"),
            b"attempt": b"%d" % item.failures,
            b"fingerprint": item.fingerprint.encode(),
            b"first_id": item.id.partition(b"-")[0] + b"-0",
        }

    async def accuse(self, entry_id: bytes) -> int:
        """Note that a suspect is about to be started alone. Returns how often that has been noted."""
        return await self._notes.accuse(_message_id(entry_id))

    async def acquit(self, entry_id: bytes) -> None:
        """Forget the notes on a suspect that came to an end."""
        await self._notes.acquit(_message_id(entry_id))

    async def counts(self) -> Counts:
        """Where the entries are, as nearly as SQS knows; what is hidden for another try is in flight.

        What this service gives up is among the stream's dead letters; dead here is what SQS itself gave up.
        """
        (waiting, in_flight, delayed), dead = await asyncio.gather(self._sqs.counts(), self._sqs.given_up())
        return Counts(waiting, in_flight, delayed, due=0, dead=dead, oldest_ms=None)

    async def consumers(self) -> list[tuple[str, int, int]]:
        """None: SQS knows nobody by name."""
        return []

    async def _hide(self, ids: Sequence[bytes], seconds: Sequence[int]) -> list[bytes]:
        lost, done, trouble = await self._each(ids, self._hiding(ids, seconds))
        self._drop([*lost, *(held.entry.id for held in done)])
        if trouble:
            raise trouble
        return lost

    def _hiding(self, ids: Sequence[bytes], seconds: Sequence[int]) -> _Call:
        wanted = {
            self._held[entry_id].handle: hidden_s
            for entry_id, hidden_s in zip(ids, seconds, strict=True)
            if entry_id in self._held
        }
        return lambda handles: self._sqs.hide([(handle, wanted[handle]) for handle in handles])

    async def _each(
        self, ids: Sequence[bytes], call: _Call
    ) -> tuple[list[bytes], list[_Held], SqsTrouble | None]:
        """Do something with the entries that are this process's.

        What is not held has been settled before, and is neither lost nor done.

        Returns:
            The ids that are not this process's any more, what is done, and why something is not: then all
            of it may be repeated.
        """
        now_s = time.monotonic()
        known = [held for entry_id in ids if (held := self._held.get(entry_id))]
        lost = [held.entry.id for held in known if held.until_s <= now_s]
        mine = [held for held in known if held.until_s > now_s]
        portions = [mine[at : at + BATCH_ENTRIES] for at in range(0, len(mine), BATCH_ENTRIES)]
        calls = [partial(call, [held.handle for held in portion]) for portion in portions]
        done: list[_Held] = []
        trouble: SqsTrouble | None = None
        for portion, faults in zip(portions, await side_by_side(calls, AT_ONCE), strict=True):
            if isinstance(faults, SqsTrouble):
                trouble = faults
                continue
            for held, fault in zip(portion, faults, strict=True):
                if fault is None:
                    done.append(held)
                elif fault.ours:
                    # The handle is void: somebody else has been given the message.
                    lost.append(held.entry.id)
                else:
                    trouble = SqsTrouble(fault.code)
        return lost, done, trouble

    def _drop(self, ids: Sequence[bytes]) -> None:
        for entry_id in ids:
            self._held.pop(entry_id, None)

    async def _came_back(self, items: Sequence[tuple[bytes, int]]) -> None:
        """Note that entries come back in good order, after so many failures each."""
        await self._notes.came_back(
            [(_message_id(entry_id), failures) for entry_id, failures in items if entry_id in self._held]
        )

    def _sweep(self, taken: Sequence[_Held]) -> None:
        """Remove, in the background, what is of no use without its message."""
        noted = [_message_id(held.entry.id) for held in taken if held.noted]
        bodies = [stored for held in taken if (stored := held.entry.fields.get(STORED))]
        if noted or bodies:
            task = asyncio.create_task(self._swept(noted, bodies))
            self._sweeping.add(task)
            task.add_done_callback(self._sweeping.discard)

    async def _swept(self, noted: Sequence[str], bodies: Sequence[bytes]) -> None:
        try:
            await self._notes.forget(noted)
            for stored in bodies:
                await self._objects.delete(Stored(*orjson.loads(stored)).name)
        except _UNTIDY as error:
            # Notes go by themselves, bodies by the bucket's rule.
            log.info("queue.not_tidied", stage=STAGE, error=type(error).__name__)


def _fields(body: str) -> dict[bytes, bytes]:
    """The fields that an entry of the stream would have, or why there are none."""
    try:
        message = decode(body)
    except NotOurs as error:
        return {UNREADABLE: str(error).encode(), b"body": body.encode(errors="replace")}
    fields = {
        b"id": message.id.encode(),
        b"tenant": message.tenant.encode(),
        b"tool": message.tool.encode(),
        b"type": message.type.encode(),
        b"received": b"%d" % message.received_ms,
        b"schema": b"%d" % message.schema,
        b"dedup": message.dedup.encode(),
        CLAIM: orjson.dumps([*message.claim]),
    }
    if message.traceparent:
        fields[b"traceparent"] = message.traceparent.encode()
    return fields | _body(message)


def _body(message: Message) -> dict[bytes, bytes]:
    return {STORED: orjson.dumps([*message.stored])} if message.stored else {b"sealed": message.sealed}


def _message_id(entry_id: bytes) -> str:
    return entry_id.split(b"-", 2)[2].decode()
