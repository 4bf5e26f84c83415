"""Copies to SQS: behind the answer, bounded, and counted where they are lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from webhook.ingest.v1 import migration_service_pb2 as messages
from webhook.ingest.v1 import migration_service_pb2_grpc
from webhook_gateway.migration_servicer import MigrationServicer
from webhook_gateway.outcome import Accepted, Publication, Published
from webhook_gateway.publishing.dual_write import Copier, DualWriter, copying
from webhook_gateway.publishing.migration import Migration
from webhook_gateway.publishing.ramp import Share
from webhook_gateway.publishing.sqs_sending import SENT, Sent
from webhook_gateway.publishing.stream import MISSING
from webhook_shared.errors import from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sqs.client import SqsTrouble
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.sqs.parity import Ledger, Place, compare

UUIDS = "0190aaaa-0000-7000-8000-{:012}"


class Other:
    """The other queue, as slow and as unwilling as it is told to be."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.faults: list[Sent] = []
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, publications: Sequence[Publication]) -> list[Sent]:
        await self.open.wait()
        results = []
        for publication in publications:
            fault = self.faults.pop(0) if self.faults else SENT
            results.append(fault)
            if not fault.fault:
                self.taken.append(publication.event_id)
        return results


class Stream:
    """A queue that takes all, or nothing."""

    gave_up = False

    def __init__(self) -> None:
        self.away = False

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        return [MISSING if self.away else Accepted(each.event_id, each.quarantined) for each in publications]

    attempt = publish


def events(count: int, *, size: int = 10, quarantined: bool = False) -> list[Publication]:
    now_ms = round(time.time() * 1000)
    return [
        Publication(
            UUIDS.format(n), "t", "github", "push", now_ms, 1, b"x" * size, "", f"k{n}", 1000, 1, quarantined
        )
        for n in range(count)
    ]


def copier_to(other: Any, redis: Any, *, max_events: int = 1000, max_bytes: int = 2**20) -> Copier:
    ledger = Ledger(redis, Place.SQS_QUEUED, retention_s=600)
    return Copier(other, ledger, max_events=max_events, max_bytes=max_bytes)


def writer(copier: Copier, redis: Any, stream: Any) -> DualWriter:
    return DualWriter(stream, copier, Ledger(redis, Place.REDIS_QUEUED, retention_s=600))


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_queue_that_hangs_keeps_no_answer_waiting(redis):
    other = Other()
    other.open.clear()
    async with copying(copier_to(other, redis), 1.0) as copier:
        started_s = time.perf_counter()
        results = await writer(copier, redis, Stream()).publish(events(50))
        assert time.perf_counter() - started_s < 0.5
        assert len(results) == 50
        assert len(copier) == 50
        found = await compare(redis, window_s=60, settle_s=0)
        assert found.gaps[0].count == 50
        other.open.set()
        await until(lambda: len(other.taken) == 50)
    assert copier.lost == 0
    assert (await compare(redis, window_s=60, settle_s=0)).gaps == []


async def test_what_failed_is_copied_again_before_what_came_later(redis):
    other = Other()
    other.faults = [SENT, Sent("InternalError"), SENT, Sent("RequestThrottled")]
    async with copying(copier_to(other, redis), 1.0) as copier:
        copier.offer(events(6))
        await until(lambda: len(other.taken) == 6)
    assert other.taken == [UUIDS.format(n) for n in (0, 2, 4, 5, 1, 3)]
    assert copier.lost == 0


async def test_what_finds_no_room_is_counted_and_the_rest_is_copied(redis):
    other = Other()
    other.open.clear()
    copier = copier_to(other, redis, max_events=10)
    async with copying(copier, 1.0):
        copier.offer(events(15))
        assert (len(copier), copier.lost) == (10, 5)
        other.open.set()
    assert len(other.taken) == 10
    large = copier_to(other, redis, max_bytes=3000)
    large.offer(events(5, size=1000))
    assert (len(large), large.lost) == (1, 4)


async def test_what_is_refused_for_good_is_counted_and_holds_up_nobody(redis):
    other = Other()
    other.faults = [Sent("InvalidMessageContents", final=True)]
    async with copying(copier_to(other, redis), 1.0) as copier:
        copier.offer(events(3))
        await until(lambda: len(other.taken) == 2)
    assert copier.lost == 1


