"""Retention: contexts kept for long enough go, by tenant and tool, and come back with what is new."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from webhook.context.v1 import context_service_pb2
from webhook_context.erasing.expiring import TOMBSTONE_MS, Expiring
from webhook_context.parts.tiers import tiering
from webhook_context.store import keys
from webhook_context.writing.updating import Updating
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client
from webhook_shared.retention import Retention, RetentionRule, RetentionSection

from services.context.tests.conftest import webhook_of
from services.context.tests.test_tiers import lifecycle

DAY_MS = 86_400_000
RULES = (
    RetentionRule(tool="jira", contexts=timedelta(days=10)),
    RetentionRule(tenant="acme", tool="github", contexts=timedelta(days=5)),
    RetentionRule(tenant="rival", contexts=timedelta()),
    RetentionRule(tool="slack", archive=timedelta(days=1)),
)
RETENTION = Retention.of("contexts", timedelta(days=30), RULES)


class _Deaf:
    def touch(self, change: Any) -> None:
        """Nobody searches here."""


@pytest.fixture
def cold(tmp_path: Path) -> ObjectStorageSection:
    (tmp_path / "cold").mkdir()
    return ObjectStorageSection(directory=tmp_path / "cold")


@pytest.fixture
def expiring(valkey: Any, redis: Client, cold: ObjectStorageSection) -> Expiring:
    """Another worker over the same server, which runs when it is told to."""
    webhook = webhook_of(valkey, cold_storage=cold, context_lifecycle=lifecycle())
    parts = tiering(redis, DirectoryObjectStore(cold.directory), webhook)
    deaf: Any = _Deaf()
    updating = Updating(
        redis,
        store=parts.store,
        tiers=parts.tiers,
        transitions=parts.transitions,
        feeds=parts.feeds,
        search=deaf,
    )
    return Expiring(redis, parts.store, parts.tiers, updating, RETENTION, every_s=60)


async def age(redis: Client, tenant: str, context_id: str, days: float) -> None:
    """As if it had last been changed so long ago."""
    now_ms = int((await redis.time())[0]) * 1000
    then_ms = int(now_ms - days * DAY_MS)
    await redis.hset(keys.context(tenant, context_id), "updated", str(then_ms))
    await redis.zadd(keys.index(tenant), {context_id: then_ms})


def test_the_most_specific_rule_holds() -> None:
    days = {
        (tenant, tool): RETENTION.kept_ms(tenant, tool) / DAY_MS
        for tenant in ("acme", "rival", "third")
        for tool in ("github", "jira", "slack")
    }
    assert days == {
        ("acme", "github"): 5,
        ("acme", "jira"): 10,
        ("acme", "slack"): 30,
        ("rival", "github"): 0,
        ("rival", "jira"): 0,
        ("rival", "slack"): 0,
        ("third", "github"): 30,
        ("third", "jira"): 10,
        ("third", "slack"): 30,
    }
    assert (RETENTION.shortest_ms("acme"), RETENTION.shortest_ms("third")) == (5 * DAY_MS, 10 * DAY_MS)
    assert (RETENTION.shortest_ms(), RETENTION.longest_ms()) == (5 * DAY_MS, 0)
    assert Retention.of("contexts", timedelta(), ()).shortest_ms() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": [{"contexts": "1h"}]},
        {"rules": [{"tool": "github"}]},
        {"rules": [{"tool": "github", "contexts": "1h"}, {"tool": "github", "archive": "1h"}]},
        {"rules": [{"tool": "github", "kept": "1h"}]},
        {"rules": [{"tenant": "acme", "contexts": "soon"}]},
        {"contexts": "5"},
        {"sweep_interval": "0s"},
    ],
)
def test_bad_settings(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        RetentionSection.model_validate(wrong)


async def test_what_is_due_goes_and_nothing_else(
    open_house: Any, valkey: Any, *, make: Any, redis: Client, expiring: Expiring, cold: Any
) -> None:
    sections: Any = {"cold_storage": cold, "context_lifecycle": lifecycle()}
    async with open_house(valkey, **sections) as house:
        for tenant in ("acme", "rival"):
            for tool in ("github", "jira"):
                for days in (4, 6, 11):
                    one = f"{tool}:{days}"
                    await house.append(make(one, context_id=one, tenant=tenant, tool=tool))
        await house.move("COLD", "github:11")
        patch = '{"pinned": true}'
        await house.contexts.PatchContext(_patch("jira:11", patch))
        for tenant in ("acme", "rival"):
            for tool in ("github", "jira"):
                for days in (4, 6, 11):
                    await age(redis, tenant, f"{tool}:{days}", days)
        assert await expiring.sweep() == 3
        assert {one.context_id for one in (await house.list()).contexts} == {"github:4", "jira:4", "jira:6"}
        assert len((await house.list("rival")).contexts) == 6
        assert [path.name for path in cold.directory.rglob("*.pack")] == []
        assert 0 < await redis.pttl(keys.context("acme", "github:11")) <= TOMBSTONE_MS
        assert await expiring.sweep() == 0


async def test_it_comes_back_with_what_is_new_only(
    open_house: Any, valkey: Any, *, make: Any, redis: Client, expiring: Expiring, refused: Any
) -> None:
    async with open_house(valkey, context_lifecycle=lifecycle()) as house:
        await house.append(make("old"))
        before = (await house.get("github:octo/hello:issue:1")).version
        await age(redis, "acme", "github:octo/hello:issue:1", 6)
        assert await expiring.sweep() == 1
        (late,) = await house.append(make("late", at=5))
        assert late.status.reason == "CONTEXT_DELETED"
        new = make("new")
        new.event.occurred_time.GetCurrentTime()
        new.event.occurred_time.seconds += 60
        new.event.received_time.CopyFrom(new.event.occurred_time)
        (result,) = await house.append(new)
        assert (result.status.reason, result.duplicate) == ("", False)
        context = await house.get("github:octo/hello:issue:1")
        assert [event.event_id for event in context.events] == ["new"]
        assert context.version > before
        # It is a context like any other again: nothing of it ends by itself, and who deletes it means it.
        assert await redis.pttl(keys.context("acme", "github:octo/hello:issue:1")) == -1
        await house.delete("github:octo/hello:issue:1")
        new.event.event_id = "newer"
        (result,) = await house.append(new)
        assert result.status.reason == "CONTEXT_DELETED"


async def test_a_context_that_is_changed_at_that_moment_stays(
    open_house: Any, valkey: Any, *, make: Any, redis: Client, expiring: Expiring
) -> None:
    async with open_house(valkey, context_lifecycle=lifecycle()) as house:
        await house.append(make("old"))
        now_ms = int((await redis.time())[0]) * 1000
        # The list says that it is due; the context itself has changed since.
        await redis.zadd(keys.index("acme"), {"github:octo/hello:issue:1": now_ms - 6 * DAY_MS})
        assert await expiring.sweep() == 0
        assert (await house.get("github:octo/hello:issue:1")).event_count == 1


def _patch(context_id: str, patch: str) -> Any:
    return context_service_pb2.PatchContextRequest(
        context_id=context_id, tenant="acme", merge_patch_json=patch
    )
