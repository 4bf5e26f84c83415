"""A webhook is told to whoever watches, and is in the next window, also across a restart of the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from webhook.context.v1 import context_service_pb2 as pb

from tests import payloads
from tests.clients import DEFAULT_TENANT
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTEXT_ID = "github:octo/lookout:issue:5"
SUBJECT = ("octo/lookout", 5, "The lamp of the lighthouse flickers")


async def test_a_webhook_is_told_and_is_in_the_next_window(house: House) -> None:
    contexts = house.operator.contexts
    watch = pb.WatchContextsRequest(tenant=DEFAULT_TENANT, context_ids=[CONTEXT_ID], include_contexts=True)
    stream = contexts.WatchContexts(watch, timeout=60)
    watch.resume_token = (await _next(stream)).resume_token
    opened = payloads.github_issue(*SUBJECT, "It goes dark every few minutes.")
    await house.accepted(house.senders.github.deliver("issues", opened))
    (told,) = (await _next(stream)).changes
    assert (told.context_id, told.kind) == (CONTEXT_ID, pb.CHANGE_KIND_CHANGED)
    assert told.context.title == SUBJECT[2]
    stream.cancel()

    await house.operator.enriched(CONTEXT_ID)
    async with house.without("context"):
        comment = payloads.github_comment(*SUBJECT, "A new lamp is on its way.")
        await house.accepted(house.senders.github.deliver("issue_comment", comment))
    enriched = await house.operator.grown(CONTEXT_ID, 2)
    # Another process, and the token of the one before: nothing in between is missing.
    resumed = contexts.WatchContexts(watch, timeout=60)
    version = 0
    while version < enriched.version:
        for change in (await _next(resumed)).changes:
            assert change.version > version
            version = change.version
    resumed.cancel()

    window = await contexts.AssembleWindow(
        pb.AssembleWindowRequest(tenant=DEFAULT_TENANT, context_id=CONTEXT_ID, token_budget=2000)
    )
    assert window.token_count <= 2000
    said = "\n".join(part.text for part in window.parts)
    assert "It goes dark every few minutes." in said
    assert "A new lamp is on its way." in said


async def _next(stream: Any) -> pb.WatchContextsResponse:
    async with asyncio.timeout(30):
        response: pb.WatchContextsResponse = await stream.read()
        return response
