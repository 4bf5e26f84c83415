"""A system whose processes show each other certificates, and whose edge speaks https."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from webhook.ingest.v1 import ingest_service_pb2 as ingest
from webhook.ingest.v1.ingest_service_pb2_grpc import IngestServiceStub
from webhook_ops.authority import Authority
from webhook_ops.delivery import Delivery, route, send
from webhook_ops.dev.secrets import secret_variable
from webhook_ops.dev.system import System, running_system
from webhook_ops.trust import trust
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import TlsSection

from tests.tls.papers import HERE, INTERNAL, Papers

OPERATOR = "spiffe://webhook/operator"
CONFIG = """
webhook:
  identity:
    certificates:
      - {name: "spiffe://webhook/operator", tenants: ["*"], roles: [operator, writer]}
"""


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    made = Papers(tmp_path)
    made.keep("ours", made.authority.issue("ours", hosts=HERE, uris=(INTERNAL,)))
    made.keep("edge", made.authority.issue("edge", hosts=HERE))
    return made


@pytest.fixture
async def system(papers: Papers) -> AsyncIterator[System]:
    ours, edge = papers.section("ours"), papers.section("edge")
    environ = {
        **os.environ,
        "WEBHOOK_CONFIG": str(papers.directory / "config.yaml"),
        "WEBHOOK_TLS_CA_FILE": ours.ca_file,
        "WEBHOOK_TLS_CERT_FILE": ours.cert_file,
        "WEBHOOK_TLS_KEY_FILE": ours.key_file,
        "WEBHOOK_HTTP_TLS_CERT_FILE": edge.cert_file,
        "WEBHOOK_HTTP_TLS_KEY_FILE": edge.key_file,
    }
    services = ("security", "gateway")
    async with running_system(
        papers.directory / "var", free_ports=True, environ=environ, services=services
    ) as up:
        yield up


async def test_webhooks_come_in_and_an_operator_looks_on_while_every_certificate_changes(
    papers: Papers, system: System
) -> None:
    operator = papers.client(OPERATOR, name="operator")
    gateway = system.plan.grpc["gateway"]

    async with connected(gateway, key=SecretStr(""), deadline_s=20, tls=operator) as channel:
        stub = IngestServiceStub(channel)
        tail: Any = stub.TailEvents(ingest.TailEventsRequest(tools=["github"]))
        await tail.read()
        first = await _accepted(system, operator)

        # Both authorities are believed until everybody has a certificate of the new one.
        old, papers.authority = papers.authority, Authority.new("next")
        both = old.pair.certificate + papers.authority.pair.certificate
        (papers.directory / "ca.crt").write_bytes(both)
        papers.keep("ours", papers.authority.issue("ours", hosts=HERE, uris=(INTERNAL,)))
        papers.keep("edge", papers.authority.issue("renewed edge", hosts=HERE))
        papers.client(OPERATOR, name="operator")
        await _shown(system, operator, "renewed edge")

        second = await _accepted(system, operator)
        produced = ingest.ProducedEvent(tool="acme-ci", type="build", payload=b'{"n":1}')
        request = ingest.IngestEventsRequest(events=[produced], tenant="default")
        [result] = (await stub.IngestEvents(request)).results
        assert result.event_id
        seen: list[str] = []
        while len(seen) < 2:
            seen += [event.event_id for event in (await tail.read()).events]
        assert seen == [first, second]


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"WEBHOOK_HTTP_ADDRESS": "0.0.0.0:0"}, "WEBHOOK_HTTP_ALLOW_PLAIN_TEXT"),
        (
            {"WEBHOOK_HTTP_TLS_CERT_FILE": "gone.crt", "WEBHOOK_HTTP_TLS_KEY_FILE": "gone.key"},
            "gone.crt can't",
        ),
        ({"WEBHOOK_TLS_CERT_FILE": "only.crt"}, "WEBHOOK_TLS_KEY_FILE"),
    ],
)
async def test_a_process_that_would_be_unsafe_does_not_start(
    papers: Papers, variables: dict[str, str], told: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "webhook_gateway",
        env={"WEBHOOK_CONFIG": str(papers.directory / "config.yaml"), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    lines = said.decode().splitlines()
    assert (process.returncode, len(lines)) == (2, 2), said
    assert told in lines[0]


async def _accepted(system: System, tls: TlsSection) -> str:
    body = b'{"action":"opened","now":"%s"}' % dt.datetime.now(dt.UTC).isoformat().encode()
    async with httpx.AsyncClient(verify=trust(tls)) as client:
        delivery = Delivery("github", "issues", body)
        url = route(system.plan.url, "github")
        answer = await send(client, url, delivery, system.secrets[secret_variable("github")])
    assert answer.status == 202, answer
    return answer.event_id


async def _shown(system: System, tls: TlsSection, name: str) -> None:
    """Wait until the edge shows the certificate with this common name."""
    host, _, port = system.plan.http.rpartition(":")
    async with asyncio.timeout(10):
        while True:
            _, writer = await asyncio.open_connection(host, int(port), ssl=trust(tls))
            certificate = writer.get_extra_info("peercert")
            writer.close()
            if name in str(certificate["subject"]):
                return
            await asyncio.sleep(0.1)
