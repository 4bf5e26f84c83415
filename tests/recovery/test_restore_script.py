"""The guide's script, against a context store of its own: Redis is wiped, the directory brings it back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from webhook.context.v1 import context_admin_service_pb2, context_pb2, context_service_pb2
from webhook.context.v1.context_admin_service_pb2_grpc import ContextAdminServiceStub
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_context.settings import ContextSettings, ContextWebhook
from webhook_context.wiring import running
from webhook_shared.objects.protocol import ObjectStorageSection
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import EncryptionSection, IdentitySection, ProcessSection, RedisSection

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "restore-contexts-from-s3.sh"
INTERNAL_KEY = "0123456789abcdef" * 4
MASTER_KEY = "a-master-key-of-a-test-0123456789-abcdefghij"
ENDED_WITHIN_S = 120.0
ISSUE = "github:octo/hello:issue:1"


async def _run(port: int, *argv: str) -> tuple[int, str, str]:
    environ = {
        "PATH": os.environ["PATH"],
        "WEBHOOK_CONTEXT_ADDRESS": f"127.0.0.1:{port}",
        "WEBHOOK_API_KEY": INTERNAL_KEY,
        "WEBHOOK_CLI": str(Path(sys.executable).with_name("webhook-cli")),
    }
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(ENDED_WITHIN_S):
            out, err = await process.communicate()
    except TimeoutError:
        # The script and what it runs, or the pipes stay open.
        os.killpg(process.pid, signal.SIGKILL)
        out, err = await process.communicate()
        raise AssertionError(f"{argv} did not end; it said {out!r} and {err!r}") from None
    return process.returncode or 0, out.decode(), err.decode()


def _append() -> Any:
    event = context_pb2.ContextEvent(event_id="e1", type="issues", action="opened", text="a payment fails")
    event.occurred_time.GetCurrentTime()
    event.received_time.GetCurrentTime()
    where = {"tenant": "acme", "context_id": ISSUE, "tool": "github", "kind": "issue"}
    return context_service_pb2.AppendEventsRequest(
        appends=[context_service_pb2.Append(event=event, **where)]  # type: ignore[arg-type]  # all of them text
    )


async def test_the_script_of_the_guide(valkey: RedisSection, redis: Client, tmp_path: Path) -> None:
    settings = ContextSettings(
        webhook=ContextWebhook(
            redis=valkey,
            encryption=EncryptionSection(master_key=SecretStr(MASTER_KEY)),
            identity=IdentitySection(internal_key=SecretStr(INTERNAL_KEY)),
            cold_storage=ObjectStorageSection(directory=tmp_path / "cold"),
        ),
        process=ProcessSection(listen_address="127.0.0.1:0", drain_timeout=timedelta(seconds=1)),
    )
    async with running(settings) as up:
        async with connected(f"127.0.0.1:{up.port}", key=SecretStr(INTERNAL_KEY), deadline_s=20) as channel:
            await ContextServiceStub(channel).AppendEvents(_append())
            cold = context_admin_service_pb2.ForceTransitionRequest(
                tenant="acme", tier=context_pb2.TIER_COLD, context_id=ISSUE
            )
            async for _ in ContextAdminServiceStub(channel).ForceTransition(cold):
                continue
        await redis.flushall()
        code, out, err = await _run(up.port, str(SCRIPT), "-n", "-r", "0")
        assert (code, err) == (0, "")
        assert "1 would be restored" in out
        assert not await redis.exists(f"ctx:{{acme:{ISSUE}}}")

        (damaged,) = (tmp_path / "cold").rglob("*.pack")
        kept = damaged.read_bytes()
        damaged.write_bytes(kept[:-1])
        code, out, _ = await _run(up.port, str(SCRIPT), "-t", "acme", "-r", "0")
        assert code == 1
        assert damaged.name in out
        assert "DAMAGED" in out
        damaged.write_bytes(kept)

        cli = str(Path(sys.executable).with_name("webhook-cli"))
        code, out, _ = await _run(up.port, cli, "restore", "--json")
        told = json.loads(out)
        assert (code, told["counts"]["restored"], told["done"]) == (0, 1, True)
        assert told["restorations"][0]["context_id"] == ISSUE
        assert await redis.hget(f"ctx:{{acme:{ISSUE}}}", "tier") == b"cold"
        # The store away: that is said, once it has been tried often enough.
        (tmp_path / "cold").rename(tmp_path / "away")
        code, _, err = await _run(up.port, str(SCRIPT), "-r", "0")
        assert (code, err.count("COLD_STORE_UNREACHABLE")) == (3, 1)
    assert (await _run(up.port, str(SCRIPT), "-x"))[0] == 2
