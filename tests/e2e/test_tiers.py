"""A webhook for a context that has gone cold: nobody on its way need know."""

from __future__ import annotations

import pytest
from webhook.context.v1 import context_admin_service_pb2 as admin_pb2
from webhook.context.v1 import context_pb2

from tests import payloads
from tests.clients import DEFAULT_TENANT
from tests.patience import eventually
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTEXT_ID = "github:octo/attic:issue:9"
SUBJECT = ("octo/attic", 9, "The archive of old orders can't be opened")


async def test_a_webhook_for_a_cold_context(house: House) -> None:
    opened = house.senders.github.deliver("issues", payloads.github_issue(*SUBJECT, "Error 410 since May."))
    await house.accepted(opened)
    before = await house.operator.enriched(CONTEXT_ID)

    request = admin_pb2.ForceTransitionRequest(
        tenant=DEFAULT_TENANT, tier=context_pb2.TIER_COLD, context_id=CONTEXT_ID
    )
    told = [one async for one in house.operator.context_admin.ForceTransition(request)]
    assert told[-1].done
    assert told[-1].moved_count == 1
    cold = await house.operator.context(CONTEXT_ID)
    assert cold is not None
    assert cold.tier == context_pb2.TIER_COLD
    assert cold.events[0].payload == opened.body
    assert cold.enrichment == before.enrichment

    comment = payloads.github_comment(*SUBJECT, "The key of the old bucket has expired.")
    commented = house.senders.github.deliver("issue_comment", comment)
    await house.accepted(commented)
    await house.operator.grown(CONTEXT_ID, 2)
    await house.operator.enriched(CONTEXT_ID)

    async def risen() -> None:
        found = await house.operator.context(CONTEXT_ID)
        assert found is not None
        assert found.tier == context_pb2.TIER_HOT
        assert [event.payload for event in found.events] == [opened.body, commented.body]

    await eventually(risen)
