"""Events are forgotten in every place where they can be, and nobody else's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import orjson
import pytest
from pydantic import SecretStr
from webhook.consumer.v1 import forgetting_service_pb2 as messages
from webhook.consumer.v1.forgetting_service_pb2_grpc import ForgettingServiceStub
from webhook.erasure.v1.erasure_pb2 import Wanted as Asked
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.archive.events import Chunk
from webhook_consumer.archive.facade import Archive
from webhook_consumer.archive.settings import ArchiveSection
from webhook_consumer.archive.waiting import Waiting
from webhook_consumer.dead_letters.retention import LetterRetention
from webhook_consumer.entry import Cause
from webhook_consumer.forgetting.erasure import Forgetting
from webhook_consumer.forgetting.match import Wanted
from webhook_consumer.forgetting.places import places_of
from webhook_consumer.forgetting.servicer import ForgettingServicer
from webhook_consumer.normalize import normalize
from webhook_consumer.opener import Opener
from webhook_consumer.queue.redis import Burial, Delayed
from webhook_shared.errors import from_rpc_error
from webhook_shared.mentions import Name
from webhook_shared.objects.directory import DirectoryObjectStore
from webhook_shared.retention import Retention, RetentionRule
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Authenticator, Role
from webhook_shared.rpc.server import serving

from services.consumer.tests.conftest import KEY, LANE, MASTER

QUARANTINE = "webhook-quarantine"
DAY = timedelta(days=1)


def body(number: int, login: str = "mona", **more: Any) -> bytes:
    return orjson.dumps(
        {
            "action": "opened",
            "issue": {"number": number, "title": "t", "state": "open", "user": {"login": login}, **more},
            "repository": {"full_name": "octo/hello", "name": "hello", "owner": {"login": "octo"}},
            "sender": {"login": login},
        }
    )


class Everywhere:
    """Events in every place, an archive, and what forgets them."""

    def __init__(self, town: Any) -> None:
        town.cold.mkdir()
        self.town = town
        self.redis = town.redis
        self.store = DirectoryObjectStore(town.cold)
        self.lanes = [LANE, town.enrichment]
        self.archive = self.archive_of()

    def archive_of(self, **rules: Any) -> Archive:
        return Archive(self.redis, self.store, MASTER, ArchiveSection(), **rules)

    async def fill(self, tenant: str, first: int, login: str) -> dict[str, str]:
        """One event of somebody's in each place; event ids by place."""
        ids: dict[str, str] = {}
        places = ("delayed", "parked", "dead", "flying", "quarantined", "archiving", "archived")
        async with self.town.queue() as queue:
            await queue.join()
            for at, place in enumerate(places):
                number = first + at
                ids[place] = await self.town.send(number, tenant=tenant, payload=body(number, login))
                (entry,) = await queue.read(1)
                if place == "delayed":
                    await queue.delay([Delayed(entry.id, 3_600_000, 1)])
                elif place == "parked":
                    await queue.park([entry])
                elif place == "dead":
                    await queue.bury([Burial(entry.id, Cause.PERMANENT, "no", 1)])
                elif place != "flying":
                    await queue.ack([entry.id])
                if place == "quarantined":
                    await self.redis.xadd(QUARANTINE, entry.fields)
                elif place in {"archiving", "archived"}:
                    await Waiting(self.redis, limit_bytes=2**20).add(Chunk.of([entry.fields]))
                    if place == "archived":
                        await self.archive.flush()
        return ids

    async def ids(self) -> set[str]:
        """Of all events that lie anywhere."""
        found = set()
        for place in places_of(self.redis, self.lanes, QUARANTINE):
            async for entries in place.pages():
                found |= {entry.text(b"id") for entry in entries if b"sealed" in entry.fields}
        for tenant in ("acme", "rival"):
            async for events in self.archive.events_of(tenant):
                found |= {event.event_id for event in events}
        return found

    def forgetting(self, says: Any = normalize, *, reads_sqs: bool = False) -> Forgetting:
        places = partial(places_of, self.redis, self.lanes, QUARANTINE)
        return Forgetting(places, self.archive, Opener(self.town.keyring), says, reads_sqs=reads_sqs)

    async def forget(self, wanted: Wanted, *, dry_run: bool = False) -> dict[str, tuple[int, int, str]]:
        """Found, erased and why some is left, by place."""
        async for sums in self.forgetting().carry_out(wanted, dry_run=dry_run):
            told = {name: (each.found, each.erased, each.reason) for name, each in sums.by_place.items()}
        return told


