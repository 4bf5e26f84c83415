"""Forgetting over a socket: a context, a subject, a tenant; resumed, certified, refused where it must be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_pb2, context_service_pb2
from webhook.erasure.v1.erasure_pb2 import Place
from webhook_context.erasing.certificate import NotGenuine, is_about, verified
from webhook_context.erasing.forgetting import Settling
from webhook_context.erasing.jobs import LEASE_MS
from webhook_context.store import keys
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.sealing.errors import UnknownKey

from conftest import keys_of
from services.context.tests.conftest import MASTER_KEY
from services.context.tests.neighbours import neighbours
from services.context.tests.test_tiers import ISSUE, full, lifecycle

SOON = Settling(keys_s=0.05, names_s=0.05)
PLANTED = "zanzibar-quokka"
OTHER = "github:octo/hello:issue:2"


@pytest.fixture
def cold(tmp_path: Path) -> ObjectStorageSection:
    return ObjectStorageSection(directory=tmp_path / "cold")


@pytest.fixture
async def beside() -> AsyncIterator[Any]:
    async with neighbours() as heard:
        yield heard


@pytest.fixture
def opened(open_house: Any, valkey: Any, cold: ObjectStorageSection, beside: Any) -> Any:
    """Opens a replica that knows its neighbours and does not wait for long."""

    def made(**more: Any) -> Any:
        sections = {"cold_storage": cold, "context_lifecycle": lifecycle(), "services": beside.services}
        return open_house(valkey, settling=SOON, **{**sections, **more})

    return made


@pytest.fixture
async def house(opened: Any) -> AsyncIterator[Any]:
    async with opened() as up:
        yield up


async def erase(house: Any, **asked: Any) -> tuple[list[Any], ServiceError | None]:
    """All messages, and the error that the call ended with."""
    told: list[Any] = []
    try:
        async for one in house.admin.Erase(admin_pb2.EraseRequest(**{"tenant": "acme", **asked})):
            told.append(one)  # noqa: PERF401  # what came before an error counts
    except grpc.aio.AioRpcError as error:
        return told, from_rpc_error(error)
    return told, None


def counts(told: list[Any]) -> dict[str, tuple[int, int]]:
    """Found and erased, by place."""
    return {
        place.name: (place.found_count, place.erased_count) for message in told for place in message.places
    }


async def statement(house: Any, told: list[Any]) -> dict[str, Any]:
    key = (await house.admin.GetErasureKey(admin_pb2.GetErasureKeyRequest())).public_key
    return verified(told[-1].certificate_json, key)


async def everything(redis: Client, cold: ObjectStorageSection) -> bytes:
    """Every key, every value of every type, and every object."""
    found: list[bytes] = []
    for key in await keys_of(redis, "*"):
        found += [key, await redis.dump(key) or b""]
        match await redis.type(key):
            case b"hash":
                found += [part for pair in (await redis.hgetall(key)).items() for part in pair]
            case b"list":
                found += await redis.lrange(key, 0, -1)
            case b"set":
                found += await redis.smembers(key)
            case b"zset":
                found += await redis.zrange(key, 0, -1)
            case b"stream":
                found += [repr(entry).encode() for entry in await redis.xrange(key)]
            case b"string":
                found.append(await redis.get(key))
    for path in cold.directory.rglob("*"):
        if path.is_file():
            found += [str(path).encode(), path.read_bytes()]
    return b"\n".join(found)


async def settled(house: Any, make: Any, tier: str) -> list[bytes]:
    """A context with something planted in it, in a tier; its sealed bytes as they lie nowhere any more."""
    body = json.dumps({"text": PLANTED}).encode()
    await house.append(
        make("planted-1", text=f"see {PLANTED}", payload=body),
        make("planted-2", at=1, title=PLANTED, payload=body),
        make("other", context_id=OTHER, text="something else"),
    )
    await house.enrich(ISSUE, f"about {PLANTED}", [0.6, 0.8])
    patch = json.dumps({"attributes": {"note": PLANTED}})
    await house.contexts.PatchContext(
        context_service_pb2.PatchContextRequest(context_id=ISSUE, tenant="acme", merge_patch_json=patch)
    )
    if tier != "HOT":
        await house.move(tier, ISSUE)


@pytest.mark.parametrize("tier", ["HOT", "WARM", "COLD"])
async def test_of_a_context_only_a_tombstone_stays(
    house: Any, make: Any, redis: Client, *, cold: Any, beside: Any, tier: str, refused: Any
) -> None:
    await settled(house, make, tier)
    told, failure = await erase(house, context_id=ISSUE)
    assert failure is None
    assert counts(told)["contexts"] == (1, 1)
    assert counts(told)["events"] == (2, 2)
    assert await redis.hkeys(keys.context("acme", ISSUE)) != []
    held = {field.decode() for field in await redis.hkeys(keys.context("acme", ISSUE))}
    assert held <= {"version", "deleted", "erased"}
    assert not await redis.exists(
        *(make(*("acme", ISSUE)) for make in (keys.order, keys.packs, keys.revisions))
    )
    assert list(cold.directory.rglob("*.pack")) == []
    await refused(house.get(ISSUE), "NOT_FOUND", "CONTEXT_NOT_FOUND")
    assert (await house.search(PLANTED)).matches == []
    # What refuses late writers refuses replays as well.
    late, replayed = await house.append(make("late"), make("planted-1", replay_id="again"))
    assert (late.status.reason, replayed.status.reason) == ("CONTEXT_DELETED", "CONTEXT_DELETED")
    (asked,) = beside.asked["consumer"]
    assert asked.wanted.context_id == ISSUE
    assert set(asked.wanted.event_ids) == {"planted-1", "planted-2"}
    said = await statement(house, told)
    assert said["complete"]
    assert said["scope"] == "context"
    assert said["unreached"] == []
    assert is_about(said, "context", ["acme", ISSUE])
    assert not is_about(said, "context", ["acme", OTHER])
    assert ISSUE not in told[-1].certificate_json
    assert PLANTED not in told[-1].certificate_json
    # Again finds nothing, and says so.
    told, failure = await erase(house, context_id=ISSUE)
    assert (failure, counts(told).get("contexts", (0, 0))) == (None, (0, 0))


@pytest.mark.parametrize("tier", ["HOT", "WARM", "COLD"])
async def test_a_subject_goes_and_the_others_stay(
    house: Any, make: Any, redis: Client, *, cold: Any, beside: Any, tier: str
) -> None:
    body = json.dumps({"sender": {"login": "zed-mona"}, "n": "x" * 100}).encode()
    await house.append(
        make("by", at=1, actor="zed-mona", text="what mona said", title="mona's title", labels=["l"]),
        make("names", at=2, actor="hubot", text="assigned", payload=body),
        make("other", at=3, actor="hubot", text="unrelated", state="open"),
        make("alone", context_id=OTHER, actor="zed-mona"),
        make("untouched", context_id="github:octo/hello:issue:3", actor="hubot"),
    )
    await house.enrich(ISSUE, "zed-mona and hubot", [0.6, 0.8])
    patch = json.dumps({"labels": ["by hand"], "attributes": {"who": "zed-mona", "team": "blue"}})
    await house.contexts.PatchContext(
        context_service_pb2.PatchContextRequest(context_id=ISSUE, tenant="acme", merge_patch_json=patch)
    )
    before = await house.get("github:octo/hello:issue:3")
    if tier != "HOT":
        await house.move(tier, ISSUE)
    told, failure = await erase(house, subject="zed-mona", dry_run=True)
    assert (failure, counts(told)["events"], told[-1].certificate_json) == (None, (3, 0), "")
    assert (await house.get(ISSUE)).event_count == 3

    told, failure = await erase(house, subject="zed-mona")
    assert failure is None
    assert counts(told)["contexts"] == (2, 2)
    assert counts(told)["events"] == (3, 3)
    after = (await full(house)).context
    assert [event.event_id for event in after.events] == ["other"]
    assert list(after.actors) == ["hubot"]
    assert (after.title, after.state, list(after.labels)) == ("", "open", ["by hand"])
    assert json.loads(after.attributes_json) == {"team": "blue"}
    assert (after.enrichment.summary, list(after.enrichment.vector)) == ("", [])
    revisions = await house.contexts.ListRevisions(
        context_service_pb2.ListRevisionsRequest(context_id=ISSUE, tenant="acme")
    )
    assert "zed-mona" not in str(revisions)
    assert await house.get("github:octo/hello:issue:3") == before
    assert list(cold.directory.rglob("*.pack")) == []
    assert (await house.search("zed-mona")).matches == []
    _, first, second = beside.asked["consumer"]
    assert first.wanted.subject == "zed-mona"
    assert first.wanted.since_ms == 0
    assert second.wanted.since_ms > 0
    assert set(second.wanted.event_ids) == {"by", "names", "alone"}
    # It is asked for again what was made of the erased.
    entries = await redis.xrange(keys.ENRICHMENT)
    assert entries[-1][1][b"context_id"] == ISSUE.encode()
    said = await statement(house, told)
    assert said["complete"]
    assert is_about(said, "subject", ["acme", "zed-mona"])
    assert "zed-mona" not in json.dumps(said)
    # The name itself is nowhere any more, not even as who was erased.
    assert b"zed-mona" not in await everything(redis, cold)


async def test_late_events_of_an_erased_subject_are_refused(house: Any, make: Any, opened: Any) -> None:
    await house.append(make("first", actor="hubot"))
    await erase(house, subject="Mona Lisa")
    async with opened() as another:
        late = json.dumps({"by": {"name": "MONA \u004cisa"}}).encode()
        results = await another.append(
            make("late-by", actor="mona lisa"),
            make("late-named", actor="hubot", payload=late),
            make("late-other", actor="mona", text="lisa is another one"),
            make("rivals", tenant="rival", actor="mona lisa"),
        )
    assert [one.status.reason for one in results] == ["EVENT_ERASED", "EVENT_ERASED", "", ""]
    now = make("new", actor="mona lisa")
    now.event.occurred_time.GetCurrentTime()
    now.event.occurred_time.seconds += 60
    now.event.received_time.CopyFrom(now.event.occurred_time)
    (result,) = await house.append(now)
    assert result.status.reason == ""


async def test_an_erasure_while_others_write(house: Any, make: Any) -> None:
    ids = [f"github:octo/hello:issue:{n}" for n in range(100, 112)]
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            appends = [
                make(f"{one}-{count}", context_id=one, actor="mona" if count % 2 else "hubot") for one in ids
            ]
            await house.append(*appends)
            count += 1
        return count

    writing = asyncio.create_task(write())
    async with asyncio.timeout(10):
        while not (await house.list()).contexts:
            await asyncio.sleep(0.01)
    _, failure = await erase(house, subject="mona")
    stop.set()
    written = await writing
    assert failure is None
    assert written > 1
    for one in ids:
        context = await house.get(one, max_events=1000)
        assert {event.actor for event in context.events} == {"hubot"}
        assert context.event_count == (written + 1) // 2


@pytest.mark.parametrize("tier", ["HOT", "COLD"])
async def test_of_a_tenant_nothing_stays(
    house: Any, make: Any, redis: Client, *, cold: Any, beside: Any, tier: str
) -> None:
    await settled(house, make, tier)
    await house.append(make("r", tenant="rival", text="of another one"))
    sealed = {
        name: value
        for key in await keys_of(redis, "ctx:{acme*")
        if await redis.type(key) == b"hash"
        for name, value in (await redis.hgetall(key)).items()
    }
    packs = [path.read_bytes() for path in cold.directory.rglob("*.pack")]
    told, failure = await erase(house, whole_tenant=True)
    assert failure is None
    assert counts(told)["contexts"] == (2, 2)
    assert counts(told)["keys"] == (1, 1)
    left = await keys_of(redis, "*acme*")
    assert left <= {b"tenantkey:{acme}", b"erasures:{acme}"}
    assert await redis.hkeys("tenantkey:{acme}") == [b"destroyed"]
    assert PLANTED.encode() not in await everything(redis, cold)
    names = [
        path.relative_to(cold.directory).as_posix() for path in cold.directory.rglob("*") if path.is_file()
    ]
    assert [name for name in names if not name.startswith("keys/") or "destroyed" in name] == [
        name for name in names if name.endswith("/destroyed")
    ]
    # With the old master key nothing of it opens, however it was kept elsewhere.
    keyring = Keyring(redis, MASTER_KEY)
    with pytest.raises(UnknownKey):
        await keyring.prepare(["acme"])
    for name, value in sealed.items():
        if name.startswith(b"e:"):
            with pytest.raises(UnknownKey):
                keyring.open("acme", value, "event", ISSUE, name[2:].decode())
    assert bool(packs) == (tier == "COLD")
    (result,) = await house.append(make("late"))
    assert result.status.reason == "TENANT_KEYS_DESTROYED"
    assert (await house.get(ISSUE, tenant="rival")).event_count == 1
    assert len(beside.asked["consumer"]) == 2
    said = await statement(house, told)
    assert is_about(said, "tenant", ["acme"])
    # Once more is allowed; of a part of it there is nothing to erase.
    told, failure = await erase(house, whole_tenant=True)
    assert failure is None
    _, failure = await erase(house, context_id=ISSUE)
    assert failure
    assert (failure.code.name, failure.reason) == ("FAILED_PRECONDITION", "TENANT_KEYS_DESTROYED")


async def test_a_dry_run_writes_nothing(house: Any, make: Any, redis: Client, cold: Any) -> None:
    await settled(house, make, "COLD")

    async def lies() -> tuple[dict[bytes, Any], list[Path], list[Any]]:
        contexts = {key: await redis.dump(key) for key in sorted(await redis.keys("ctx:*"))}
        return contexts, sorted(cold.directory.rglob("*")), await redis.keys("erasure*")

    before = await lies()
    for asked in ({"context_id": ISSUE}, {"subject": PLANTED}, {"whole_tenant": True}):
        told, failure = await erase(house, dry_run=True, **asked)
        assert failure is None
        assert told[-1].done
        assert counts(told)["contexts"][0] >= 1
        assert all(erased == 0 for name, (_, erased) in counts(told).items() if name != "archive")
    assert await lies() == before


async def test_a_cut_short_erasure_is_finished_by_another_replica(
    house: Any, make: Any, opened: Any, beside: Any
) -> None:
    await settled(house, make, "COLD")
    call = house.admin.Erase(admin_pb2.EraseRequest(tenant="acme", context_id=ISSUE))
    async for told in call:
        if told.step == "security":
            break
    call.cancel()
    listed = (await house.admin.ListErasures(admin_pb2.ListErasuresRequest(tenant="acme"))).erasures
    assert [(one.scope, one.complete) for one in listed] == [("context", False)]
    beside.asked.clear()
    async with opened() as another, asyncio.timeout(10):
        told_again, failure = await erase(another, context_id=ISSUE)
        while failure is not None and failure.reason == "ERASURE_UNDER_WAY":
            await asyncio.sleep(0.02)
            told_again, failure = await erase(another, context_id=ISSUE)
        assert failure is None
        # What was known only before the first run is looked for all the same, and counted.
        assert set(beside.asked["consumer"][0].wanted.event_ids) == {"planted-1", "planted-2"}
        said = await statement(another, told_again)
        assert {place["place"]: place["erased"] for place in said["places"]}["events"] == 2
        listed = (await another.admin.ListErasures(admin_pb2.ListErasuresRequest())).erasures
        assert [(one.scope, one.complete) for one in listed] == [("context", True)]


async def test_two_at_once_are_one(house: Any, make: Any) -> None:
    await settled(house, make, "HOT")
    first = house.admin.Erase(admin_pb2.EraseRequest(tenant="acme", subject=PLANTED))
    told = [await anext(aiter(first))]
    _, failure = await erase(house, subject=PLANTED)
    assert failure
    assert (failure.code.name, failure.reason) == ("ABORTED", "ERASURE_UNDER_WAY")
    assert failure.retry_after_s
    told += [one async for one in first]
    assert told[-1].done


async def test_a_bucket_that_is_away_is_told_of_and_finished_later(
    opened: Any, make: Any, cold: ObjectStorageSection
) -> None:
    async with opened() as house:
        await settled(house, make, "COLD")
        away = cold.directory.rename(cold.directory.with_name("away"))
        cold.directory.write_bytes(b"no directory")
        told, failure = await erase(house, context_id=ISSUE)
        assert failure
        assert (failure.code.name, failure.reason) == ("UNAVAILABLE", "ERASURE_INCOMPLETE")
        assert failure.metadata["places"] == "cold_objects"
        said = await statement(house, told)
        assert (said["complete"], said["unreached"]) == (False, ["cold_objects"])
        cold.directory.unlink()
        away.rename(cold.directory)
        told, failure = await erase(house, context_id=ISSUE)
        assert failure is None
        assert (await statement(house, told))["complete"]
        assert list(cold.directory.rglob("*.pack")) == []


async def test_a_service_that_is_away_is_told_of(opened: Any, make: Any, beside: Any) -> None:
    nobody = beside.services.model_copy(update={"intelligence": "127.0.0.1:1"})
    async with opened(services=nobody) as house:
        await house.append(make("e1"))
        told, failure = await erase(house, context_id=ISSUE)
    assert failure
    assert failure.metadata["places"] == "intelligence"
    assert json.loads(told[-1].certificate_json)["statement"]["unreached"] == ["intelligence"]


async def test_what_stays_on_purpose_is_no_failure(house: Any, make: Any, beside: Any) -> None:
    beside.places = [Place(name="queue", found_count=1, left_count=1, reason="SHARED")]
    await house.append(make("e1"))
    told, failure = await erase(house, context_id=ISSUE)
    assert failure is None
    (queue,) = [one for one in (await statement(house, told))["places"] if one["place"] == "queue"]
    assert queue == {"place": "queue", "found": 1, "erased": 0, "left": 1, "reason": "SHARED"}


async def test_bad_requests(house: Any, make: Any) -> None:
    await house.append(make("e1"), make("r", tenant="rival", context_id="rivals"))
    for asked, expected in (
        ({}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"whole_tenant": False}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"subject": " ... "}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"subject": "x" * 300}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"context_id": "a\nb"}, ("INVALID_ARGUMENT", "FIELD_INVALID")),
        ({"context_id": "rivals"}, ("NOT_FOUND", "CONTEXT_NOT_FOUND")),
        ({"tenant": "nobody", "whole_tenant": True}, ("NOT_FOUND", "TENANT_NOT_FOUND")),
        ({"tenant": "nobody", "context_id": ISSUE}, ("NOT_FOUND", "TENANT_NOT_FOUND")),
    ):
        told, failure = await erase(house, **asked)
        assert failure
        assert (told, (failure.code.name, failure.reason)) == ([], expected)
    assert (await house.get("rivals", tenant="rival")).event_count == 1


async def test_an_operator_erases_only_of_its_own_tenants(
    house: Any, make: Any, opened: Any, redis: Client
) -> None:
    await house.append(make("e1"), make("r", tenant="rival"))
    minted = {
        role: SecretStr((await ApiKeys(redis).mint(role.name, ["acme"], [role]))[1])
        for role in (Role.OPERATOR, Role.WRITER)
    }
    async with opened(key=minted[Role.WRITER]) as writer:
        _, failure = await erase(writer, context_id=ISSUE)
        assert failure
        assert failure.code.name == "PERMISSION_DENIED"
    async with opened(key=minted[Role.OPERATOR]) as operator:
        for asked in ({"whole_tenant": True}, {"context_id": ISSUE}, {"subject": "mona"}):
            answers = [await erase(operator, tenant=tenant, **asked) for tenant in ("rival", "nobody")]
            # A tenant that there is and one that there is not answer the same.
            assert {str(failure) for _, failure in answers} == {str(answers[0][1])}
            failure = answers[0][1]
            assert failure
            assert (failure.code.name, failure.reason) == ("NOT_FOUND", "TENANT_NOT_FOUND")
        told, failure = await erase(operator, context_id=ISSUE)
        assert failure is None
        assert told[-1].done
        listed = await operator.admin.ListErasures(admin_pb2.ListErasuresRequest())
        assert [one.tenant for one in listed.erasures] == ["acme"]
    assert (await house.get(ISSUE, tenant="rival")).tier == context_pb2.TIER_HOT


async def test_a_certificate_can_not_be_changed(house: Any, make: Any) -> None:
    await house.append(make("e1"))
    told, _ = await erase(house, context_id=ISSUE)
    key = (await house.admin.GetErasureKey(admin_pb2.GetErasureKeyRequest())).public_key
    whole = json.loads(told[-1].certificate_json)
    # However it is written down.
    assert verified(json.dumps(whole, indent=2), key)["scope"] == "context"
    for change in ({"complete": False}, {"scope": "tenant"}, {"places": []}, {"asked_digest": "0" * 64}):
        with pytest.raises(NotGenuine, match="changed"):
            verified(json.dumps({**whole, "statement": {**whole["statement"], **change}}), key)
    with pytest.raises(NotGenuine, match="another key"):
        verified(told[-1].certificate_json, bytes(32))
    for nothing in ("", "{}", "[]", "null", json.dumps({**whole, "signature": "?"})):
        with pytest.raises(NotGenuine):
            verified(nothing, key)


async def test_the_lease_of_a_dead_replica_runs_out() -> None:
    # The lease is what `ERASURE_UNDER_WAY` waits for; it must end by itself, and soon.
    assert timedelta(milliseconds=LEASE_MS) <= timedelta(minutes=1)
