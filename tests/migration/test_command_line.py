"""`webhook-cli migration` and the guide's script, against a gateway's own door."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from webhook.ingest.v1 import migration_service_pb2_grpc
from webhook_gateway.migration_servicer import MigrationServicer
from webhook_gateway.publishing.migration import Migration
from webhook_gateway.publishing.ramp import Share
from webhook_shared import redis as store
from webhook_shared.rpc.identity import Authenticator, Role
from webhook_shared.rpc.server import Service, serving
from webhook_shared.sqs import client as sqs
from webhook_shared.sqs.migration import MigrationSection
from webhook_shared.sqs.parity import Ledger, Place

from tests.migration.town import INTERNAL_KEY

SCRIPT = Path(__file__).parents[2] / "deploy/scripts/compare-sqs-redis-metrics.sh"
#: Nobody listens there.
QUEUE = "http://127.0.0.1:1/123456789012/old-queue"

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@asynccontextmanager
async def gateway(redis: store.Client, settings: MigrationSection) -> AsyncIterator[Run]:
    """Its door, and what runs command lines against it: exit code, output, errors."""
    async with sqs.opened(settings) as queue:
        migration = Migration(
            settings,
            redis=redis,
            publisher=None,  # type: ignore[arg-type]  # nothing is published here
            sqs=queue,
            share=Share(redis, 0),
            copier=None,
        )
        service = Service(
            "webhook.ingest.v1.MigrationService",
            lambda server: migration_service_pb2_grpc.add_MigrationServiceServicer_to_server(
                MigrationServicer(migration), server
            ),
            Role.OPERATOR,
        )
        door = serving(
            "127.0.0.1:0", [service], authenticator=Authenticator(redis, INTERNAL_KEY), ready={}, drain_s=0.1
        )
        async with door as port:

            async def run(*argv: str) -> tuple[int, str, str]:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env={
                        "PATH": os.environ["PATH"],
                        "WEBHOOK_GATEWAY_ADDRESS": f"127.0.0.1:{port}",
                        "WEBHOOK_API_KEY": INTERNAL_KEY.get_secret_value(),
                        "WEBHOOK_CLI": str(Path(sys.executable).parent / "webhook-cli"),
                    },
                )
                out, errors = await process.communicate()
                assert process.returncode is not None
                return process.returncode, out.decode(), errors.decode()

            yield run


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


async def test_the_guides_script_names_what_is_missing_and_then_that_nothing_is(redis: store.Client) -> None:
    event_id, now_ms = str(uuid.uuid4()), round(time.time() * 1000)
    await Ledger(redis, Place.REDIS_QUEUED, retention_s=600).note([(event_id, now_ms)])
    async with gateway(redis, MigrationSection(dual_write=True, sqs_queue_url=QUEUE)) as run:
        code, out, _ = await run(str(SCRIPT), "--", "--settle", "0s")
        assert code == 1
        assert "MISSING: 1 in Redis but not in SQS" in out
        assert event_id in out
        await Ledger(redis, Place.SQS_QUEUED, retention_s=600).note([(event_id, now_ms)])
        code, out, _ = await run(str(SCRIPT), "--", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["equal"] is True
    assert found["lags"][0]["then_at"] == "sqs.queued"


async def test_traffic_is_shifted_and_its_state_is_told(redis: store.Client) -> None:
    cli = str(Path(sys.executable).parent / "webhook-cli")
    async with gateway(redis, MigrationSection(backend="sqs", sqs_queue_url=QUEUE)) as run:
        assert (await run(cli, "migration", "ramp", "25"))[0] == 0
        code, out, _ = await run(cli, "migration", "status", "--json")
        assert code == 0
        told = json.loads(out)
        assert (told["backend"], told["redis_share_percent"], told["sqs_waiting_count"]) == ("sqs", 25, None)
        code, _, errors = await run(cli, "migration", "compare")
    assert code == 1
    assert "DUAL_WRITE_MODE=true" in errors
