"""Processed events, from the command line: found, shown, and brought again."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from pydantic import SecretStr
from webhook.context.v1.context_service_pb2 import DeleteContextRequest
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_ops.delivery import DEFAULT_TENANT
from webhook_ops.dev.secrets import kept_operator_key
from webhook_shared.rpc.channel import connected

from deploy.ops.tests.harness import Cli, Runner, until

TOOL = "acme-deploy"


def _delete(running: Runner, context_id: str) -> None:
    async def deleted() -> None:
        key = SecretStr(kept_operator_key(running.var))
        async with connected(running.addresses.grpc("context"), key=key, deadline_s=10) as channel:
            request = DeleteContextRequest(context_id=context_id, tenant=DEFAULT_TENANT)
            await ContextServiceStub(channel).DeleteContext(request)

    asyncio.run(deleted())


def _processed(cli: Cli) -> tuple[str, str]:
    """An event that has been processed, and its context."""
    sent = cli("send", TOOL, "--json").json
    event_id: str = sent["sent"][0]["event_id"]

    def archived() -> Any:
        return cli("archive", "list", "--id", event_id, "--json").json["events"]

    until(archived)
    plan = cli("replay", event_id, "--dry-run", "--json").json
    return event_id, plan["effects"][0]["context_id"]


def test_a_deleted_context_comes_back_by_replay(running: Runner, cli: Cli) -> None:
    event_id, context_id = _processed(cli)
    before = cli("contexts", "get", context_id, "--json").json
    told = cli("replay", event_id, "--dry-run")
    assert (told.code, "is there; nothing would change" in told.out) == (0, True)
    _delete(running, context_id)
    told = cli("replay", event_id, "--dry-run")
    assert "would bring its deleted context back" in told.out
    assert cli("contexts", "get", context_id).code == 5

    replay_id = str(uuid.uuid4())
    assert "1 queued" in cli("replay", event_id, "--replay-id", replay_id).out

    def back() -> Any:
        found = cli("contexts", "get", context_id, "--json")
        return found.json if found.code == 0 else None

    after = until(back)
    assert (after["title"], after["kind"]) == (before["title"], before["kind"])
    assert event_id in {event["event_id"] for event in after["events"]}
    again = cli("replay", event_id, "--replay-id", replay_id, "--json").json
    assert (again["queued_count"], again["skipped_count"], again["done"]) == (0, 1, True)


def test_events_are_listed_and_shown(cli: Cli) -> None:
    event_id, _ = _processed(cli)
    listed = cli("archive", "list", "--tool", TOOL, "--since", "1h", "--limit", "500", "--json").json
    assert event_id in {event["event_id"] for event in listed["events"]}
    assert event_id in cli("archive", "list", "--limit", "500").out
    assert cli("archive", "list", "--tool", TOOL, "--until", "1h", "--json").json["events"] == []
    shown = cli("archive", "show", event_id, "--payload", "--json").json
    assert shown["event"]["tool"] == TOOL
    assert shown["payload"]
    plain = cli("archive", "show", event_id)
    assert TOOL in plain.out
    missing = cli("archive", "show", str(uuid.UUID(int=time.time_ns())))
    assert (missing.code, "ARCHIVED_EVENT_NOT_FOUND" in missing.err) == (5, True)


def test_a_replay_of_everything_is_asked_for_by_name(cli: Cli) -> None:
    refused = cli("replay")
    assert (refused.code, "--all" in refused.err) == (2, True)
    refused = cli("replay", "--all", "--replay-id", "mine")
    assert (refused.code, "replay_id" in refused.err) == (2, True)
    for command in (("archive", "list"), ("archive", "show"), ("replay",)):
        assert "Example" in cli(*command, "--help").out
