"""What one tenant has is not there for another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest
import pytest_asyncio
from webhook.context.v1 import context_service_pb2
from webhook.security.v1.security_admin_service_pb2 import ROLE_READER, ROLE_WRITER

from tests import payloads
from tests.clients import Client, refusal
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTEXT = "github:octo/secret-plans:issue:1"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rival(house: House) -> AsyncIterator[Client]:
    """Somebody whose credential covers the tenant `rival` alone; both tenants have the same context."""
    for sender, title in (
        (house.senders.github, "Ours: the plan"),
        (house.senders.rival_github, "Theirs: the counterplan"),
    ):
        issue = payloads.github_issue("octo/secret-plans", 1, title, "Nobody else may know.")
        await house.accepted(sender.deliver("issues", issue))
    await house.operator.grown(CONTEXT, 1)
    await house.operator.grown(CONTEXT, 1, tenant="rival")
    await house.operator.enriched(CONTEXT, tenant="rival")
    yield await house.client(await house.key(ROLE_READER, ROLE_WRITER, tenants=("rival",)))


async def test_one_delivery_to_two_tenants_is_two_events(house: House, rival: Client) -> None:
    issue = payloads.github_issue("octo/secret-plans", 2, "The same for both", "Word for word.")
    ours = house.senders.github.deliver("issues", issue, delivery_id="the-same-id")
    theirs = house.senders.rival_github.deliver("issues", issue, delivery_id="the-same-id")
    assert await house.accepted(ours) != await house.accepted(theirs)


async def test_each_reads_its_own(house: House, rival: Client) -> None:
    theirs = await rival.context(CONTEXT, tenant="")
    ours = await house.operator.context(CONTEXT)
    assert theirs is not None
    assert theirs.title == "Theirs: the counterplan"
    assert theirs.tenant == "rival"
    assert ours is not None
    assert ours.title == "Ours: the plan"


async def test_a_secret_opens_one_tenant_only(house: House, rival: Client) -> None:
    issue = payloads.github_issue("octo/secret-plans", 1, "Smuggled", "With the other tenant's secret.")
    ours = house.senders.github.deliver("issues", issue)
    theirs = house.senders.rival_github.deliver("issues", issue)
    assert (await house.post(ours.at(theirs.path))).status == 401
    assert (await house.post(theirs.at(ours.path))).status == 401


async def test_naming_another_tenant_is_denied(rival: Client) -> None:
    contexts, query = rival.contexts, "plan"
    calls: list[Awaitable[object]] = [
        contexts.GetContext(context_service_pb2.GetContextRequest(tenant="default", context_id=CONTEXT)),
        contexts.BatchGetContexts(
            context_service_pb2.BatchGetContextsRequest(tenant="default", context_ids=[CONTEXT])
        ),
        contexts.ListContexts(context_service_pb2.ListContextsRequest(tenant="default")),
        contexts.SearchContexts(context_service_pb2.SearchContextsRequest(tenant="default", query=query)),
        contexts.DeleteContext(
            context_service_pb2.DeleteContextRequest(tenant="default", context_id=CONTEXT)
        ),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert refusal(caught.value) == (grpc.StatusCode.PERMISSION_DENIED, "TENANT_NOT_ALLOWED")


async def test_writing_to_another_tenant_is_denied(house: House, rival: Client) -> None:
    append = context_service_pb2.Append(tenant="default", context_id=CONTEXT, tool="github", kind="issue")
    append.event.event_id = "0190a000-0000-7000-8000-000000000000"
    append.event.type = "issues"
    append.title = "Overwritten"
    request = context_service_pb2.AppendEventsRequest(appends=[append])
    try:
        (result,) = (await rival.contexts.AppendEvents(request)).results
        refused = (result.status.code, result.status.reason)
    except grpc.aio.AioRpcError as error:
        code, reason = refusal(error)
        refused = (code.value[0], reason)
    assert refused == (grpc.StatusCode.PERMISSION_DENIED.value[0], "TENANT_NOT_ALLOWED")
    ours = await house.operator.context(CONTEXT)
    assert ours is not None
    assert (ours.title, ours.event_count) == ("Ours: the plan", 1)


async def test_lists_and_searches_show_nothing_of_others(rival: Client) -> None:
    listed = await rival.contexts.ListContexts(context_service_pb2.ListContextsRequest())
    assert listed.contexts
    assert {context.tenant for context in listed.contexts} == {"rival"}
    matches = await rival.search("the plan", tenant="rival")
    assert {match.context.tenant for match in matches} == {"rival"}
    assert "Ours" not in json.dumps([match.context.title for match in matches])
