"""Objects that nobody needs are dropped; whatever may be all that is left of a context never is."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from webhook.context.v1.context_pb2 import Tier
from webhook_context import messages
from webhook_context.parts.tiers import Tiering, tiering
from webhook_context.recovery.orphans import Verdict
from webhook_context.settings import ContextLifecycleSection
from webhook_context.store import keys
from webhook_shared import redis as servers
from webhook_shared import sweeps
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.tasks import ended

from services.context.tests.conftest import webhook_of

ISSUE = "github:octo/hello:issue:1"
DAY_MS = 24 * 3600 * 1000


class Yard(NamedTuple):
    """A store without anything that runs by itself, and its cold directory."""

    parts: Tiering
    root: Path
    backup: Path
    client: Any

    async def cold(self, make: Any, *event_ids: str) -> None:
        await self.parts.store.append([messages.entry("acme", make(one)) for one in event_ids])
        await self.client.sadd(keys.TENANTS, "acme")
        await self.client.zadd(keys.index("acme"), {ISSUE: 1})
        await self.parts.transitions.move("acme", ISSUE, Tier.TIER_COLD)

    def copy(self) -> None:
        shutil.copytree(self.root, self.backup, dirs_exist_ok=True)

    def bring_back(self) -> None:
        shutil.copytree(self.backup, self.root, dirs_exist_ok=True)

    def packs(self) -> list[Path]:
        return sorted(self.root.rglob("*.pack"))

    async def a_day_later(self) -> Counter[Verdict]:
        """A sweep after the grace of whatever was noted before."""
        for name, noted_ms in await self.client.zrange(keys.ORPHANS, 0, -1, withscores=True):
            await self.client.zadd(keys.ORPHANS, {name: noted_ms - DAY_MS})
        return await self.parts.orphans.sweep()


@pytest.fixture
async def yard(valkey: Any, tmp_path: Path) -> AsyncIterator[Yard]:
    client = servers.connect(valkey)
    section = ContextLifecycleSection(grace_duration="0s")
    webhook = webhook_of(valkey, context_lifecycle=section)
    parts = tiering(client, DirectoryObjectStore(tmp_path / "cold"), webhook)
    yield Yard(parts, tmp_path / "cold", tmp_path / "backup", client)
    await client.aclose()


async def _superseded(yard: Yard, make: Any) -> Path:
    """An object of yesterday lies beside the one that counts."""
    await yard.cold(make, "e1")
    yard.copy()
    (old,) = yard.packs()
    await yard.cold(make, "e2")
    await yard.parts.transitions.move("acme", ISSUE, Tier.TIER_HOT, grace_ms=0)
    await yard.parts.transitions.move("acme", ISSUE, Tier.TIER_COLD, grace_ms=0)
    await yard.parts.transitions.drop("acme", ISSUE)
    yard.bring_back()
    assert old in yard.packs()
    return old


async def test_an_object_that_redis_has_all_of_is_dropped_after_the_grace(yard: Yard, make: Any) -> None:
    old = await _superseded(yard, make)
    assert len(yard.packs()) == 2
    assert await yard.parts.orphans.sweep() == {}
    assert await yard.parts.orphans.sweep() == {}
    assert old in yard.packs()
    assert await yard.a_day_later() == {Verdict.DROPPED: 1}
    assert old not in yard.packs()
    assert len(yard.packs()) == 1
    assert await yard.a_day_later() == {}
    assert await yard.client.zcard(keys.ORPHANS) == 0


async def test_a_redis_that_lost_everything_destroys_no_backup(yard: Yard, make: Any) -> None:
    await _superseded(yard, make)
    await yard.parts.orphans.sweep()
    await yard.client.flushall()
    lies = yard.packs()
    # The grace counts anew, and even after it nothing goes that Redis does not have.
    assert await yard.parts.orphans.sweep() == {}
    for _ in range(3):
        assert await yard.a_day_later() == {Verdict.UNRESTORED: len(lies)}
        assert yard.packs() == lies


async def test_a_context_that_began_anew_does_not_cost_its_past(yard: Yard, make: Any) -> None:
    await yard.cold(make, "e1", "e2")
    (past,) = yard.packs()
    await yard.client.flushall()
    # Events came before anybody restored; it even went cold again.
    await yard.cold(make, "e3")
    await yard.parts.orphans.sweep()
    assert await yard.a_day_later() == {Verdict.UNRESTORED: 1}
    assert past in yard.packs()
    # With the same events in Redis again there is nothing left in it that would be lost.
    await yard.parts.store.append([messages.entry("acme", make(one)) for one in ("e1", "e2")])
    assert await yard.a_day_later() == {Verdict.DROPPED: 1}
    assert past not in yard.packs()


async def test_what_counts_must_be_there_before_its_like_goes(yard: Yard, make: Any) -> None:
    old = await _superseded(yard, make)
    (counts,) = [path for path in yard.packs() if path != old]
    kept = counts.read_bytes()
    counts.write_bytes(kept[:-1])
    await yard.parts.orphans.sweep()
    assert await yard.a_day_later() == {Verdict.UNRESTORED: 1}
    counts.write_bytes(kept)
    assert await yard.a_day_later() == {Verdict.DROPPED: 1}


async def test_of_the_deleted_and_the_shredded_nothing_stays(yard: Yard, make: Any) -> None:
    await yard.cold(make, "e1")
    yard.copy()
    await yard.parts.store.delete("acme", ISSUE, "")
    await yard.client.zrem(keys.index("acme"), ISSUE)
    await yard.parts.transitions.drop("acme", ISSUE)
    assert yard.packs() == []
    yard.bring_back()
    await yard.parts.orphans.sweep()
    assert await yard.a_day_later() == {Verdict.DROPPED: 1}
    yard.bring_back()
    await yard.client.delete(keys.context("acme", ISSUE))
    await yard.parts.orphans.sweep()
    assert await yard.a_day_later() == {Verdict.UNRESTORED: 1}
    await yard.client.delete("tenantkey:{acme}")
    await yard.client.hset("tenantkey:{acme}", "destroyed", "1")
    assert await yard.a_day_later() == {Verdict.DROPPED: 1}


async def test_what_is_being_written_and_what_is_not_ours_stays(yard: Yard, make: Any) -> None:
    await yard.cold(make, "e1")
    (one,) = yard.packs()
    stranger = one.with_name("notes.txt")
    stranger.write_bytes(b"what a person left here")
    # Not listed, as after a crash: Redis points to it all the same.
    await yard.client.zrem(keys.index("acme"), ISSUE)
    await yard.parts.orphans.sweep()
    assert await yard.a_day_later() == {Verdict.NEEDED: 1, Verdict.UNUSABLE: 1}
    assert [one.exists(), stranger.exists()] == [True, True]


async def test_one_replica_looks(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    # It looks every minute at most otherwise.
    monkeypatch.setattr(sweeps, "LOOK_S", 0.01)
    yard.root.mkdir()
    tasks = [asyncio.create_task(yard.parts.orphans.run()) for _ in range(2)]
    async with asyncio.timeout(10):
        while not await yard.client.exists(keys.ORPHANS_TURN):
            await asyncio.sleep(0.01)
    await ended(tasks)
    assert 0 < await yard.client.pttl(keys.ORPHANS_TURN) <= 6 * 3600 * 1000
