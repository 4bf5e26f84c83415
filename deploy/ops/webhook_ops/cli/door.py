"""How the commands reach a system: where it is, and with which credential."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import grpc
import typer
from pydantic import SecretStr
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.rpc.channel import PLAIN, connected
from webhook_shared.rpc.tls import TlsProblem
from webhook_shared.settings import Group, ServicesSection, Settings, SettingsError, TlsSection

from webhook_ops.addresses import SERVICES, Addresses, service_variable
from webhook_ops.cli.failures import Exit, fail, fail_with
from webhook_ops.dev.secrets import kept_operator_key

T = TypeVar("T")

HTTP_VARIABLE = "WEBHOOK_HTTP_URL"
_DEFAULT_HTTP = "http://127.0.0.1:8080"

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")]
Tenant = Annotated[
    str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Whose data, where the key covers several.")
]


class _Shared(Group):
    services: ServicesSection = ServicesSection()
    tls: TlsSection = TlsSection()


class _Located(Settings):
    """Where the services are, as configuration says."""

    webhook: _Shared = _Shared()


@dataclass(frozen=True)
class Door:
    """A way into a system.

    Attributes:
        services: Service to host:port.
        http: Base URL of the HTTP edge.
        key: The credential; empty where none was found.
        timeout_s: For each call.
        var: Where a dev system on this machine keeps its state.
        running: That system, if it runs.
        tls: What to show and whom to believe.
    """

    services: Mapping[str, str]
    http: str
    key: SecretStr
    timeout_s: float
    var: Path
    running: Addresses | None
    tls: TlsSection = PLAIN

    @asynccontextmanager
    async def open(self, service: str) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to a service. What goes wrong on it leaves as `ServiceError`."""
        address = self.services[service]
        async with connected(address, key=self.key, deadline_s=self.timeout_s, tls=self.tls) as channel:
            try:
                yield channel
            except grpc.aio.AioRpcError as error:
                raise Refused(service, from_rpc_error(error)) from None


class Refused(Exception):
    """A service answered with an error, or not at all."""

    def __init__(self, service: str, error: ServiceError) -> None:
        super().__init__(str(error))
        self.service = service
        self.error = error


def door(*, var: Path, api_key: str, timeout_s: float, environ: Mapping[str, str] = os.environ) -> Door:
    """Find the way in: environment over a running dev system over config.yaml over the usual ports."""
    try:
        located = _Located.load(environ=environ).webhook
    except SettingsError as error:
        fail(
            "; ".join(error.problems),
            Exit.FAILED,
            reason="CONFIGURATION_INVALID",
            hint="`webhook-cli config check` shows everything that is wrong",
        )
    running = Addresses.read(var)
    services = {
        service: running.grpc(service)
        if running and service_variable(service) not in environ
        else getattr(located.services, service)
        for service in SERVICES
    }
    return Door(
        services=services,
        http=(environ.get(HTTP_VARIABLE) or (running.http if running else _DEFAULT_HTTP)).rstrip("/"),
        key=SecretStr(api_key or kept_operator_key(var)),
        timeout_s=timeout_s,
        var=var,
        running=running,
        tls=located.tls,
    )


@dataclass(frozen=True)
class CommandLine:
    """What was said before the command. The way in is looked for by the commands that need one.

    Attributes:
        var: Where a system on this machine keeps its state.
        api_key: The credential; empty: that of `var`.
        timeout_s: For each call.
    """

    var: Path
    api_key: str
    timeout_s: float


def command_line_of(ctx: typer.Context) -> CommandLine:
    """What was said before the command."""
    said = ctx.find_object(CommandLine)
    assert said is not None
    return said


def door_of(ctx: typer.Context) -> Door:
    """The door that the command line describes."""
    said = command_line_of(ctx)
    return door(var=said.var, api_key=said.api_key, timeout_s=said.timeout_s)


def call(ctx: typer.Context, work: Callable[[Door], Awaitable[T]], *, as_json: bool = False) -> T:
    """Do the work of a command; a refusal ends the program with one clear line."""
    way_in = door_of(ctx)

    async def worked() -> T:
        return await work(way_in)

    try:
        return asyncio.run(worked())
    except Refused as refused:
        fail_with(refused.error, service=refused.service, as_json=as_json)
    except TlsProblem as error:
        fail(str(error), Exit.FAILED, reason="TLS_UNUSABLE", as_json=as_json)
