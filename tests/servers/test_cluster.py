"""What only a Cluster does: slots move, servers go, partitions spread."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
from webhook_consumer.dead_letters.letters import DeadLetters
from webhook_consumer.lanes import event_lanes, left_behind
from webhook_consumer.workers.crew import Crew
from webhook_gateway.outcome import Accepted
from webhook_gateway.publishing.stream import MISSING
from webhook_shared import redis as store
from webhook_shared.redis import slot_of
from webhook_shared.settings import RedisSection

from tests.servers.ledger import Ledger
from tests.servers.machines import Place, moved
from tests.servers.queue import Line, Queue, publication

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("place", ["cluster-9"], indirect=True),
]

EVENTS = slot_of(("GET", "webhook-events"))


async def test_a_slot_that_moves_under_load_loses_nothing_and_repeats_nothing(
    line: Line, place: Place
) -> None:
    clients = [machine.plain() for machine in place.machines]
    ledger = Ledger(line)
    async with line.queue() as queue, ledger.worker(queue):
        async with ledger:
            await ledger.more()
            for target in (*clients, clients[0]):
                await moved(clients, EVENTS, target)
                await ledger.more()
        await ledger.settled()
    assert len(ledger.acknowledged) >= 250
    assert (ledger.lost, ledger.repeated) == (set(), set())
    for client in clients:
        await client.aclose()


async def test_any_one_server_is_enough_to_find_the_others(place: Place) -> None:
    for machine in place.machines:
        async with store.opened(RedisSection(addresses=(machine.address,))) as client:
            assert await client.form() == "cluster"
            for number in range(8):
                assert await client.set(f"key-{number}", number)
    dead = RedisSection(addresses=("127.0.0.1:1", place.machines[2].address))
    async with store.opened(dead) as client:
        assert await client.get("key-7") == b"7"


async def test_partitions_spread_over_servers_and_keep_a_source_together(line: Line, place: Place) -> None:
    tools = [f"tool-{number}" for number in range(40)]
    async with Line(place, partitions=8) as wide:
        batch = [publication(number, tool=tool) for number, tool in enumerate(tools)]
        assert await wide.publisher.publish(batch) == [Accepted(each.event_id, False) for each in batch]
        lanes = event_lanes(wide.section, on_cluster=True)
        lengths = [await wide.client.xlen(lane.stream) for lane in lanes]
        assert sum(lengths) == 40
        assert min(lengths) > 0
        cluster = await wide.client.as_cluster()
        assert cluster is not None
        assert len({await cluster.owner(lane.stream) for lane in lanes}) == 3
        for lane in lanes:
            assert len({slot_of(("GET", key)) for key in lane.places}) == 1
        # Whatever makes it the same one: it meets the first in its slot.
        again = [each._replace(event_id="again", dedup_key="renamed", replay_key="r") for each in batch[:1]]
        first = batch[0]._replace(
            event_id="first", dedup_key="signed", replay_key="r", replay_window_ms=9_999
        )
        assert await wide.publisher.publish([first]) == [Accepted("first", False)]
        (answer,) = await wide.publisher.publish(again)
        assert answer != Accepted("again", False)


async def test_partitions_that_are_published_to_no_longer_are_found(line: Line, place: Place) -> None:
    tools = [f"tool-{number}" for number in range(20)]
    async with Line(place, partitions=3) as wide:
        await wide.publisher.publish([publication(n, tool=tool) for n, tool in enumerate(tools)])
    found = await left_behind(line.client, line.section, on_cluster=True)
    assert [lane.stream for lane in found] == ["webhook-events:0", "webhook-events:1", "webhook-events:2"]
    assert sum([await line.client.xlen(lane.stream) for lane in found]) == 20
    async with Line(place, partitions=2) as narrow:
        again = await left_behind(line.client, narrow.section, on_cluster=True)
        assert [lane.name for lane in again] == ["events-2"]


async def test_an_unreachable_server_costs_nobody_elses_events(line: Line, place: Place) -> None:
    async with Line(place, partitions=8) as wide:
        tools = [f"tool-{number}" for number in range(40)]
        cluster = await wide.client.as_cluster()
        assert cluster is not None
        lanes = event_lanes(wide.section, on_cluster=True)
        owners = {lane.stream: (await cluster.owner(lane.stream)).port for lane in lanes}
        silent = place.machines[0]
        assert silent.process is not None
        batch = [publication(number, tool=tool) for number, tool in enumerate(tools)]
        async with silent.plain() as client:
            await client.execute_command("CLIENT", "PAUSE", 400, "ALL")
        door = wide.door(patience_s=0.2)
        streams = [door._stream(each) for each in batch]
        answers = await door.attempt(batch)
        ours = [owners[stream] != silent.port for stream in streams]
        # Its events may be late; all others are there now.
        assert any(ours)
        assert not all(ours)
        assert [isinstance(answer, Accepted) for answer in answers] == ours
        assert await wide.door(patience_s=3.0).publish(batch) == [
            Accepted(each.event_id, False) for each in batch
        ]


async def test_a_crew_works_off_what_an_older_number_of_partitions_left(line: Line, place: Place) -> None:
    tools = [f"tool-{number}" for number in range(20)]
    ledger = Ledger(line)
    async with AsyncExitStack() as stack:
        queues: dict[str, Queue] = {}
        for section in (line, wide := await stack.enter_async_context(Line(place, partitions=3))):
            for lane in event_lanes(section.section, on_cluster=True):
                queues[lane.stream] = await stack.enter_async_context(line.queue(lane=lane))
        crew = Crew(
            [],
            lambda lane: ledger.worker(queues[lane.stream]),
            partial(left_behind, line.client, line.section, on_cluster=True),
        )
        crew.add(event_lanes(line.section, on_cluster=True)[0])
        async with crew.at_work():
            batch = [publication(number, tool=tool) for number, tool in enumerate(tools)]
            ledger.acknowledged |= {each.event_id for each in batch}
            # Gateways were told of three partitions, this consumer was not.
            assert not any(answer is MISSING for answer in await wide.publisher.publish(batch))
            assert ledger.lost
            await crew.look()
            await ledger.settled()
        assert not ledger.repeated


async def test_dead_letters_of_all_partitions_are_one_list(line: Line, place: Place) -> None:
    async with Line(place, partitions=3) as wide:
        lanes = event_lanes(wide.section, on_cluster=True)
        for number, lane in enumerate(lanes):
            await line.client.xadd(lane.dead_letters, {"id": f"event-{number}", "tool": "github"})
        letters = DeadLetters(wide.client, lanes)
        found: list[str] = []
        token = ""
        while len(found) < 3:
            page = await letters.page(2, token)
            found += [letters.name(letter) for letter in page.letters]
            token = page.token
        assert not token
        assert {name.partition(":")[0] for name in found if ":" in name} == {"events-1", "events-2"}
        texts = {letter.entry.text(b"id") for name in found if (letter := await letters.find(name))}
        assert texts == {"event-0", "event-1", "event-2"}
