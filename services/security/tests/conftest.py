"""What the tests of admission need: a signer for each scheme, and a judge on a real keyring."""

from __future__ import annotations

import asyncio
import base64
import hmac
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook.security.v1.admission_pb2 import Delivery, Header, Verdict
from webhook_security import catalogue
from webhook_security.admission.judge import Admission
from webhook_security.evidence.rejections import Rejections
from webhook_security.registry.sources import Registry
from webhook_security.settings import DeduplicationSection, SecuritySection, SecuritySettings
from webhook_security.wiring import running
from webhook_shared import redis as store
from webhook_shared.rpc.channel import connected
from webhook_shared.sealing.envelope import Keyring
from webhook_shared.settings import RedisSection

from services.security.tests import postgresql
from services.security.tests.postgresql import PostgresServer

MASTER_KEY = "kTzW8r5J2mQx7LcV0bNf4HsY9dGa1EpU3oRi6SwB"
INTERNAL_KEY = "internal-internal-internal-internal-0001"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {
    "GITHUB_WEBHOOK_SECRET": "the secret of github",
    "GITLAB_WEBHOOK_SECRET": "the token of gitlab",
    "JIRA_WEBHOOK_SECRET": "the secret of jira",
    "SLACK_WEBHOOK_SECRET": "the secret of slack",
    "STANDARD_WEBHOOKS_WEBHOOK_SECRET": WHSEC,
    "ACME_CI_WEBHOOK_SECRET": "the secret of acme",
}


class Signer:
    """Makes requests as the senders make them, written from their documentation, not from our code."""

    now = staticmethod(time.time)

    @staticmethod
    def hex(secret: str, message: bytes, algorithm: str = "sha256") -> str:
        return hmac.digest(secret.encode(), message, algorithm).hex()

    @staticmethod
    def base64(secret: str, message: bytes) -> str:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        return base64.b64encode(hmac.digest(key, message, "sha256")).decode()

    def github(self, body: bytes, secret: str = SECRETS["GITHUB_WEBHOOK_SECRET"]) -> dict[str, str]:
        return {
            "x-github-event": "issues",
            "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
            "x-github-hook-id": "292430182",
            "x-hub-signature-256": f"sha256={self.hex(secret, body)}",
        }

    def jira(self, body: bytes, secret: str = SECRETS["JIRA_WEBHOOK_SECRET"]) -> dict[str, str]:
        return {
            "x-atlassian-webhook-identifier": "1700000000001.0.3f",
            "x-hub-signature": f"sha256={self.hex(secret, body)}",
        }

    def gitlab_token(self, body: bytes, secret: str = SECRETS["GITLAB_WEBHOOK_SECRET"]) -> dict[str, str]:
        return {
            "x-gitlab-event": "Issue Hook",
            "x-gitlab-token": secret,
            "idempotency-key": "f5e5f430-f57b-4e6e-9fac-d9128cd7232f",
            "x-gitlab-webhook-uuid": "02affd2d-2cba-4033-917d-ec22d5dc4b38",
        }

    def standard(self, body: bytes, secret: str = WHSEC, at: float | None = None) -> dict[str, str]:
        stamp = str(int(self.now() if at is None else at))
        message = b"msg_1." + stamp.encode() + b"." + body
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{self.base64(secret, message)}",
        }

    def slack(
        self, body: bytes, secret: str = SECRETS["SLACK_WEBHOOK_SECRET"], at: float | None = None
    ) -> dict[str, str]:
        stamp = str(int(self.now() if at is None else at))
        signature = self.hex(secret, b"v0:" + stamp.encode() + b":" + body)
        return {"x-slack-request-timestamp": stamp, "x-slack-signature": f"v0={signature}"}

    def generic(
        self, body: bytes, secret: str = SECRETS["ACME_CI_WEBHOOK_SECRET"], at: float | None = None
    ) -> dict[str, str]:
        stamp = str(int(self.now() if at is None else at))
        return {
            "x-webhook-timestamp": stamp,
            "x-webhook-signature": self.hex(secret, stamp.encode() + b"." + body),
        }

    def listed(
        self, body: bytes, secret: str = SECRETS["ACME_CI_WEBHOOK_SECRET"], at: float | None = None
    ) -> dict[str, str]:
        stamp = str(int(self.now() if at is None else at))
        signature = self.hex(secret, stamp.encode() + b"." + body)
        return {"x-webhook-signature": f"t={stamp},v1={signature}"}