async def test_what_can_not_be_copied_when_the_process_ends_is_counted(redis):
    other = Other()
    other.open.clear()
    async with copying(copier_to(other, redis), 0.1) as copier:
        copier.offer(events(7))
    assert (len(copier), copier.lost, other.taken) == (0, 7, [])


async def test_only_what_redis_took_is_copied(redis):
    other, stream = Other(), Stream()
    async with copying(copier_to(other, redis), 1.0) as copier:
        both = writer(copier, redis, stream)
        stream.away = True
        assert await both.attempt(events(2)) == [MISSING, MISSING]
        stream.away = False
        await both.publish(events(2, quarantined=True))
        assert len(copier) == 0
        await both.publish(events(1))
    assert other.taken == [UUIDS.format(0)]


class Silent:
    """An SQS that does not answer."""

    url = "https://sqs.eu-west-1.amazonaws.com/1/old"

    async def counts(self) -> tuple[int, int, int]:
        raise SqsTrouble("EndpointConnectionError")


@asynccontextmanager
async def door(redis: Any, key: Any, migration: Migration | None) -> Any:
    """The operators' calls, on a real socket."""
    service = Service(
        "webhook.ingest.v1.MigrationService",
        lambda server: migration_service_pb2_grpc.add_MigrationServiceServicer_to_server(
            MigrationServicer(migration), server
        ),
        Role.OPERATOR,
    )
    async with (
        serving(
            "127.0.0.1:0", [service], authenticator=Authenticator(redis, key), ready={}, drain_s=0.1
        ) as port,
        connected(f"127.0.0.1:{port}", key=key, deadline_s=5) as channel,
    ):
        yield migration_service_pb2_grpc.MigrationServiceStub(channel)


async def reason(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value).reason


async def test_operators_hear_where_it_stands_and_shift_it(redis, kit):
    settings = MigrationSection(
        backend="sqs", dual_write=True, sqs_queue_url=Silent.url, redis_share_percent=5
    )
    migration = Migration(
        settings, redis=redis, publisher=Stream(), sqs=Silent(), share=Share(redis, 5), copier=None
    )
    async with door(redis, kit.key, migration) as stub:
        found = await stub.GetMigration(messages.GetMigrationRequest())
        assert (found.backend, found.redis_share_percent, found.dual_write) == ("sqs", 5, True)
        assert not found.HasField("sqs_waiting_count")
        moved = await stub.RampMigration(messages.RampMigrationRequest(redis_share_percent=40))
        assert moved.redis_share_percent == 40
        other = Share(redis, 5)
        await other.look()
        assert other.percent == 40
        assert (await stub.RampMigration(messages.RampMigrationRequest())).redis_share_percent == 5
        wrong = messages.RampMigrationRequest(redis_share_percent=101)
        assert await reason(stub.RampMigration(wrong)) == "FIELD_INVALID"
        await Ledger(redis, Place.REDIS_QUEUED, retention_s=60).note(
            [(UUIDS.format(1), events(1)[0].received_ms)]
        )
        request = messages.CompareMigrationRequest()
        request.settle.FromSeconds(0)
        (gap,) = (await stub.CompareMigration(request)).gaps
        assert (gap.seen_at, gap.not_at, list(gap.event_ids)) == (
            "redis.queued",
            "sqs.queued",
            [UUIDS.format(1)],
        )


async def test_a_gateway_that_knows_no_sqs_says_so(redis, kit):
    async with door(redis, kit.key, None) as stub:
        assert await reason(stub.GetMigration(messages.GetMigrationRequest())) == "SQS_NOT_CONFIGURED"
    plain = Migration(
        MigrationSection(dual_write=True, sqs_queue_url=Silent.url),
        redis=redis,
        publisher=Stream(),
        sqs=Silent(),
        share=Share(redis, 0),
        copier=None,
    )
    async with door(redis, kit.key, plain) as stub:
        call = stub.RampMigration(messages.RampMigrationRequest(redis_share_percent=1))
        assert await reason(call) == "BACKEND_NOT_SQS"
