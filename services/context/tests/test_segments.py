"""Many small contexts in one object: written once, read alone, forgotten alone, moved together."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from webhook.context.v1.context_pb2 import Tier
from webhook_context import messages
from webhook_context.domain.contexts import Context
from webhook_context.packs.archive import intact
from webhook_context.packs.cold_names import home_of, segment_id_of
from webhook_context.packs.segment import Packable, build, index, place
from webhook_context.parts.tiers import Tiering, tiering
from webhook_context.segments import cold_packs
from webhook_context.segments.registry_redis import Origin
from webhook_context.segments.settings import ContextSegmentsSection
from webhook_context.settings import ContextLifecycleSection
from webhook_context.store import keys
from webhook_context.store.assembly import View
from webhook_context.store.tiers_redis import Timing
from webhook_shared import redis as servers
from webhook_shared.errors import Aborted
from webhook_shared.objects import directory as objects_directory
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStore, ObjectTrouble
from webhook_shared.sealing.errors import Undecodable

from services.context.tests.conftest import webhook_of

HOT, WARM, COLD = Tier.TIER_HOT, Tier.TIER_WARM, Tier.TIER_COLD
EVERYTHING = View(events=1000, payloads=True)


class Recorded:
    """A store that notes what is asked of it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.calls: list[str] = []

    async def put(self, name: str, content: bytes) -> None:
        self.calls.append("put")
        await self._store.put(name, content)

    async def get(self, name: str) -> bytes:
        self.calls.append("get")
        return await self._store.get(name)

    async def part(self, name: str, start: int, length: int) -> bytes:
        self.calls.append("part")
        return await self._store.part(name, start, length)

    async def names(self, prefix: str, *, after: str = "", most: int = 1000) -> list[str]:
        self.calls.append("names")
        return await self._store.names(prefix, after=after, most=most)

    async def delete(self, name: str) -> None:
        self.calls.append("delete")
        await self._store.delete(name)


class Yard(NamedTuple):
    """A store without anything that runs by itself."""

    parts: Tiering
    cold: Recorded
    client: Any
    written: dict[str, bytes]

    async def fill(self, make: Any, count: int, size: int = 200) -> list[str]:
        ids = [f"c{len(self.written) + n}" for n in range(count)]
        for one in ids:
            self.written[one] = os.urandom(size)
            append = make("e1", one, payload=self.written[one])
            await self.parts.store.append([messages.entry("acme", append)])
        await self.client.sadd(keys.TENANTS, "acme")
        await self.client.zadd(keys.index("acme"), dict.fromkeys(ids, 1))
        return ids

    async def move(self, ids: list[str], target: Any = COLD, grace_ms: int | None = None) -> None:
        work = (self.parts.transitions.move("acme", one, target, grace_ms=grace_ms) for one in ids)
        await asyncio.gather(*work)

    async def pointers(self, ids: list[str]) -> list[str]:
        return [state.pointer for state in await self.parts.tiers.states("acme", ids)]

    async def holds(self, ids: list[str]) -> None:
        for held in await self.parts.store.read("acme", ids, EVERYTHING):
            assert isinstance(held, Context)
            assert held.payloads == [self.written[held.context_id]]

    async def objects(self) -> list[str]:
        return await self.cold.names("v1/")

    async def look(self) -> None:
        """Look after all segments, whenever that is due."""
        for one in await self.parts.small.known.known("acme"):
            await self.client.zadd(keys.segments("acme"), {one: 1})
        await self.parts.small.compaction.look()


def webhook(valkey: Any, **changed: Any) -> Any:
    return webhook_of(
        valkey,
        context_lifecycle=ContextLifecycleSection(grace_duration=timedelta(0)),
        context_segments=ContextSegmentsSection(**{"min_contexts": 2, **changed}),
    )


