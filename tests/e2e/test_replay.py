"""What was processed comes again: a deleted context returns, and nobody else notices."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from webhook.consumer.v1 import archive_service_pb2 as archive
from webhook.context.v1.context_service_pb2 import DeleteContextRequest

from tests import payloads
from tests.clients import DEFAULT_TENANT
from tests.patience import eventually
from tests.senders import Delivery
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTEXT_ID = "github:octo/lost:issue:5"
OTHER_ID = "github:octo/kept:issue:6"
TYPE = "issues"


def _issue(house: House, repository: str, number: int, action: str = "opened") -> Delivery:
    subject = (repository, number, f"The ferry of {repository} is late")
    body = payloads.github_issue(*subject, "Since the new timetable.", action=action)
    return house.senders.github.deliver(TYPE, body)


async def _replayed(house: House, **request: Any) -> list[archive.ReplayEventsResponse]:
    call = house.operator.archive.ReplayEvents(archive.ReplayEventsRequest(**request))
    return [told async for told in call]


async def test_a_deleted_context_comes_back_by_replay(house: House) -> None:
    lost = [_issue(house, "octo/lost", 5), _issue(house, "octo/lost", 5, "closed")]
    ids = [await house.accepted(delivery) for delivery in lost]
    await house.accepted(_issue(house, "octo/kept", 6))
    before = await house.operator.grown(CONTEXT_ID, 2)
    other = await house.operator.enriched(OTHER_ID)

    async def archived() -> list[archive.ArchivedEvent]:
        request = archive.ListArchivedEventsRequest(
            page_size=500, filter=archive.ArchiveFilter(tool="github", type=TYPE, tenant=DEFAULT_TENANT)
        )
        found = (await house.operator.archive.ListArchivedEvents(request)).events
        assert set(ids) <= {event.event_id for event in found}
        return [event for event in found if event.event_id in ids]

    events = await eventually(archived)
    shown = await house.operator.archive.GetArchivedEvent(
        archive.GetArchivedEventRequest(event_id=ids[0], include_payload=True)
    )
    assert shown.payload == lost[0].body

    await house.operator.contexts.DeleteContext(
        DeleteContextRequest(tenant=DEFAULT_TENANT, context_id=CONTEXT_ID)
    )
    # Whoever comes late does not bring it back.
    await house.accepted(_issue(house, "octo/lost", 5, "reopened"))

    wanted = archive.ArchiveFilter(
        tool="github",
        type=TYPE,
        tenant=DEFAULT_TENANT,
        received_from=min((event.received_time for event in events), key=lambda time: time.ToMilliseconds()),
    )
    plan = {
        (effect.event_id, effect.context_id): effect.change
        for told in await _replayed(house, filter=wanted, dry_run=True)
        for effect in told.effects
    }
    assert [plan[one, CONTEXT_ID] for one in ids] == [archive.REPLAY_CHANGE_REVIVE] * 2
    assert archive.REPLAY_CHANGE_PRESENT in {
        change for (_, context_id), change in plan.items() if context_id == OTHER_ID
    }
    assert await house.operator.context(CONTEXT_ID) is None

    replay_id = str(uuid.uuid4())
    told = await _replayed(house, filter=wanted, replay_id=replay_id)
    assert told[-1].done
    assert told[-1].queued_count >= 3
    # The one that came late was processed, too, and is in the archive like all others.
    after = await house.operator.grown(CONTEXT_ID, 2)
    assert (after.title, after.kind) == (before.title, before.kind)

    async def whole() -> None:
        found = await house.operator.context(CONTEXT_ID)
        assert found is not None
        assert {event.event_id: event.payload for event in found.events}.items() >= {
            event_id: delivery.body for event_id, delivery in zip(ids, lost, strict=True)
        }.items()

    await eventually(whole)
    again = await _replayed(house, filter=wanted, replay_id=replay_id)
    assert again[-1].queued_count == 0
    unchanged = await house.operator.context(OTHER_ID)
    assert unchanged is not None
    assert (unchanged.version, unchanged.event_count) == (other.version, other.event_count)
