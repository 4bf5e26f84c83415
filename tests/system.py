"""The system under test: every process real, on free ports, with sources configured as an operator would."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr
from webhook.security.v1 import security_admin_service_pb2
from webhook_ops.dev.ports import free_addresses
from webhook_ops.dev.system import System, running_system
from webhook_shared.rpc.channel import connected

from tests import wire
from tests.clients import Client
from tests.senders import AnyTool, Delivery, GitHub, GitLab, Jira, SigningGitLab, Slack, StandardWebhooks
from tests.wire import Answer

RPC_DEADLINE_S = 10.0

#: Two tenants; two live secrets of different kinds for one source; limits that a test can wait for.
CONFIGURATION = """\
webhook:
  gateway:
    header_timeout: 1s
    body_timeout: 2s
  security:
    signature_secrets:
      gitlab: [env:TEST_GITLAB_TOKEN, env:TEST_GITLAB_SIGNING_SECRET]
      standard-webhooks: env:TEST_STANDARD_SECRET
      acme-deploy: env:ACME_DEPLOY_WEBHOOK_SECRET
      secretless: env:TEST_NOBODY_SET_THIS
      rotating: env:TEST_ROTATING_SECRET
    tenants:
      rival:
        signature_secrets:
          github: env:TEST_RIVAL_GITHUB_SECRET
      world:
        signature_secrets:
          standard-webhooks: env:TEST_WORLD_PUBLIC_KEY
"""
#: What the senders of the tenant "world" hold: all the same, and one of them a private key.
WORLD_SECRET = "all the world: one secret"
WORLD_PRIVATE_KEY = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
WORLD = (
    *("azure-devops", "bitbucket", "circleci", "github", "gitlab", "grafana", "jira", "linear", "acme-lab"),
    *("microsoft-graph", "pagerduty", "sentry", "shopify", "slack", "sonarqube", "stripe", "terraform"),
    "twitter",
)
CONFIGURATION += "".join(f"          {tool}: env:TEST_WORLD_SECRET\n" for tool in WORLD)


def _whsec() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


@dataclass(frozen=True)
class Senders:
    """One of each kind, with the secret that the system knows it by."""

    github: GitHub
    rival_github: GitHub
    gitlab: GitLab
    signing_gitlab: SigningGitLab
    jira: Jira
    slack: Slack
    standard: StandardWebhooks
    acme: AnyTool


@dataclass(frozen=True)
class House:
    """A running system, as tests use it.

    Attributes:
        system: As the runner has it.
        senders: Whom it knows.
        environ: What its processes were started with, beside the runner's own secrets.
        operator: A client with the operator's key: every tenant, every role but the internal one.
    """

    system: System
    senders: Senders
    environ: Mapping[str, str]
    operator: Client
    _stack: AsyncExitStack

    @property
    def http(self) -> str:
        """host:port of the HTTP edge."""
        return self.system.plan.http

    @property
    def log(self) -> str:
        """What all processes have written so far."""
        return (self.system.var / "system.log").read_text(encoding="utf-8")

    async def post(self, delivery: Delivery, *, within_s: float = wire.ANSWER_WITHIN_S) -> Answer:
        """Send a delivery on a connection of its own."""
        return await wire.post(self.http, delivery, within_s=within_s)

    async def accepted(self, delivery: Delivery) -> str:
        """Send a delivery that must be taken as new; its event id."""
        answer = await self.post(delivery)
        assert answer.status == 202, answer
        assert not answer.duplicate, answer
        return answer.event_id

    async def client(self, key: str) -> Client:
        """A client with a credential of its own, closed with the house."""
        return await self._stack.enter_async_context(client(self.system, key))

    async def key(self, *roles: security_admin_service_pb2.Role.ValueType, tenants: Sequence[str]) -> str:
        """A new credential for these tenants."""
        request = security_admin_service_pb2.CreateApiKeyRequest(
            display_name="test", tenants=tenants, roles=roles
        )
        return (await self.operator.security_admin.CreateApiKey(request)).secret

    @asynccontextmanager
    async def without(self, name: str) -> AsyncIterator[None]:
        """One process is away while inside, and back and healthy afterwards."""
        supervisor = self.system._supervisor
        command = self.system.processes[name].command
        await supervisor.stop(name)
        try:
            yield
        finally:
            await supervisor.start(command)
            await self.system.healthy(name)


@asynccontextmanager
async def running_house(
    var: Path, *, environ: Mapping[str, str] | None = None, fsync: str = "everysec"
) -> AsyncIterator[House]:
    """A whole system.

    Args:
        var: Its directory; what it holds from last time is used again, secrets included.
        environ: Variables beside those that the configuration needs.
        fsync: How durable its Redis is: "everysec" or "always".
    """
    own = _environment(var) | dict(environ or {})
    async with AsyncExitStack() as stack:
        system = await stack.enter_async_context(
            running_system(
                var,
                free_ports=True,
                fsync="always" if fsync == "always" else "everysec",
                environ=_inherited() | own,
            )
        )
        operator = await stack.enter_async_context(client(system, system.operator_key))
        yield House(system, _senders(system, own), own, operator, stack)


@asynccontextmanager
async def client(system: System, key: str) -> AsyncIterator[Client]:
    """Stubs of every service with one credential."""
    async with AsyncExitStack() as stack:
        channels = {
            service: await stack.enter_async_context(
                connected(address, key=SecretStr(key), deadline_s=RPC_DEADLINE_S)
            )
            for service, address in system.plan.grpc.items()
        }
        yield Client(channels)


def free_address() -> str:
    """host:port that nobody listens on, below the range of outgoing connections."""
    (address,) = free_addresses(1)
    return address


def _inherited() -> dict[str, str]:
    """What a process needs of ours to run at all: nobody's own settings reach a test."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