@pytest.fixture
async def yard(valkey: Any, tmp_path: Path) -> AsyncIterator[Yard]:
    client = servers.connect(valkey)
    cold = Recorded(DirectoryObjectStore(tmp_path / "cold"))
    parts = tiering(client, cold, webhook(valkey), Timing(lease_ms=20_000, drop_after_ms=1))
    yield Yard(parts, cold, client, {})
    await client.aclose()


def lies(pointer: str) -> Any:
    found = place(pointer)
    assert found is not None
    return found


async def test_what_goes_together_lies_together(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 40)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    assert len({lies(one).segment for one in pointers}) == 1
    assert len({(lies(one).offset, lies(one).length) for one in pointers}) == 40
    assert len(await yard.objects()) == 2
    yard.cold.calls.clear()
    await yard.holds(ids)
    assert yard.cold.calls == ["part"] * 40
    await yard.move(ids, HOT)
    await yard.holds(ids)


async def test_who_goes_alone_or_is_large_lies_alone(yard: Yard, make: Any) -> None:
    (alone,) = await yard.fill(make, 1)
    await yard.move([alone])
    large = await yard.fill(make, 2, 300_000)
    small = await yard.fill(make, 3)
    await yard.move([*large, *small])
    places = [place(one) for one in await yard.pointers([alone, *large, *small])]
    assert [one is None for one in places] == [True] * 3 + [False] * 3
    await yard.holds([alone, *large, *small])


async def test_a_segment_is_bounded(valkey: Any, tmp_path: Path, make: Any) -> None:
    client = servers.connect(valkey)
    cold = Recorded(DirectoryObjectStore(tmp_path / "cold"))
    section = webhook(valkey, size=20_000, largest_context=10_000)
    yard = Yard(tiering(client, cold, section), cold, client, {})
    ids = await yard.fill(make, 20, 2000)
    await yard.move(ids)
    names = {lies(one).segment for one in await yard.pointers(ids)}
    assert len(names) > 1
    for name in names:
        assert len(await cold.get(name)) < 22_000
    await yard.holds(ids)
    await client.aclose()


async def test_the_warm_go_together_too(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 5)
    await yard.move(ids, WARM)
    await yard.move(ids, COLD)
    assert len({lies(one).segment for one in await yard.pointers(ids)}) == 1
    await yard.holds(ids)