@pytest.fixture
async def everywhere(town: Any) -> Everywhere:
    return Everywhere(town)


@pytest.fixture
async def filled(everywhere: Everywhere) -> AsyncIterator[tuple[Everywhere, set[str], set[str]]]:
    """What is Mona's at acme, and what is somebody else's."""
    hers = await everywhere.fill("acme", 100, "mona")
    his = await everywhere.fill("acme", 200, "hubot")
    rivals = await everywhere.fill("rival", 300, "mona")
    # Last: whoever fills a place reads what waits.
    for ids, tenant, login in ((hers, "acme", "mona"), (his, "acme", "hubot"), (rivals, "rival", "mona")):
        number = {"mona": 9, "hubot": 10}[login]
        ids["waiting"] = await everywhere.town.send(number, tenant=tenant, payload=body(number, login))
    assert await everywhere.ids() == {*hers.values(), *his.values(), *rivals.values()}
    return everywhere, set(hers.values()), {*his.values(), *rivals.values()}


async def test_a_subject_is_forgotten_in_every_place(filled: Any) -> None:
    everywhere, hers, others = filled
    mona = Name.of("mona")
    told = await everywhere.forget(Wanted("acme", subject=mona), dry_run=True)
    assert told == {
        "queue": (4, 0, ""),
        "dead_letters": (1, 0, ""),
        "quarantine": (1, 0, ""),
        "archive": (2, 0, ""),
    }
    assert await everywhere.ids() == hers | others
    told = await everywhere.forget(Wanted("acme", subject=mona))
    assert told == {
        "queue": (4, 4, ""),
        "dead_letters": (1, 1, ""),
        "quarantine": (1, 1, ""),
        "archive": (2, 2, ""),
    }
    assert await everywhere.ids() == others
    # Nothing is pending that is not there, and nothing stays of what waited.
    pending = await everywhere.redis.xpending(LANE.stream, LANE.group)
    assert pending["pending"] == 2
    lies = await everywhere.redis.hlen(LANE.bodies), await everywhere.redis.zcard(LANE.arrivals)
    assert lies == (4, 4)
    assert (await everywhere.redis.zcard(LANE.delayed), await everywhere.redis.zcard(LANE.parked)) == (2, 2)
    assert {found for found, _, _ in (await everywhere.forget(Wanted("acme", subject=mona))).values()} == {0}


async def test_of_a_tenant_everything_is_forgotten_without_its_keys(filled: Any) -> None:
    everywhere, _, _ = filled
    await everywhere.redis.delete("tenantkey:{acme}")
    await everywhere.redis.hset("tenantkey:{acme}", "destroyed", "1")
    told = await everywhere.forget(Wanted("acme"))
    assert {name: erased for name, (_, erased, _) in told.items()} == {
        "queue": 8,
        "dead_letters": 2,
        "quarantine": 2,
        "archive": 4,
    }
    assert {one.split("-")[1] for one in await everywhere.ids()} == {"rival"}


