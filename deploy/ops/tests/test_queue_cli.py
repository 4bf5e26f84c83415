"""Operating the queue from the command line, as the guide writes it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from webhook_shared import redis as store
from webhook_shared.settings import RedisSection

from deploy.ops.tests.harness import Cli, Runner, until


def _queue(running: Runner, *entries: dict[str, str], stream: str = "webhook-events-dlq") -> None:
    """Have entries where no command puts them."""

    async def added() -> None:
        client = store.connect(RedisSection(addresses=(running.addresses.redis,)))
        try:
            for entry in entries:
                fields: Any = entry
                await client.xadd(stream, fields)
        finally:
            await client.aclose()

    asyncio.run(added())


def test_the_guides_commands_work_as_written(cli: Cli) -> None:
    told = cli("claim-pending", "--idle-time", "5m")
    assert (told.code, "0 entries" in told.out) == (0, True), told
    assert cli("claim-pending", "--idle-time", "5m", "--json").json["stages"][0]["stage"] == "events"
    refused = cli("claim-pending", "--idle-time", "1s")
    assert (refused.code, "living workers" in refused.err) == (2, True)
    for command in (("--tool", "github"), ("--tool=github",)):
        told = cli("reset-circuit-breaker", *command)
        assert (told.code, "CIRCUIT_BREAKER_NOT_FOUND" in told.err) == (5, True), told
    assert "All closed" in cli("breakers").out
    assert cli("breakers", "--json").json["breakers"] == []


def test_a_tool_is_paused_and_goes_on(cli: Cli) -> None:
    assert cli("tools", "pause", "acme-queue", "--note", "they deploy").code == 0
    row = next(one for one in cli("tools", "list", "--json").json["tools"] if one["tool"] == "acme-queue")
    assert row["pause"]["note"] == "they deploy"
    assert "they deploy" in cli("tools", "list").out
    assert cli("tools", "resume", "acme-queue").code == 0
    told = cli("tools", "resume", "acme-queue")
    assert (told.code, "TOOL_NOT_PAUSED" in told.err) == (5, True)


def test_the_queue_is_drained_and_goes_on(cli: Cli) -> None:
    told = cli("queue", "drain")
    assert (told.code, "drained" in told.out) == (0, True), told
    assert cli("queue", "resume").code == 0
    assert cli("queue", "resume").code == 5


def test_dead_letters_are_counted_shown_and_put_back(running: Runner, cli: Cli) -> None:
    entry = {"id": "x", "tenant": "default", "tool": "acme-dead", "schema": "1", "sealed": "no envelope"}
    _queue(running, *[entry] * 3, stream="webhook-events")

    def died() -> Any:
        found = cli("dlq", "counts", "--tool", "acme-dead", "--json").json["counts"]
        return found if found and found[0]["count"] == 3 else None

    [kind] = until(died)
    assert (kind["cause"], kind["stage"]) == ("undecodable", "events")
    assert kind["fingerprint"] in cli("dlq", "list", "--tool", "acme-dead").out
    dry = cli("dlq", "redrive", "--fingerprint", kind["fingerprint"], "--dry-run")
    assert (dry.code, "3 would be put back" in dry.out) == (0, True), dry
    started = time.monotonic()
    told = cli("dlq", "redrive", "--fingerprint", kind["fingerprint"])
    assert (told.code, "1 died again" in told.out) == (1, True), told
    assert time.monotonic() - started < 10
    [one] = [
        letter
        for letter in cli("dlq", "list", "--tool", "acme-dead", "--json").json["dead_letters"]
        if letter["redrive_count"]
    ]
    assert one["redriven_from"]
    lines = cli("dlq", "redrive", "--tool", "acme-dead", "--no-canary", "--limit", "2", "--json").out
    assert '"result":"RESULT_COMPLETE"' in lines.splitlines()[-1]
    assert cli("dlq", "redrive").code == 2
    assert cli("dlq", "redrive", "1-1").code == 5
