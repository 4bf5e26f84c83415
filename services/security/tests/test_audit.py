"""What is put on record, and what becomes of it while Redis is away."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from pydantic import SecretStr
from webhook.security.v1 import audit_pb2
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, OUTCOME_REFUSED, REFUSAL_RATE, Verdict
from webhook.security.v1.audit_pb2 import AUDIT_CHANGE_KIND_SOURCES, AuditRecord
from webhook_security.evidence.audit import Audit
from webhook_security.evidence.audit_check import checked
from webhook_security.evidence.source_changes import SourceChanges
from webhook_security.refusals import Refusal
from webhook_shared import redis as store
from webhook_shared.audit.chain import AuditChain, Seal

MASTER = SecretStr("kTzW8r5J2mQx7LcV0bNf4HsY9dGa1EpU3oRi6SwB")


async def told(chain: AuditChain) -> list[AuditRecord]:
    return [entry.record for entry in await chain.entries(after=1, most=1000)]


def verdict(event_id: str, tenant: str = "default", outcome: Any = OUTCOME_ADMITTED) -> Verdict:
    made = Verdict(outcome=outcome)
    if outcome == OUTCOME_ADMITTED:
        made.event.id, made.event.tenant = event_id, tenant
    return made


@pytest.fixture
def chain(redis: store.Client) -> AuditChain:
    return AuditChain(redis, Seal(MASTER), most=1000, contract=audit_pb2)


@pytest.fixture
def audit(chain: AuditChain) -> Audit:
    return Audit(chain, every_s=0.01)


async def test_denials_become_one_record(chain: AuditChain, audit: Audit, judge: Any) -> None:
    source = judge.registry.find("default", "github")
    for number in range(1000):
        audit.denied(Refusal.RATE, source, f"203.0.113.{number % 9}")
    audit.denied(Refusal.UNKNOWN_SOURCE, None, "203.0.113.1")
    await audit.journal.flush()
    rate, unknown = await told(chain)
    assert (rate.tenant, rate.denials.tool, rate.denials.cause) == ("default", "github", REFUSAL_RATE)
    assert rate.denials.count == 1000
    assert len(rate.denials.peer_addresses) == 4
    assert (unknown.tenant, unknown.denials.tool, unknown.denials.count) == ("", "", 1)


async def test_admissions_are_a_count_and_a_digest_per_tenant(chain: AuditChain, audit: Audit) -> None:
    audit.admitted([verdict("a"), verdict("b"), verdict("x", outcome=OUTCOME_REFUSED)])
    audit.admitted([verdict("c"), verdict("z", tenant="acme")])
    await audit.journal.flush()
    default, acme = await told(chain)
    assert default.admissions.count == 3
    assert default.admissions.event_ids_sha256 == hashlib.sha256(b"abc").digest()
    assert (default.admissions.first_event_id, default.admissions.last_event_id) == ("a", "c")
    assert (acme.tenant, acme.admissions.count) == ("acme", 1)


async def test_while_redis_is_away_nothing_waits_and_what_had_to_go_is_told(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = store.connect(redis_server.settings)
    chain = AuditChain(client, Seal(MASTER), most=1000, contract=audit_pb2)
    monkeypatch.setattr("webhook_shared.audit.trail.MOST_WAITING", 10)
    audit = Audit(chain, every_s=0.01)
    writing = asyncio.create_task(audit.journal.keep())
    try:
        audit.called("X/before", "k", "OK", {})
        async with asyncio.timeout(5):
            while (await checked(chain)).last < 2:
                await asyncio.sleep(0.01)
        redis_server.kill()
        for number in range(25):
            audit.called(f"X/{number}", "k", "OK", {})
            await asyncio.sleep(0)
        redis_server.start()
        await redis_server.answering()
        async with asyncio.timeout(10):
            while len(await told(chain)) < 12:
                await asyncio.sleep(0.02)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        check = await checked(chain)
        await client.aclose()
    assert check.findings == []
    assert check.lost == 15


async def test_a_source_that_changed_is_on_record_without_its_secret(
    chain: AuditChain, audit: Audit, judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = SourceChanges(judge.registry, audit, Seal(MASTER), "configuration")
    changes.look()
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "hunter2-planted")
    judge.reread()
    changes.look()
    changes.look()
    await audit.journal.flush()
    started, changed = await told(chain)
    assert started.change.digest
    assert changed.change.kind == AUDIT_CHANGE_KIND_SOURCES
    assert list(changed.change.names) == ["default/github changed (env:GITHUB_WEBHOOK_SECRET)"]
    assert changed.change.digest != started.change.digest
    assert b"hunter2" not in changed.SerializeToString()