async def test_a_context_takes_only_what_is_about_nothing_else(everywhere: Everywhere) -> None:
    town = everywhere.town
    fixes = body(2, body="fixes octo/hello#1")
    about = {one.context_id for one in normalize(await _event(town, 2, fixes))}
    assert "github:octo/hello:issue:2" in about
    alone = await town.send(1, tenant="acme", payload=body(1))
    known = await town.send(3, tenant="acme", payload=b"no JSON", fields={"sealed": b"WHE1 torn"})
    other = await town.send(4, tenant="acme", payload=body(4))
    enrich = {"tenant": "acme", "context_id": "github:octo/hello:issue:1"}
    await everywhere.redis.xadd(town.enrichment.stream, enrich)
    await everywhere.redis.xadd(town.enrichment.stream, {**enrich, "tenant": "rival"})
    wanted = Wanted("acme", context_id="github:octo/hello:issue:1", event_ids=frozenset({known}))
    told = await everywhere.forget(wanted)
    assert told["queue"] == (3, 3, "")
    assert await everywhere.ids() == {other}
    assert alone not in await everywhere.ids()
    left = await everywhere.redis.xrange(town.enrichment.stream)
    assert [fields[b"tenant"] for _, fields in left] == [b"rival"]


async def test_an_event_of_several_contexts_stays_where_others_wait_for_it(everywhere: Everywhere) -> None:
    push = orjson.dumps(
        {
            "ref": "refs/heads/main",
            "after": "a" * 40,
            "commits": [{"id": "b" * 40, "message": "one"}, {"id": "c" * 40, "message": "two"}],
            "repository": {"full_name": "octo/hello", "name": "hello", "owner": {"login": "octo"}},
            "sender": {"login": "mona"},
        }
    )

    def several(event: Any) -> list[Any]:
        said = normalize(event)
        return [*said, said[0]._replace(context_id="github:second")]

    sent = await everywhere.town.send(5, tenant="acme", payload=push)
    first = normalize(await _event(everywhere.town, 5, push))[0].context_id
    forgetting = everywhere.forgetting(several, reads_sqs=True)
    async for sums in forgetting.carry_out(Wanted("acme", context_id=first), dry_run=False):
        told = sums.by_place
    assert (told["queue"].found, told["queue"].erased, told["queue"].left, told["queue"].reason) == (
        *(1, 0, 1),
        "SHARED",
    )
    assert told["sqs"].reason == "NOT_SEARCHABLE"
    assert await everywhere.ids() == {sent}


async def test_what_does_not_open_is_told_of(everywhere: Everywhere) -> None:
    await everywhere.town.send(1, tenant="acme", fields={"sealed": b"WHE1 but no more than that"})
    told = await everywhere.forget(Wanted("acme", subject=Name.of("mona")))
    assert told["queue"] == (1, 0, "UNDECODABLE")


async def test_an_archive_that_is_away_is_told_of(filled: Any) -> None:
    everywhere, _, _ = filled
    everywhere.town.cold.rename(everywhere.town.cold.with_name("away"))
    told = await everywhere.forget(Wanted("acme", subject=Name.of("mona")))
    assert told["archive"][2] == "COLD_STORE_UNREACHABLE"
    assert told["queue"] == (4, 4, "")
    everywhere.town.cold.with_name("away").rename(everywhere.town.cold)
    told = await everywhere.forget(Wanted("acme", subject=Name.of("mona")))
    assert told["archive"] == (2, 2, "")


async def test_what_was_looked_at_before_is_not_read_again(filled: Any) -> None:
    everywhere, _, _ = filled
    await everywhere.archive.flush()
    later = Wanted("acme", subject=Name.of("mona"), since_ms=int(time.time() * 1000) + 1000)
    assert (await everywhere.forget(later, dry_run=True))["archive"] == (0, 0, "")


