"""The event queue on Redis Streams: every command that a stage sends, and nothing else.

An entry is in exactly one place: waiting (in the stream), in flight (pending, under the name of one
worker), delayed, dead, or gone. Each move is one script in one slot, refused unless the entry is the
caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from webhook_shared.redis import REDIS_TROUBLE, Client, RedisError, ResponseError, Script

from webhook_consumer.entry import Cause, Entry
from webhook_consumer.queue.slot import Slot, Slots, is_full

T = TypeVar("T")

# Keeps one script well below Lua's bound on unpacked arguments, and the server responsive.
MOST_IDS = 1000
# How far the list of pending entries is searched in one call.
CLAIM_PAGE = 500
# So many old entries may be stuck and say nothing about the others.
FEW_ENTRIES = 16
START = b"-"
# Parts tool and id among the entries that are put aside.
UNIT_SEPARATOR = "\x1f"
SUSPECTS_TTL_S = 86_400


@dataclass(frozen=True, slots=True)
class Lane:
    """Where the entries of one stage live. All keys but the dead letters share the stream's hash slot.

    Attributes:
        stage: "events" or "enrichment".
        stream: "webhook-events".
        group: "webhook-processors".
        dead_letters: "webhook-events-dlq"; on a cluster it carries the tag "{webhook-events}".
        partition: Its number where the stream is one of several: "0", "1"...; else empty.
    """

    stage: str
    stream: str
    group: str
    dead_letters: str
    partition: str = ""

    @property
    def name(self) -> str:
        """What operators call it: "events", or "events-3" where it is one of several."""
        return f"{self.stage}-{self.partition}" if self.partition else self.stage

    @property
    def places(self) -> tuple[str, ...]:
        """Where entries may be."""
        return self.stream, self.delayed, self.parked, self.dead_letters

    @property
    def delayed(self) -> str:
        """ZSET: when which delayed entry is due, ms of `due_clock`."""
        return f"retry:{{{self.stream}}}"

    @property
    def due_clock(self) -> str:
        """STRING: how far due times run ahead of the server's clock; there while something is delayed."""
        return f"retry:{{{self.stream}}}:clock"

    @property
    def bodies(self) -> str:
        """HASH: the fields of delayed entries."""
        return f"retry:{{{self.stream}}}:entries"

    @property
    def arrivals(self) -> str:
        """ZSET: when delayed entries first arrived, ms."""
        return f"retry:{{{self.stream}}}:arrivals"

    @property
    def parked(self) -> str:
        """ZSET: tool and id of entries that are put aside; their fields and arrivals are with the delayed."""
        return f"parked:{{{self.stream}}}"

    @property
    def suspects(self) -> str:
        """HASH: how often an entry that may be killing workers was started alone."""
        return f"suspects:{{{self.stream}}}"

    def lease(self, name: str) -> str:
        """The lease of a consumer's name."""
        return f"lease:{{{self.stream}}}:{name}"


class StreamLost(Exception):
    """The stream or its group is gone: deleted, flushed, or lost in a failover."""


QUEUE_TROUBLE: tuple[type[BaseException], ...] = (StreamLost, RedisError, *REDIS_TROUBLE)
"""What any method of a queue may raise, and what its caller backs off from."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What one look through the list of pending entries gave.

    Attributes:
        entries: Now the caller's.
        lost: How many entries had no body any more.
        cursor: Where to go on; empty at the end of the list.
    """

    entries: list[Entry]
    lost: int
    cursor: bytes


@dataclass(frozen=True, slots=True)
class Delayed:
    """An entry to try again: in how many ms, after how many failures."""

    id: bytes
    delay_ms: int
    failures: int


@dataclass(frozen=True, slots=True)
class Burial:
    """An entry to give up, and why."""

    id: bytes
    cause: Cause
    detail: str
    failures: int
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """Where a stage's entries are; `oldest_ms` is None where there are none; `parked` are also `delayed`."""

    waiting: int
    in_flight: int
    delayed: int
    due: int
    dead: int
    oldest_ms: int | None
    parked: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        ages = [age for age in (self.oldest_ms, other.oldest_ms) if age is not None]
        return Counts(
            waiting=self.waiting + other.waiting,
            in_flight=self.in_flight + other.in_flight,
            delayed=self.delayed + other.delayed,
            due=self.due + other.due,
            dead=self.dead + other.dead,
            oldest_ms=max(ages, default=None),
            parked=self.parked + other.parked,
        )