def delivery_of(tool: str, body: bytes, headers: Mapping[str, str | bytes], **more: Any) -> Delivery:
    every = {"content-type": "application/json", "host": "hooks.example.com", **headers}
    delivery = Delivery(
        tool=tool,
        method="POST",
        body=body,
        peer_address="203.0.113.7",
        headers=[
            Header(name=name, value=value if isinstance(value, bytes) else value.encode())
            for name, value in every.items()
        ],
    )
    delivery.received_time.GetCurrentTime()
    for name, value in more.items():
        setattr(delivery, name, value)
    return delivery


class Judge:
    """Admission with everything real around it, and a clock that a test may set."""

    def __init__(
        self, keyring: Keyring, security: SecuritySection, deduplication: DeduplicationSection
    ) -> None:
        self.keyring = keyring
        self.registry = Registry(catalogue.load(security.signature_header), security, deduplication)
        self.reread()
        self.now: Callable[[], float] = time.time
        self.admission = Admission(
            self.registry,
            keyring,
            Rejections(),
            verifying=security.enable_signature_verification,
            clock=self._time,
        )

    def _time(self) -> float:
        return self.now()

    def reread(self) -> None:
        configured = self.registry.configured
        self.registry.take(configured.name, configured.registered())

    def __call__(self, delivery: Delivery) -> Verdict:
        return self.all([delivery])[0]

    def all(self, deliveries: list[Delivery]) -> list[Verdict]:
        cases = [self.admission.case(delivery, Verdict()) for delivery in deliveries]
        self.admission.judge(cases)
        return [case.verdict for case in cases]

    def opened(self, verdict: Verdict) -> WebhookEvent:
        sealed = verdict.event
        content = self.keyring.open(sealed.tenant, sealed.sealed, "event", sealed.id)
        return WebhookEvent.FromString(content)


@pytest.fixture
def sign() -> Signer:
    return Signer()


@pytest.fixture
def deliver() -> Callable[..., Delivery]:
    return delivery_of


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The secrets of all senders, in the environment."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


@pytest.fixture
async def keyring(redis: store.Client) -> Keyring:
    made = Keyring(redis, SecretStr(MASTER_KEY))
    await made.prepare(["default", "acme"])
    return made


@pytest.fixture
def make_judge(keyring: Keyring, senders: dict[str, str]) -> Callable[..., Judge]:
    def make(
        security: SecuritySection | None = None, deduplication: DeduplicationSection | None = None
    ) -> Judge:
        return Judge(keyring, security or SecuritySection(), deduplication or DeduplicationSection())

    return make


@pytest.fixture
def judge(make_judge: Callable[..., Judge]) -> Judge:
    return make_judge()


@pytest.fixture
def service(senders: dict[str, str]) -> Callable[..., Any]:
    """`async with service(redis_section, key=..., security={...}) as channel`: the real process, in here."""

    @asynccontextmanager
    async def start(
        redis: RedisSection, *, key: str = INTERNAL_KEY, security: dict[str, Any] | None = None, **more: Any
    ) -> AsyncIterator[grpc.aio.Channel]:
        settings = SecuritySettings.model_validate(
            {
                "webhook": {
                    "redis": redis,
                    "encryption": {"master_key": SecretStr(MASTER_KEY)},
                    "identity": {"internal_key": SecretStr(INTERNAL_KEY)},
                    "security": security or {},
                    **more,
                },
                "process": {"listen_address": "127.0.0.1:0", "drain_timeout": "1s"},
            }
        )
        async with (
            running(settings) as up,
            connected(f"127.0.0.1:{up.port}", key=SecretStr(key), deadline_s=10) as channel,
        ):
            yield channel

    return start


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Any]:
    """`await until(lambda: ...)`: as soon as it is true, or an error after ten seconds."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[PostgresServer]:
    if not postgresql.binary("initdb"):
        if os.environ.get("CI") == "true":
            pytest.fail(postgresql.NEEDS)
        pytest.skip(postgresql.NEEDS)
    directory = Path(tempfile.mkdtemp(prefix="webhook-postgres-"))
    server = PostgresServer(directory)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
async def postgres(_postgres_server: PostgresServer) -> PostgresServer:
    """A PostgreSQL that runs and has the table `mcp.webhook_configs`, empty."""
    if not _postgres_server.is_running:
        _postgres_server.start()
    await _postgres_server.answering()
    await _postgres_server.execute("DROP SCHEMA IF EXISTS mcp CASCADE")
    await _postgres_server.execute(postgresql.TABLE)
    return _postgres_server