async def test_over_a_socket_and_for_our_own_alone(filled: Any) -> None:
    everywhere, hers, others = filled
    redis = everywhere.redis
    service = ForgettingServicer(everywhere.forgetting()).service()
    async with AsyncExitStack() as stack:
        at = Authenticator(redis, KEY)
        port = await stack.enter_async_context(
            serving("127.0.0.1:0", [service], authenticator=at, ready={}, drain_s=0.1)
        )
        _, operator = await ApiKeys(redis).mint("op", ["*"], [Role.OPERATOR])
        stubs = [
            ForgettingServiceStub(
                await stack.enter_async_context(connected(f"127.0.0.1:{port}", key=key, deadline_s=10))
            )
            for key in (KEY, SecretStr(operator))
        ]

        async def ask(stub: Any, **asked: str) -> tuple[list[Any], str]:
            try:
                told = stub.Forget(messages.ForgetRequest(wanted=Asked(**asked)))
                return [one async for one in told], ""
            except grpc.aio.AioRpcError as error:
                return [], from_rpc_error(error).reason

        for wrong in (
            {},
            {"tenant": "a", "subject": "..."},
            {"tenant": "a", "subject": "b", "context_id": "c"},
        ):
            assert await ask(stubs[0], **wrong) == ([], "FIELD_INVALID")
        assert (await ask(stubs[1], tenant="acme"))[1] == "ROLE_MISSING"
        assert await everywhere.ids() == hers | others
        told, _ = await ask(stubs[0], tenant="acme", subject="mona")
        assert told[-1].done
        last = {place.name: place.erased_count for one in told for place in one.places}
        assert last == {"queue": 4, "dead_letters": 1, "quarantine": 1, "archive": 2}


async def test_the_archive_keeps_by_tenant_and_tool(everywhere: Everywhere) -> None:
    rules = (
        RetentionRule(tenant="acme", archive=2 * DAY),
        RetentionRule(tenant="rival", tool="github", archive=30 * DAY),
    )
    archive = everywhere.archive_of(rules=rules)
    town, now_ms = everywhere.town, int(time.time() * 1000)
    events = []
    for tenant in ("acme", "rival", "third"):
        sent = await town.send(1, tenant=tenant)
        (row,) = await everywhere.redis.xrevrange(LANE.stream, count=1)
        assert row[1][b"id"].decode() == sent
        events += Chunk.of([row[1]]).events()

    async def kept(days: float) -> set[str]:
        await archive._segments.write(events, written_ms=int(now_ms - days * 86_400_000))
        await archive.archiver.sweep()
        found = {
            event.tenant
            for tenant in ("acme", "rival", "third")
            async for portion in archive.events_of(tenant)
            for event in portion
        }
        async for segment in archive._segments.all():
            await archive._segments.delete(segment)
        return found

    assert await kept(1) == {"acme", "rival", "third"}
    assert await kept(3) == {"rival", "third"}
    assert await kept(8) == {"rival"}
    assert await kept(31) == set()


async def test_dead_letters_are_kept_by_tenant_and_tool(everywhere: Everywhere) -> None:
    now_ms, redis = int(time.time() * 1000), everywhere.redis
    for days in (8, 3, 1):
        for tenant, tool in (("acme", "github"), ("acme", "jira"), ("rival", "github")):
            name = f"{now_ms - days * 86_400_000}-*"
            await redis.xadd(LANE.dead_letters, {"tenant": tenant, "tool": tool, "days": str(days)}, id=name)
    rules = (
        RetentionRule(tool="jira", dead_letters=2 * DAY),
        RetentionRule(tenant="rival", dead_letters=0 * DAY),
    )
    retention = Retention.of("dead_letters", 5 * DAY, rules)
    assert await LetterRetention(redis, everywhere.lanes, retention, every_s=60).sweep() == 3
    left = {
        (fields[b"tenant"].decode(), fields[b"tool"].decode(), int(fields[b"days"]))
        for _, fields in await redis.xrange(LANE.dead_letters)
    }
    assert left == {
        *(("acme", "github", days) for days in (1, 3)),
        ("acme", "jira", 1),
        *(("rival", "github", days) for days in (1, 3, 8)),
    }


async def _event(town: Any, number: int, payload: bytes) -> Any:
    return WebhookEvent(
        id=str(number), tenant="acme", tool="github", type="issues", payload=payload,
        content_type="application/json",
    )  # fmt: skip
