"""Sources out of PostgreSQL: a real server, the table as the system before us made it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import grpc
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs
from webhook.security.v1.admission_pb2 import (
    OUTCOME_ADMITTED,
    OUTCOME_QUARANTINED,
    OUTCOME_REFUSED,
    REFUSAL_EVENT_TYPE,
    REFUSAL_SIGNATURE_INVALID,
    REFUSAL_UNKNOWN_SOURCE,
    Verdict,
)
from webhook.security.v1.admission_service_pb2 import AdmitRequest, ListEdgePoliciesRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook.security.v1.security_admin_service_pb2 import (
    GetSourceRequest,
    ListSecretsRequest,
    RotateSecretRequest,
)
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_security.registry.definitions import RegistryUnreadable
from webhook_security.registry.postgres import TABLE, PostgresSources
from webhook_security.settings import DatabaseRegistrySection, SecuritySettings
from webhook_shared.settings import RedisSection, SettingsError

from services.security.tests.postgresql import PostgresServer

ISSUE = b'{"action":"opened"}'
REFRESH = "100ms"


async def put(server: PostgresServer, organisation: str | None, secret: str | None, **more: Any) -> None:
    columns = {"organization_name": organisation, "webhook_secret": secret, **more}
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    await server.execute(f"INSERT INTO {TABLE} ({', '.join(columns)}) VALUES ({marks})", *columns.values())


def sources_of(url: str) -> PostgresSources:
    return PostgresSources(DatabaseRegistrySection(url=SecretStr(url)))


async def test_rows_become_sources(postgres: PostgresServer) -> None:
    await put(postgres, "Octo-Org", "the secret of octo")
    await put(postgres, "everything", "its secret", allowed_events=None)
    await put(postgres, "stars", "their secret", allowed_events=["push", "*"])
    registered = await sources_of(postgres.url()).read()
    found = {definition.tenant: definition for definition in registered.definitions}
    assert set(found) == {"octo-org", "everything", "stars"}
    assert {definition.tool for definition in found.values()} == {"github"}
    assert found["octo-org"].event_types == {"issues", "issue_comment", "pull_request", "push", "release"}
    assert found["everything"].event_types is None
    assert found["stars"].event_types is None
    (secret,) = found["octo-org"].secrets
    assert registered.values[secret.reference] == "the secret of octo"
    assert "the secret of octo" not in repr(registered)


async def test_what_is_of_no_use_is_named_and_keeps_nothing_else_out(postgres: PostgresServer) -> None:
    await put(postgres, "good", "a secret")
    await put(postgres, "off", "a secret", enabled=False)
    await put(postgres, "inactive", "a secret", is_active=False)
    await put(postgres, "undecided", "a secret", enabled=None)
    await put(postgres, "blank", " \n")
    await put(postgres, "secretless", None)
    await put(postgres, "../../admin\n", "a secret")
    await put(postgres, None, "a secret")
    await put(postgres, "GOOD", "another secret")
    await put(postgres, "quiet", "a secret", allowed_events=[])
    await put(postgres, "empty", "a secret", allowed_events=["", None])
    sources = sources_of(postgres.url())
    with capture_logs() as logs:
        registered = await sources.read()
        assert await sources.read() == registered
    assert [definition.tenant for definition in registered.definitions] == ["good"]
    # Of two that mean the same, the one that sorts first; which that is depends on the database's collation.
    (told,) = [entry for entry in logs if entry["event"] == "registry.rows_skipped"]
    assert {name.lower() for name in told["rows"]} == {
        "blank",
        "secretless",
        "../../admin\\n",
        "(row 11, without a name)",
        "good",
        "quiet",
        "empty",
    }
    assert "a secret" not in str(logs)
    counts = {
        state: REGISTRY.get_sample_value(
            "webhook_security_registry_entries", {"registry": "postgresql", "state": state}
        )
        for state in ("taken", "off", "skipped")
    }
    assert counts == {"taken": 1, "off": 3, "skipped": 7}


async def test_it_says_why_it_can_not_be_read(postgres: PostgresServer) -> None:
    async def refused(url: str) -> RegistryUnreadable:
        with pytest.raises(RegistryUnreadable) as raised:
            await sources_of(url).read()
        assert "@127.0.0.1" not in str(raised.value)
        return raised.value

    assert (await refused(postgres.url(user="nobody"))).final
    assert (await refused(postgres.url(database="nowhere"))).final
    assert (await refused("postgresql://u:p@127.0.0.1:port/x")).final
    assert not (await refused("postgresql://u:p@127.0.0.1:1/x")).final
    await postgres.execute(f"ALTER TABLE {TABLE} RENAME COLUMN webhook_secret TO secret_encrypted")
    assert "UndefinedColumn" in str(await refused(postgres.url()))
    await postgres.execute("DROP SCHEMA mcp CASCADE")
    assert (await refused(postgres.url())).final


async def test_rows_that_are_hidden_are_not_taken_for_none(postgres: PostgresServer) -> None:
    await put(postgres, "octo", "a secret")
    await postgres.execute(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    await postgres.execute(f"CREATE POLICY isolation ON {TABLE} USING (tenant_id IS NULL)")
    await postgres.execute("DROP ROLE IF EXISTS reader")
    await postgres.execute("CREATE ROLE reader LOGIN")
    await postgres.execute(f"GRANT USAGE ON SCHEMA mcp TO reader; GRANT SELECT ON {TABLE} TO reader")
    with pytest.raises(RegistryUnreadable, match="row-level security hides every row"):
        await sources_of(postgres.url(user="reader")).read()
    await postgres.execute(f"CREATE POLICY for_us ON {TABLE} TO reader USING (true)")
    assert len((await sources_of(postgres.url(user="reader")).read()).definitions) == 1
    await postgres.execute("DROP SCHEMA mcp CASCADE")
    await postgres.execute("DROP ROLE reader")


def test_a_url_of_something_else_is_refused_without_repeating_it() -> None:
    with pytest.raises(SettingsError) as raised:
        SecuritySettings.load(environ={"WEBHOOK_REGISTRY_DATABASE_URL": "mysql://u:hunter2@db/x"})
    assert "postgresql://" in str(raised.value)
    assert "hunter2" not in str(raised.value)


class Door:
    """Security with a database behind it, as the gateway and an operator see it."""

    def __init__(self, channel: grpc.aio.Channel, sign: Any, deliver: Any) -> None:
        self.admission = AdmissionServiceStub(channel)
        self.administration = SecurityAdminServiceStub(channel)
        self._sign, self._deliver = sign, deliver

    async def send(
        self, tenant: str, secret: str, event: str = "issues", body: bytes = ISSUE, **more: Any
    ) -> Verdict:
        headers = {**self._sign.github(body, secret=secret), "x-github-event": event}
        delivery = self._deliver("github", body, headers, tenant=tenant, **more)
        reply = await self.admission.Admit(AdmitRequest(deliveries=[delivery]))
        return reply.verdicts[0]

    async def edge(self) -> tuple[str, set[str]]:
        reply = await self.admission.ListEdgePolicies(ListEdgePoliciesRequest())
        return reply.revision, {policy.tenant for policy in reply.policies if policy.tenant}

    async def serves(self, *tenants: str) -> str:
        """The revision at which the edge is told of these tenants, and no others."""
        async with asyncio.timeout(10):
            while True:
                revision, found = await self.edge()
                if found == set(tenants):
                    return revision
                await asyncio.sleep(0.02)


@pytest.fixture
def door(service: Any, valkey: RedisSection, sign: Any, deliver: Any) -> Callable[[PostgresServer], Any]:
    @asynccontextmanager
    async def start(server: PostgresServer, **security: Any) -> AsyncIterator[Door]:
        section = {"url": SecretStr(server.url()), "refresh_interval": REFRESH}
        async with service(valkey, security={"database_registry": section, **security}) as channel:
            yield Door(channel, sign, deliver)

    return start


async def test_sources_come_change_and_go_without_a_restart(postgres: PostgresServer, door: Any) -> None:
    await put(postgres, "octo", "one")
    async with door(postgres) as served:
        first = await served.serves("octo")
        verdict = await served.send("octo", "one")
        assert verdict.outcome == OUTCOME_ADMITTED
        assert verdict.event.tenant == "octo"
        assert (await served.send("late", "two")).refusal == REFUSAL_UNKNOWN_SOURCE
        await put(postgres, "late", "two")
        second = await served.serves("late", "octo")
        assert second != first
        # Its tenant has had no key before.
        assert (await served.send("late", "two")).outcome == OUTCOME_ADMITTED
        await postgres.execute(
            f"UPDATE {TABLE} SET webhook_secret = 'three' WHERE organization_name = 'late'"
        )
        async with asyncio.timeout(10):
            while (await served.send("late", "three")).outcome != OUTCOME_ADMITTED:
                await asyncio.sleep(0.02)
        assert (await served.send("late", "two")).refusal == REFUSAL_SIGNATURE_INVALID
        await postgres.execute(f"UPDATE {TABLE} SET enabled = false WHERE organization_name = 'late'")
        assert await served.serves("octo") == first
        assert (await served.send("late", "three")).refusal == REFUSAL_UNKNOWN_SOURCE
        assert (await served.send("octo", "one")).outcome == OUTCOME_ADMITTED


async def test_what_was_read_last_is_served_while_the_database_is_away(
    postgres: PostgresServer, door: Any, until: Any
) -> None:
    await put(postgres, "octo", "one")
    async with door(postgres) as served:
        await served.serves("octo")
        with capture_logs() as logs:
            postgres.stop()
            await until(lambda: any(entry["event"] == "registry.unreadable" for entry in logs))
            assert (await served.send("octo", "one")).outcome == OUTCOME_ADMITTED
            assert (await served.edge())[1] == {"octo"}
            # A table that can't be understood is no reason to forget what could.
            postgres.start()
            await postgres.answering()
            await until(lambda: any(entry["event"] == "registry.readable" for entry in logs))
            await postgres.execute(f"ALTER TABLE {TABLE} RENAME TO gone")
            await until(lambda: sum(entry["event"] == "registry.unreadable" for entry in logs) == 2)
        assert (await served.send("octo", "one")).outcome == OUTCOME_ADMITTED
        await postgres.execute(f"ALTER TABLE mcp.gone RENAME TO {TABLE.partition('.')[2]}")
        await put(postgres, "late", "two")
        await served.serves("late", "octo")
    assert "one" not in [value for entry in logs for value in entry.values()]


async def test_what_was_read_last_outlives_the_process(
    postgres: PostgresServer, door: Any, redis: Any, until: Any
) -> None:
    await put(postgres, "octo", "the secret of octo", allowed_events=["issues"])
    async with door(postgres) as served:
        await served.serves("octo")
    postgres.stop()
    with capture_logs() as logs:
        async with door(postgres) as served:
            assert any(entry["event"] == "registry.recalled" for entry in logs)
            assert (await served.send("octo", "the secret of octo")).outcome == OUTCOME_ADMITTED
            assert (await served.send("octo", "the secret of octo", "push")).refusal == REFUSAL_EVENT_TYPE
            postgres.start()
            await postgres.answering()
            await put(postgres, "late", "two")
            await served.serves("late", "octo")
    assert b"the secret of octo" not in await redis.get("registry:{postgresql}")


async def test_it_waits_for_a_database_that_is_not_there_yet(postgres: PostgresServer, door: Any) -> None:
    # To answer 404 until it comes would lose deliveries; as long as nobody answers, senders come again.
    await put(postgres, "octo", "one")
    postgres.stop()
    with capture_logs() as logs:
        starting = asyncio.create_task(door(postgres).__aenter__())
        async with asyncio.timeout(10):
            while not any(entry["event"] == "registry.waiting" for entry in logs):
                await asyncio.sleep(0.01)
        assert not starting.done()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting


async def test_a_database_that_shows_no_such_table_refuses_to_start(
    postgres: PostgresServer, door: Any
) -> None:
    await postgres.execute("DROP SCHEMA mcp CASCADE")
    with pytest.raises(RuntimeError, match=r"^postgresql: the database refuses to be read \(UndefinedTable"):
        async with door(postgres):
            pass


async def test_events_that_are_not_allowed_are_refused_after_they_are_believed(
    postgres: PostgresServer, door: Any
) -> None:
    await put(postgres, "octo", "one", allowed_events=["issues", "push"])
    async with door(postgres) as served:
        request = GetSourceRequest(tenant="octo", tool="github")
        source = (await served.administration.GetSource(request)).source
        assert list(source.event_types) == ["issues", "push"]
        for event in ("issues", "push"):
            assert (await served.send("octo", "one", event)).outcome == OUTCOME_ADMITTED
        refused = await served.send("octo", "one", "star")
        assert (refused.outcome, refused.refusal) == (OUTCOME_REFUSED, REFUSAL_EVENT_TYPE)
        assert not refused.HasField("event")
        # Who can't sign learns nothing of it.
        assert (await served.send("octo", "wrong", "star")).refusal == REFUSAL_SIGNATURE_INVALID
        # What can't be read is kept aside if it is wanted; the type stands in a header here.
        assert (await served.send("octo", "one", "push", b"{")).outcome == OUTCOME_QUARANTINED
        assert (await served.send("octo", "one", "star", b"{")).refusal == REFUSAL_EVENT_TYPE


async def test_a_source_of_the_configuration_hides_a_row(postgres: PostgresServer, door: Any) -> None:
    await put(postgres, "default", "theirs")
    await put(postgres, "octo", "one")
    with capture_logs() as logs:
        async with door(postgres) as served:
            await served.serves("octo")
            assert (await served.send("", "the secret of github", "star")).outcome == OUTCOME_ADMITTED
            assert (await served.send("", "theirs")).refusal == REFUSAL_SIGNATURE_INVALID
    (told,) = [entry for entry in logs if entry["event"] == "registry.taken"]
    assert told["hidden"] == ["default/github"]


async def test_a_secret_of_the_database_is_rotated_like_any_other(
    postgres: PostgresServer, door: Any
) -> None:
    await put(postgres, "octo", "one")
    async with door(postgres) as served:
        request = RotateSecretRequest(tenant="octo", tool="github")
        request.overlap.seconds = 0
        made = await served.administration.RotateSecret(request)
        assert [status.secret.key_id for status in made.ending] == []
        assert (await served.send("octo", made.secret)).outcome == OUTCOME_ADMITTED
        assert (await served.send("octo", "one")).refusal == REFUSAL_SIGNATURE_INVALID
        shown = await served.administration.ListSecrets(ListSecretsRequest(tenant="octo", tool="github"))
        assert {status.secret.reference: status.live for status in shown.secrets} == {
            "stored": True,
            "postgresql:octo": False,
        }
        # Whoever writes another secret into the table means it.
        await postgres.execute(f"UPDATE {TABLE} SET webhook_secret = 'new'")
        async with asyncio.timeout(10):
            while (await served.send("octo", "new")).outcome != OUTCOME_ADMITTED:
                await asyncio.sleep(0.02)


async def test_the_driver_is_not_left_holding_connections(postgres: PostgresServer) -> None:
    sources = sources_of(postgres.url())
    for _ in range(3):
        await sources.read()
    connection = await asyncpg.connect(postgres.url())
    try:
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        async with asyncio.timeout(5):
            while await connection.fetchval(query) > 1:
                await asyncio.sleep(0.02)
    finally:
        await connection.close()
