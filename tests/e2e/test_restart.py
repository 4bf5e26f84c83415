"""A system that is stopped and started again is the same system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import payloads
from tests.system import House, running_house

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTEXT = "github:octo/memory:issue:1"
SUBJECT = ("octo/memory", 1, "Remember me", "Across restarts.")


async def test_state_survives_a_restart(tmp_path: Path) -> None:
    async with running_house(tmp_path) as house:
        delivery = house.senders.github.deliver("issues", payloads.github_issue(*SUBJECT))
        event_id = await house.accepted(delivery)
        await house.operator.grown(CONTEXT, 1)
        before = await house.operator.enriched(CONTEXT)
        operator_key = house.system.operator_key
    async with running_house(tmp_path) as house:
        assert house.system.operator_key == operator_key
        await _is_as_it_was(house, before.SerializeToString(deterministic=True))
        again = await house.post(delivery)
        assert (again.duplicate, again.event_id) == (True, event_id)
        closed = payloads.github_issue(*SUBJECT, action="closed")
        await house.accepted(house.senders.github.deliver("issues", closed))
        after = await house.operator.grown(CONTEXT, 2)
        assert after.state == "closed"


async def _is_as_it_was(house: House, before: bytes) -> None:
    context = await house.operator.context(CONTEXT)
    assert context is not None
    assert context.SerializeToString(deterministic=True) == before
    matches = await house.operator.search("something to keep in mind")
    assert [match.context.context_id for match in matches] == [CONTEXT]