async def test_who_changed_meanwhile_stays_and_leaves_nothing_readable(
    yard: Yard, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await yard.fill(make, 4)
    put = yard.cold.put

    async def put_late(name: str, content: bytes) -> None:
        await put(name, content)
        if name.endswith(".seg"):
            await yard.parts.store.append([messages.entry("acme", make("e2", ids[0]))])

    monkeypatch.setattr(yard.cold, "put", put_late)
    work = (yard.parts.transitions.move("acme", one, COLD) for one in ids)
    done = await asyncio.gather(*work, return_exceptions=True)
    assert [isinstance(one, Exception) for one in done] == [True, False, False, False]
    (state,) = await yard.parts.tiers.states("acme", ids[:1])
    assert (state.tier, state.version) == (HOT, 2)
    assert await members(yard, lies((await yard.pointers(ids[1:]))[0]).segment) == ids[1:]
    await yard.holds(ids[1:])


async def members(yard: Yard, segment: str) -> list[str]:
    """The contexts that can be opened in a segment."""
    segment_id = segment_id_of(home_of(segment))
    state = await yard.parts.small.known.state("acme", segment_id)
    assert state is not None
    held = await yard.parts.small.member_keys.read("acme", state.keys)
    return sorted(member.context_id for member in held.members)


async def test_a_deleted_member_can_be_read_by_nobody(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 4)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    segment = lies(pointers[0]).segment
    beside = [name for name in await yard.objects() if name.endswith(".keys")]
    await yard.parts.store.delete("acme", ids[1], "")
    await yard.parts.transitions.drop("acme", ids[1])
    # Its key was in Redis and in one object; both are gone, though its bytes are still there.
    assert await members(yard, segment) == [ids[0], *ids[2:]]
    assert not set(beside) & set(await yard.objects())
    key = re.escape(pointers[1].rpartition("#")[2].encode())
    for one in await yard.client.keys("*"):
        assert not re.search(key, await yard.client.dump(one))
    await yard.holds([ids[0], *ids[2:]])
    state = await yard.parts.small.known.state("acme", segment_id_of(home_of(segment)))
    assert state is not None
    assert state.size - state.live == lies(pointers[1]).length
    assert await yard.parts.small.known.dead_bytes("acme") == lies(pointers[1]).length
    # The same again has no effect, and the last ones take the segment with them.
    await yard.parts.small.cold_packs.forget("acme", pointers[1:2])
    await yard.move([ids[0], *ids[2:]], HOT)
    for one in ids:
        await yard.parts.transitions.drop("acme", one)
    assert await yard.objects() == []
    assert await yard.parts.small.known.known("acme") == []


async def test_many_forgotten_at_once_cost_few_writes(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 30)
    await yard.move(ids)
    await yard.move(ids[:20], HOT)
    yard.cold.calls.clear()
    await asyncio.gather(*(yard.parts.transitions.drop("acme", one) for one in ids[:20]))
    assert yard.cold.calls.count("put") <= 3
    await yard.holds(ids)


async def test_sparse_segments_become_one(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 20)
    await yard.move(ids[:10])
    await yard.move(ids[10:])
    stay = [*ids[:3], *ids[10:13]]
    go = [one for one in ids if one not in stay]
    await yard.move(go, HOT)
    for one in go:
        await yard.parts.transitions.drop("acme", one)
    before = await yard.pointers(stay)
    await yard.look()
    after = await yard.pointers(stay)
    assert len({lies(one).segment for one in before}) == 2
    assert len({lies(one).segment for one in after}) == 1
    assert not {lies(one).segment for one in before} & {lies(one).segment for one in after}
    # Who has read the old pointers finds what they name, until the grace is over.
    states = await yard.parts.tiers.states("acme", stay)
    for pointer, state in zip(before, states, strict=True):
        sealed, _ = await yard.parts.store._archive.find(None, pointer, state.checksum)
        intact(sealed, state.checksum)
    await yard.look()
    assert max(await yard.objects()) == lies(after[0]).segment
    assert len(await yard.objects()) == 2
    await yard.holds(ids)


async def test_an_erased_members_bytes_go_at_once(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 5)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    packs = yard.parts.small.cold_packs
    whole = await yard.cold.get(lies(pointers[2]).segment)
    bytes_of = whole[lies(pointers[2]).offset :][: lies(pointers[2]).length]
    await yard.parts.store.delete("acme", ids[2], "")
    await packs.forget("acme", pointers[2:3])
    await packs.rewrite("acme", pointers[2:3])
    left = [await yard.cold.get(name) for name in await yard.objects()]
    assert not any(bytes_of in one for one in left)
    assert lies(pointers[0]).segment not in await yard.objects()
    await yard.holds([*ids[:2], *ids[3:]])
    # Its tombstone still names where it lay: that is nowhere now, and forgotten.
    await yard.parts.transitions.drop("acme", ids[2])
    await packs.rewrite("acme", pointers[2:3])
    assert len(await yard.objects()) == 2


async def test_a_move_under_way_is_not_cut_off_by_a_rewriting(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 3)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    assert await yard.parts.tiers.begin("acme", ids[0], WARM)
    await yard.client.hset(keys.context("acme", ids[0]), "pointer", "elsewhere")
    with pytest.raises(ObjectTrouble, match="SegmentBusy"):
        await yard.parts.small.cold_packs.rewrite("acme", pointers[:1])
    await yard.holds(ids[1:])


async def test_who_lost_the_lease_cannot_commit_into_a_segment_that_was_looked_at(
    yard: Yard, make: Any, valkey: Any
) -> None:
    timing = Timing(lease_ms=1, drop_after_ms=1)
    parts = tiering(yard.client, yard.cold, webhook(valkey), timing)
    ids = await yard.fill(make, 3)
    commit, turn = parts.tiers.commit, asyncio.Lock()

    async def commit_late(*args: Any, **named: Any) -> bool:
        async with turn:
            await yard.look()
        return await commit(*args, **named)

    parts.tiers.commit = commit_late  # type: ignore[method-assign]  # the pause is what is tested
    done = await asyncio.gather(
        *(parts.transitions.move("acme", one, COLD) for one in ids), return_exceptions=True
    )
    assert all(isinstance(one, Exception) for one in done)
    await yard.holds(ids)
    assert {state.tier for state in await yard.parts.tiers.states("acme", ids)} == {HOT}


async def test_a_segment_that_was_never_finished_is_doomed(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 3)
    settle = yard.parts.small.known.settle

    async def looked_at_before(tenant: str, segment_id: str, outcome: str) -> bool:
        if outcome == "complete":
            await yard.look()
        return await settle(tenant, segment_id, outcome)

    yard.parts.small.known.settle = looked_at_before  # type: ignore[method-assign]  # the pause is tested
    done = await asyncio.gather(
        *(yard.parts.transitions.move("acme", one, COLD) for one in ids), return_exceptions=True
    )
    assert all(isinstance(one, Exception) for one in done)
    await yard.look()
    assert await yard.objects() == []
    assert await yard.parts.small.known.known("acme") == []
    await yard.holds(ids)


async def test_what_redis_does_not_know_is_kept(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 4)
    await yard.move(ids)
    segment = lies((await yard.pointers(ids))[0]).segment
    await yard.client.delete(*(keys.context("acme", one) for one in ids[:3]))
    await yard.look()
    assert await members(yard, segment) == ids
    # Even a forced rewriting takes along what a restore may need.
    await yard.parts.small.cold_packs.rewrite("acme", await yard.pointers(ids[3:]))
    assert await members(yard, lies((await yard.pointers(ids[3:]))[0]).segment) == ids


async def test_a_segment_that_redis_forgot_is_found_again(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 4)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    segment_id = segment_id_of(home_of(pointers[0]))
    await yard.parts.small.known.remove("acme", segment_id)
    await yard.holds(ids)
    await yard.parts.small.cold_packs.forget("acme", pointers[:1])
    assert await members(yard, lies(pointers[0]).segment) == ids[1:]
    state = await yard.parts.small.known.state("acme", segment_id)
    assert state is not None
    assert state.origin is Origin.FOUND


@pytest.mark.parametrize("harm", ["flipped", "torn", "gone", "swapped"])
async def test_damage_is_noticed(yard: Yard, make: Any, tmp_path: Path, harm: str) -> None:
    ids = await yard.fill(make, 3)
    await yard.move(ids)
    first, second, _ = [lies(one) for one in await yard.pointers(ids)]
    path = tmp_path / "cold" / first.segment
    content = bytearray(path.read_bytes())
    if harm == "flipped":
        content[first.offset + 7] ^= 1
    elif harm == "torn":
        content = content[: first.offset + 9]
    elif harm == "swapped":
        part = content[second.offset : second.offset + first.length]
        content[first.offset : first.offset + first.length] = part
    path.write_bytes(content)
    if harm == "gone":
        path.unlink()
    (read,) = await yard.parts.store.read("acme", ids[:1], EVERYTHING)
    assert getattr(read, "reason", "") == "CONTEXT_UNREADABLE"


def test_a_segment_tells_what_it_holds() -> None:
    packs = [Packable(f"c{n}", bytes([n]) * 16, os.urandom(50 + n)) for n in range(9)]
    built = build("name", packs)
    found = index(built.content)
    assert [one.digest for one in found.values()] == [pack.digest for pack in packs]
    assert all(one.whole for one in found.values())
    assert list(found) == [(member.offset, member.length) for member in built.members]
    harmed = bytearray(built.content)
    harmed[built.members[3].offset] ^= 1
    assert [one.whole for one in index(bytes(harmed)).values()] == [True] * 3 + [False] + [True] * 5
    for start, end in ((0, -1), (1, None), (0, 4)):
        with pytest.raises(Undecodable):
            index(built.content[start:end])


async def test_two_workers_on_each_transition(yard: Yard, make: Any, valkey: Any) -> None:
    """Whoever wins, one copy counts, it is whole, and nothing is left of the others."""
    ids = await yard.fill(make, 8)
    rival = servers.connect(valkey)
    workers = [yard.parts, tiering(rival, yard.cold, webhook(valkey))]
    for target in (COLD, WARM, COLD, HOT, COLD):
        work = [one.transitions.move("acme", each, target) for each in ids for one in workers]
        done = await asyncio.gather(*work, return_exceptions=True)
        assert {getattr(one, "reason", "") for one in done if isinstance(one, Exception)} <= {
            "TRANSITION_UNDER_WAY"
        }
        assert {state.tier for state in await yard.parts.tiers.states("acme", ids)} == {target}
        await yard.holds(ids)
    async with asyncio.timeout(10):
        while any(state.drop_ms for state in await yard.parts.tiers.states("acme", ids)):
            await asyncio.gather(*(yard.parts.transitions.drop("acme", one) for one in ids))
    await yard.look()
    held = {home_of(name) for name in await yard.objects() if home_of(name)}
    assert held == {home_of(one) for one in await yard.pointers(ids) if home_of(one)}
    await rival.aclose()


async def test_a_full_disk_costs_nothing_but_time(
    yard: Yard, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await yard.fill(make, 4)
    with monkeypatch.context() as patched:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        patched.setattr(objects_directory.os, "fsync", full)
        for together in (ids, ids[:1]):
            work = (yard.parts.transitions.move("acme", one, COLD) for one in together)
            for done in await asyncio.gather(*work, return_exceptions=True):
                assert getattr(done, "reason", "") == "COLD_STORE_UNREACHABLE"
        await yard.holds(ids)
    assert await yard.objects() == []
    await yard.move(ids)
    await yard.holds(ids)
    await yard.look()
    assert len(await yard.objects()) == 2


async def test_a_lease_of_before_the_clock_was_set_back_holds_up_nobody(yard: Yard, make: Any) -> None:
    ids = await yard.fill(make, 3)
    assert await yard.parts.tiers.begin("acme", ids[0], COLD)
    with pytest.raises(Aborted):
        await yard.parts.transitions.move("acme", ids[0], COLD)
    ahead = int(time.time() * 1000) + 24 * 3600 * 1000
    await yard.client.hset(keys.context("acme", ids[0]), "copying_until", ahead)
    await yard.move(ids)
    pointers = await yard.pointers(ids)
    segment_id = segment_id_of(home_of(pointers[0]))
    where = keys.segment("acme", segment_id)
    await yard.client.hset(where, mapping={"next": "abandoned", "next_until": ahead})
    await yard.parts.small.cold_packs.forget("acme", pointers[:1])
    assert await members(yard, lies(pointers[0]).segment) == ids[1:]


@pytest.mark.parametrize("now_s", [0.0, 4e9])
def test_a_clock_that_jumps_keeps_nothing_for_long(yard: Yard, monkeypatch: Any, now_s: float) -> None:
    monkeypatch.setattr(cold_packs.time, "time", lambda: now_s)
    pointer = lies(f"segment#4+60#{'A' * 43}").pointer
    assert 60_000 <= yard.parts.small.cold_packs.grace_ms(pointer, 60_000) <= 60_000 + 600_000
    assert yard.parts.small.cold_packs.grace_ms(pointer, 0) == 0
    assert yard.parts.small.cold_packs.grace_ms("v1/of/its/own.pack", 60_000) == 60_000