def _environment(var: Path) -> dict[str, str]:
    var.mkdir(parents=True, exist_ok=True)
    configuration = var / "config.yaml"
    configuration.write_text(CONFIGURATION, encoding="utf-8")
    kept = var / "test.env"
    if not kept.exists():
        lines = [
            f"TEST_GITLAB_TOKEN=glpt-{secrets.token_hex(16)}",
            f"TEST_GITLAB_SIGNING_SECRET={_whsec()}",
            f"TEST_STANDARD_SECRET={_whsec()}",
            f"TEST_RIVAL_GITHUB_SECRET={secrets.token_hex(32)}",
            f"TEST_ROTATING_SECRET={secrets.token_hex(32)}",
        ]
        kept.write_text("\n".join(lines), encoding="utf-8")
    pairs = (line.partition("=") for line in kept.read_text(encoding="utf-8").splitlines())
    return {
        "WEBHOOK_CONFIG": str(configuration),
        "TEST_WORLD_SECRET": WORLD_SECRET,
        # RFC 8032, 7.1, TEST 1.
        "TEST_WORLD_PUBLIC_KEY": "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
        **{name: value for name, _, value in pairs},
    }


def _senders(system: System, own: Mapping[str, str]) -> Senders:
    made = system.secrets
    return Senders(
        github=GitHub(made["GITHUB_WEBHOOK_SECRET"]),
        rival_github=GitHub(own["TEST_RIVAL_GITHUB_SECRET"], "/webhooks/rival/github"),
        gitlab=GitLab(own["TEST_GITLAB_TOKEN"]),
        signing_gitlab=SigningGitLab(own["TEST_GITLAB_SIGNING_SECRET"]),
        jira=Jira(made["JIRA_WEBHOOK_SECRET"]),
        slack=Slack(made["SLACK_WEBHOOK_SECRET"]),
        standard=StandardWebhooks(own["TEST_STANDARD_SECRET"]),
        acme=AnyTool("acme-deploy", made["ACME_DEPLOY_WEBHOOK_SECRET"]),
    )
