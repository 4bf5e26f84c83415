"""Refused deliveries are kept sealed, within bounds, a sample of a flood, and fairly between sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from webhook_security.evidence.forgetting import Forgetting, Forgotten
from webhook_security.evidence.rejection_store import RejectionStore
from webhook_security.evidence.rejections import Samples
from webhook_security.refusals import Refusal
from webhook_security.settings import RejectionsSection
from webhook_shared import redis as store
from webhook_shared.mentions import Name
from webhook_shared.sealing.envelope import Keyring

from conftest import keys_of

SOURCES = [("default", "github"), ("default", "jira"), ("acme", "github")]
Kept = Callable[..., tuple[RejectionStore, Samples]]


@pytest.fixture
def kept(redis: store.Client, keyring: Keyring) -> Kept:
    def make(now: float | None = None, **section: Any) -> tuple[RejectionStore, Samples]:
        settings = RejectionsSection(**section)
        clock = {} if now is None else {"clock": lambda: now}
        made = RejectionStore(redis, keyring, settings, lambda: SOURCES, **clock)
        return made, Samples(made, settings, **clock)

    return make


async def test_a_refused_delivery_is_told_and_kept_for_a_retry(
    kept: Kept, judge: Any, deliver: Any, sign: Any
) -> None:
    store_, samples = kept()
    delivery = deliver("github", b'{"a":1}', {**sign.github(b"{}"), "cookie": "c=1"})
    samples.take(Refusal.SIGNATURE_INVALID, delivery, judge.registry.find("", "github"))
    await samples.journal.flush()
    [found] = await store_.find(store_.rooms())
    [rejection] = await store_.rejections([found])
    assert (rejection.tenant, rejection.tool, rejection.body_bytes) == ("default", "github", 7)
    assert rejection.headers["x-github-event"] == "issues"
    assert not {"x-hub-signature-256", "cookie"} & set(rejection.headers)
    assert (rejection.retryable, rejection.event_id) == (True, "")
    refused = (await store_.deliveries(store_.rooms(), [found.rejection_id]))[found.rejection_id]
    assert refused.delivery is not None
    assert refused.delivery.body == b'{"a":1}'
    assert "cookie" not in {header.name for header in refused.delivery.headers}


async def test_redis_holds_nothing_of_it_in_clear(
    kept: Kept, judge: Any, deliver: Any, redis: store.Client
) -> None:
    _, samples = kept()
    delivery = deliver("github", b"hunter2-body", {"x-github-event": "hunter2-header"})
    samples.take(Refusal.SIGNATURE_MISSING, delivery, judge.registry.find("", "github"))
    await samples.journal.flush()
    dumped = b"".join([await redis.dump(key) or b"" for key in await keys_of(redis, "rejections:*")])
    assert dumped
    assert b"hunter2" not in dumped


async def test_a_flood_is_sampled(kept: Kept, judge: Any, deliver: Any) -> None:
    _, samples = kept(now=1000.0, per_second=5)
    github, jira = judge.registry.find("", "github"), judge.registry.find("", "jira")
    for _ in range(1000):
        samples.take(Refusal.SIGNATURE_INVALID, deliver("github", b"x", {}), github)
    samples.take(Refusal.CONTENT_TYPE, deliver("github", b"x", {}), github)
    samples.take(Refusal.SIGNATURE_INVALID, deliver("jira", b"x", {}), jira)
    for number in range(1000):
        samples.take(Refusal.UNKNOWN_SOURCE, deliver(f"t{number}", b"x", {}), None)
    assert len(samples.journal._waiting) == 5 + 1 + 1 + 5
    assert len(samples._taken) == 4


async def test_each_source_has_its_share_and_the_oldest_go(
    kept: Kept, judge: Any, deliver: Any, redis: store.Client
) -> None:
    store_, samples = kept(max_count=175, per_second=1000, max_bytes=100_000)
    jira = deliver("jira", b"the one of jira", {})
    samples.take(Refusal.SIGNATURE_INVALID, jira, judge.registry.find("", "jira"))
    for number in range(300):
        flood = deliver("github", b"%d" % number, {})
        samples.take(Refusal.SIGNATURE_INVALID, flood, judge.registry.find("", "github"))
    await samples.journal.flush()
    found = await store_.find(store_.rooms())
    assert len(found) == 25 + 1
    assert [place.room.tool for place in found].count("jira") == 1
    assert await redis.hlen("rejections:{default/github}:facts") == 25  # type: ignore[misc]  # async here
    told = await store_.rejections([place for place in found if place.room.tool == "github"])
    assert all(rejection.body_bytes == 3 for rejection in told)


async def test_forgeries_push_out_nothing_that_was_signed_right(kept: Kept, judge: Any, deliver: Any) -> None:
    store_, samples = kept(max_count=175, per_second=1000)
    github = judge.registry.find("", "github")
    samples.take(Refusal.RATE, deliver("github", b"over the limit", {}), github)
    for number in range(100):
        samples.take(Refusal.SIGNATURE_INVALID, deliver("github", b"%d" % number, {}), github)
    await samples.journal.flush()
    found = await store_.find(store_.rooms())
    assert sorted(place.cause for place in found) == [Refusal.SIGNATURE_INVALID] * 25 + [Refusal.RATE]
    [rate] = await store_.rejections([place for place in found if place.room.proved])
    assert rate.retryable


async def test_the_bytes_are_bounded_and_counted_right(
    kept: Kept, judge: Any, deliver: Any, redis: store.Client
) -> None:
    _, samples = kept(max_bytes=700_000, per_second=1000)
    github = judge.registry.find("", "github")
    # Random, so that compression does not hide it.
    bodies = [bytes((number * at * 7919 + at) % 251 for at in range(20_000)) for number in range(20)]
    for body in bodies:
        samples.take(Refusal.SIGNATURE_INVALID, deliver("github", body, {}), github)
    await samples.journal.flush()
    deliveries: Any = await redis.hvals("rejections:{default/github}:deliveries")  # type: ignore[misc]
    assert 0 < sum(map(len, deliveries)) <= 100_000
    assert int(await redis.get("rejections:{default/github}:bytes") or 0) == sum(map(len, deliveries))


async def test_a_delivery_too_large_for_its_share_leaves_its_facts(
    kept: Kept, judge: Any, deliver: Any
) -> None:
    store_, samples = kept(max_bytes=2800)
    delivery = deliver("github", b"x" * 101, {})
    samples.take(Refusal.SIGNATURE_INVALID, delivery, judge.registry.find("", "github"))
    await samples.journal.flush()
    [rejection] = await store_.rejections(await store_.find(store_.rooms()))
    assert (rejection.body_bytes, rejection.retryable) == (101, False)
    assert await store_.find(store_.rooms(), retryable_only=True) == []


async def test_what_is_too_old_is_gone(kept: Kept, judge: Any, deliver: Any) -> None:
    store_, samples = kept(max_age=timedelta(hours=1))
    delivery = deliver("github", b"x", {})
    samples.take(Refusal.SIGNATURE_INVALID, delivery, judge.registry.find("", "github"))
    await samples.journal.flush()
    assert len(await store_.find(store_.rooms())) == 1
    later, _ = kept(now=delivery.received_time.ToSeconds() + 3700.0, max_age=timedelta(hours=1))
    assert await later.find(later.rooms()) == []


async def test_writing_twice_keeps_once_and_settling_lets_go(
    kept: Kept, judge: Any, deliver: Any, redis: store.Client
) -> None:
    store_, samples = kept()
    delivery = deliver("github", b"x", {})
    samples.take(Refusal.SIGNATURE_INVALID, delivery, judge.registry.find("", "github"))
    entries = [entry for entry, _ in samples.journal._waiting]
    await store_.keep(entries)
    await store_.keep(entries)
    [found] = await store_.find(store_.rooms())
    for _ in range(2):
        await store_.settle([(found.rejection_id, "the event"), ("019f0000-none", "e")])
    [rejection] = await store_.rejections([found])
    assert (rejection.retryable, rejection.event_id) == (False, "the event")
    assert int(await redis.get("rejections:{default/github}:bytes") or -1) == 0


async def test_refused_deliveries_are_forgotten_by_name_and_by_tenant(
    kept: Kept, judge: Any, deliver: Any, redis: store.Client
) -> None:
    store_, samples = kept()
    forgetting = Forgetting(redis, store_)
    for number, who in enumerate(("mona", "hubot", "mona")):
        body = json.dumps({"n": number, "sender": {"login": who}}).encode()
        source = judge.registry.find("", "jira" if number == 2 else "github")
        samples.take(Refusal.SIGNATURE_INVALID, deliver(source.tool, body, {}), source)
    header = deliver("github", b"{}", {"x-by": "Mona"})
    samples.take(Refusal.SIGNATURE_INVALID, header, judge.registry.find("", "github"))
    await samples.journal.flush()
    mona = Name.of("mona")
    assert mona is not None
    assert await forgetting.naming("default", mona, dry_run=True) == Forgotten(3, 0)
    assert await forgetting.naming("acme", mona, dry_run=False) == Forgotten(0, 0)
    assert await forgetting.naming("default", mona, dry_run=False) == Forgotten(3, 3)
    (left,) = await store_.find(store_.rooms())
    (refused,) = (await store_.deliveries(store_.rooms(), [left.rejection_id])).values()
    assert refused.delivery is not None
    assert b"hubot" in refused.delivery.body
    assert await forgetting.all("acme", dry_run=False) == Forgotten(0, 0)
    assert await forgetting.all("default", dry_run=True) == Forgotten(1, 0)
    assert await forgetting.all("default", dry_run=False) == Forgotten(1, 1)
    assert await redis.keys("rejections:*") == []