class RedisQueue:
    """One stage's queue, as one process sees it.

    Args:
        lane: Which.
        client: For all commands but the blocking read.
        blocking: Used by the reader alone; its time-out exceeds `block_ms`.
        block_ms: How long a read waits for the first entry.
        lease_ms: How long a consumer's name outlives its last renewal.
    """

    def __init__(self, lane: Lane, client: Client, blocking: Client, *, block_ms: int, lease_ms: int) -> None:
        self.lane = lane
        self._client = client
        self._blocking = blocking
        # redis-py's own parser of these replies costs more than reading them does.
        self._blocking.set_response_callback("XREADGROUP", _unparsed)
        self._block_ms = block_ms
        self._slots = Slots(client, lane.lease, lease_ms)
        self._slot: Slot | None = None
        self._connection_id = 0
        self._ack, self._renew, self._park, self._dead_letter, self._release = (
            _fenced(name) for name in ("ack", "renew", "park", "dead_letter", "release")
        )
        self._retry = _fenced("due", "retry")
        self._unpark, self._abandon, self._reap = (_plain(name) for name in ("unpark", "abandon", "reap"))
        self._claim = _plain("claim")
        self._promote, self._stats = _plain("due", "promote"), _plain("due", "stats")
        self._late = _plain("late")

    @property
    def name(self) -> str:
        """This process's consumer name; empty before `join`."""
        return self._slot.name if self._slot else ""

    async def join(self) -> None:
        """Have a name, a group and a connection to read on; repeats only what is missing."""
        if self._slot is None:
            self._slot = await self._slots.take()
        name = self._slot.name
        await self.create_group()
        await self._enlist(name)
        self._connection_id = int(await self._blocking.at(self.lane.stream, "CLIENT ID"))

    async def create_group(self) -> None:
        """Create stream and group where they are missing, so that every entry in the stream is delivered."""
        try:
            # From 0: what was queued before the group existed is work too. Done work is deleted.
            await self._client.xgroup_create(self.lane.stream, self.lane.group, id="0", mkstream=True)
        except ResponseError as error:
            # A full server refuses this even where the group exists; where it does not, reading says so.
            if "BUSYGROUP" not in str(error) and not is_full(error):
                raise

    async def _enlist(self, name: str) -> None:
        """Be listed among the group's consumers before the first entry comes."""
        try:
            await self._client.xgroup_createconsumer(self.lane.stream, self.lane.group, name)
        except ResponseError as error:
            if not is_full(error):
                raise _translated(error) from error

    async def keep_name(self) -> bool:
        """Renew the lease of the name. False: somebody else has it; the next `join` takes another."""
        if self._slot is None or await self._slots.keep(self._slot):
            return True
        self._slot = None
        return False

    async def leave(self) -> None:
        """Free the name."""
        if self._slot is not None:
            await self._slots.give_back(self._slot)
            self._slot = None

    async def read(self, most: int) -> list[Entry]:
        """New entries; waits up to `block_ms` for the first.

        Raises:
            StreamLost: Call `join` and go on.
        """
        lane, slot = self.lane, self._leased()
        try:
            reply: Any = await self._blocking.execute_command(
                "XREADGROUP", "GROUP", lane.group, slot.name, "COUNT", most,
                "BLOCK", self._block_ms, "STREAMS", lane.stream, ">",
            )  # fmt: skip
        except ResponseError as error:
            raise _translated(error) from error
        return _entries(reply)

    async def wake(self) -> None:
        """End a read that waits; it returns nothing."""
        if self._connection_id:
            await self._client.at(self.lane.stream, "CLIENT UNBLOCK", self._connection_id)

    async def claim(
        self, cursor: bytes, *, held: Sequence[bytes], room: int, idle_ms: int | None = None
    ) -> Claimed:
        """Take over one page of pending entries.

        Args:
            cursor: START, or where the last call stopped.
            held: Left alone.
            room: Most to take.
            idle_ms: Anybody's that are idle this long; None: this process's own, however idle.

        Raises:
            StreamLost: There is no group, or the name has been lost: call `join` and go on.
        """
        name = self._leased().name
        owner = name if idle_ms is None else ""
        reply = await self._run(
            self._claim,
            [self.lane.stream],
            [self.lane.group, name, owner, idle_ms or 0, cursor, CLAIM_PAGE, room, b" ".join(held)],
        )
        found = reply[2:]
        entries = [
            Entry(found[at], fields_of(found[at + 2]), int(found[at + 1])) for at in range(0, len(found), 3)
        ]
        return Claimed(entries, int(reply[1]), reply[0])

    async def ack(self, ids: Sequence[bytes]) -> list[bytes]:
        """Acknowledge and delete. Returns the ids that are not this process's, which stay as they are."""
        return await self._all(self._ack, ids)

    async def renew(self, ids: Sequence[bytes]) -> list[bytes]:
        """Show that these are being worked on. Returns the ids that are not this process's."""
        return await self._all(self._renew, ids)

    async def delay(self, items: Sequence[Delayed]) -> list[bytes]:
        """Take entries out of the stream until they are due. Returns the ids that are not this process's."""
        rows = [[item.id, item.delay_ms, item.failures] for item in items]
        lane = self.lane
        return await self._each(self._retry, [lane.delayed, lane.bodies, lane.arrivals, lane.due_clock], rows)

    async def bury(self, items: Sequence[Burial]) -> list[bytes]:
        """Move entries to the dead letters. Returns the ids that are not this process's."""
        rows = [[item.id, item.cause, item.detail, item.failures, item.fingerprint] for item in items]
        return await self._each(self._dead_letter, [self.lane.dead_letters], rows)

    async def release(self, ids: Sequence[bytes], idle_ms: int) -> None:
        """Hand back entries that were not started, as idle as given, without counting the delivery."""
        for portion in _portions(ids):
            await self._fence(self._release, [], [idle_ms, b" ".join(portion)])

    async def promote(self, most: int) -> tuple[int, int | None]:
        """Put delayed entries that are due back into the stream.

        Returns:
            How many, and in how many ms the next is due (None: nothing is delayed).
        """
        lane = self.lane
        moved, next_ms = await self._run(
            self._promote,
            [lane.stream, lane.delayed, lane.bodies, lane.arrivals, lane.due_clock],
            [most],
        )
        return int(moved), int(next_ms) if next_ms >= 0 else None

    async def park(self, entries: Sequence[Entry]) -> list[bytes]:
        """Put entries aside until `unpark`. Returns the ids that are not this process's."""
        rows = [[entry.id, entry.tool.replace(UNIT_SEPARATOR, "?")] for entry in entries]
        return await self._each(self._park, [self.lane.parked, self.lane.bodies, self.lane.arrivals], rows)

    async def unpark(self, most: int, allowances: Mapping[str, int], *, wanted: int, least: int) -> int:
        """Put entries that were put aside back into the stream, from all tools alike. Returns how many.

        Args:
            most: In one call.
            allowances: Most of a tool, where it may not come back freely.
            wanted: Only so many that no more than this wait in the stream...
            least: ...but at least so many, so that they come back however long the stream is.
        """
        lane = self.lane
        limits = [value for pair in allowances.items() for value in pair]
        moved = await self._run(
            self._unpark,
            [lane.stream, lane.parked, lane.bodies, lane.arrivals],
            [lane.group, wanted, least, most, *limits],
        )
        return int(moved)

    async def abandon(self, idle_ms: int, silent_ms: int) -> int:
        """Let everybody take over at once what has been idle for so long. Returns how many entries.

        Args:
            idle_ms: What counts.
            silent_ms: How idle they are made; what workers take for abandoned.
        """
        count, cursor = 0, START
        while cursor:
            cursor, found = await self._run(
                self._abandon, [self.lane.stream], [self.lane.group, idle_ms, silent_ms, cursor, CLAIM_PAGE]
            )
            count += int(found)
        return count

    async def reap(self, idle_ms: int, most: int) -> list[str]:
        """Forget consumers that hold nothing and have been silent for so long. Returns their names."""
        names = await self._run(self._reap, [self.lane.stream], [self.lane.group, idle_ms, most, self.name])
        return [bytes(name).decode(errors="replace") for name in names]

    async def accuse(self, entry_id: bytes) -> int:
        """Note that a suspect is about to be started alone. Returns how often that has been noted."""
        count = await self._client.hincrby(self.lane.suspects, entry_id, 1)
        await self._client.expire(self.lane.suspects, SUSPECTS_TTL_S)
        return int(count)

    async def acquit(self, entry_id: bytes) -> None:
        """Forget the notes on a suspect that came to an end."""
        await self._client.hdel(self.lane.suspects, entry_id)

    async def counts(self) -> Counts:
        """Where the entries are now, exactly; the dead letters a moment later than the rest."""
        lane = self.lane
        waiting, in_flight, delayed, due, oldest, parked = await self._stats(
            self._client,
            [lane.stream, lane.delayed, lane.arrivals, lane.parked, lane.due_clock],
            [lane.group],
        )
        dead = await self._client.xlen(lane.dead_letters)
        return Counts(
            waiting, in_flight, delayed + parked, due, dead, oldest if oldest >= 0 else None, parked
        )

    async def late_s(self) -> float:
        """How old the oldest entries are, seconds; a few, which may be stuck, do not count."""
        return float(await self._late(self._client, [self.lane.stream], [FEW_ENTRIES])) / 1000

    async def consumers(self) -> list[tuple[str, int, int]]:
        """Name, entries in flight and idle time (ms) of each consumer of the group, by name."""
        try:
            rows = await self._client.xinfo_consumers(self.lane.stream, self.lane.group)
        except ResponseError:
            return []
        return sorted((bytes(row["name"]).decode(), int(row["pending"]), int(row["idle"])) for row in rows)

    async def _all(self, script: Script, ids: Sequence[bytes]) -> list[bytes]:
        lost: list[bytes] = []
        for portion in _portions(ids):
            lost += await self._fence(script, [], [b" ".join(portion)])
        return lost

    async def _each(self, script: Script, keys: list[str], rows: Sequence[list[Any]]) -> list[bytes]:
        lost: list[bytes] = []
        for portion in _portions(rows):
            lost += await self._fence(script, keys, [value for row in portion for value in row])
        return lost

    async def _fence(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        slot, lane = self._leased(), self.lane
        return await self._run(
            script, [lane.stream, slot.lease, *keys], [lane.group, slot.name, slot.token, *arguments]
        )

    def _leased(self) -> Slot:
        # Redis takes a consumer without a name for one like any other, and a claim for it for everybody's.
        if self._slot is None:
            raise StreamLost("this process has no consumer name")
        return self._slot

    async def _run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        try:
            return await script(self._client, keys, arguments)
        except ResponseError as error:
            raise _translated(error) from error


def _portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + MOST_IDS] for at in range(0, len(items), MOST_IDS))


def _translated(error: ResponseError) -> Exception:
    text = str(error)
    if "NOGROUP" in text or "UNBLOCKED" in text:
        return StreamLost("the stream or its group is gone")
    return error


def _unparsed(response: Any, **_: Any) -> Any:
    return response


def _entries(reply: Any) -> list[Entry]:
    if not reply:
        return []
    # For every entry that is ever read: what a call or a keyword costs is felt here.
    new = tuple.__new__
    entries: list[Entry] = []
    for entry_id, flat in reply[0][1]:
        pairs = iter(flat)
        fields = dict(zip(pairs, pairs))  # noqa: B905  # Redis sends pairs
        entries.append(new(Entry, (entry_id, fields, 1)))
    return entries


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat list of names and values, as a table."""
    pairs = iter(flat)
    return dict(zip(pairs, pairs, strict=True))


def _plain(*names: str) -> Script:
    return Script.load("webhook_consumer", *names)


def _fenced(*names: str) -> Script:
    return _plain("fence", *names)
