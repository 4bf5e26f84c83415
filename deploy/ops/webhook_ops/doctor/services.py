"""Whether the services are there, ask for credentials, and have their secrets."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import grpc
from cryptography import x509
from pydantic import SecretStr
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc, source_pb2
from webhook_shared.errors import from_rpc_error
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.tls import stays_on_this_machine
from webhook_shared.settings import TlsSection

from webhook_ops.addresses import SERVICES
from webhook_ops.cli.door import Door, Refused
from webhook_ops.cli.paging import pages
from webhook_ops.configuration import examine as examine_configuration
from webhook_ops.dev.secrets import kept_secrets
from webhook_ops.doctor.finding import Finding, failed, passed, skipped, warned
from webhook_ops.health import Health, grpc_health, http_health

_HEALTH_OF = "health of "
_PAGE = 1000
_ENDS_SOON = dt.timedelta(days=14)
_CALL_S = 3.0
_MOST_LOOKS = 6
_BETWEEN_LOOKS_S = 0.5
_IF_READ = "mend it, if it is what the services read too"
_MADE_UP = ("whk_doctor_madeup", "x" * 64)


async def health(door: Door) -> list[Finding]:
    """The health of each process."""
    states = await asyncio.gather(
        _settled(partial(http_health, door.http, tls=door.tls)),
        *(_settled(partial(grpc_health, door.services[service], tls=door.tls)) for service in SERVICES),
    )
    found = []
    for name, state in zip(("http", *SERVICES), states, strict=True):
        if state is Health.SERVING:
            found.append(passed("rpc", f"{_HEALTH_OF}{name}", state.value))
        else:
            found.append(
                failed("rpc", f"{_HEALTH_OF}{name}", state.value, "see its log, and `webhook-cli status`")
            )
    return found


async def _settled(look: Callable[[], Awaitable[Health]]) -> Health:
    """What it says of itself; asked again where that may be only because it has just started."""
    for _ in range(_MOST_LOOKS - 1):
        state = await look()
        if state is not Health.NOT_SERVING:
            return state
        await asyncio.sleep(_BETWEEN_LOOKS_S)
    return await look()


def nothing_runs(findings: Sequence[Finding]) -> bool:
    """Whether no process has answered."""
    states = [finding.seen for finding in findings if finding.name.startswith(_HEALTH_OF)]
    return all(state == Health.UNREACHABLE for state in states)


async def locks(door: Door) -> list[Finding]:
    """Whether the administrators' RPCs are closed to who has no credential, or a made-up one."""
    # Our own certificate may be a credential, if nothing else is sent.
    keys = _MADE_UP if door.tls.cert_file else ("", *_MADE_UP)
    return list(await asyncio.gather(*(_locked(door, key) for key in keys)))


async def _locked(door: Door, key: str) -> Finding:
    name = f"security is closed to {'a made-up key' if key else 'no key'}"
    address = door.services["security"]
    async with connected(address, key=SecretStr(key), deadline_s=_CALL_S, tls=door.tls) as channel:
        stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
        try:
            await stub.ListSources(security_admin_service_pb2.ListSourcesRequest(page_size=1))
        except grpc.aio.AioRpcError as error:
            refusal = from_rpc_error(error)
        else:
            return failed("rpc", name, "it ANSWERED", "take it off the network and report this")
    if refusal.code is grpc.StatusCode.UNAUTHENTICATED:
        return passed("rpc", name, refusal.code.name)
    return skipped("rpc", name, refusal.reason, "the service must be reachable from here")


async def sources(door: Door) -> tuple[list[source_pb2.Source], list[Finding]]:
    """The senders, and whether each has a secret to be verified with."""
    request = security_admin_service_pb2.ListSourcesRequest(page_size=_PAGE)
    try:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            found = [source async for page in pages(stub.ListSources, request) for source in page.sources]
    except Refused as refused:
        hint = "give an operator's key with --api-key"
        return [], [skipped("secrets", "sources", refused.error.reason, hint)]
    return found, [secrets_of(source) for source in found if source.enabled and source.secrets]


def secrets_of(source: source_pb2.Source) -> Finding:
    """Whether a source has what its webhooks are verified with."""
    name = f"{source.tenant}/{source.tool}" if source.tenant else source.tool
    good = [secret for secret in source.secrets if secret.usable]
    if len(good) == len(source.secrets):
        return passed("secrets", name, f"{len(good)} usable")
    bad = ", ".join(secret.reference for secret in source.secrets if not secret.usable)
    if good:
        return warned("secrets", name, f"unreadable or empty: {bad}", "mend it before the others end")
    return warned(
        "secrets",
        name,
        f"none: {bad} is unset, unreadable or empty; its webhooks are answered 503",
        "set it, or switch the source off",
    )


def certificates(tls: TlsSection, services: dict[str, str]) -> list[Finding]:
    """Whether the RPCs between machines are secured, and until when."""
    if not tls.ca_file:
        exposed = [name for name, address in services.items() if not stays_on_this_machine(address)]
        if not exposed:
            return [passed("rpc", "transport", "plain text on this machine")]
        return [
            warned(
                "rpc",
                "transport",
                f"plain text over a network: {', '.join(exposed)}",
                "set WEBHOOK_TLS_CERT_FILE, WEBHOOK_TLS_KEY_FILE and WEBHOOK_TLS_CA_FILE",
            )
        ]
    return [_until(file) for file in (tls.ca_file, tls.cert_file) if file]


def _until(file: str) -> Finding:
    try:
        ends = x509.load_pem_x509_certificate(Path(file).read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return failed("rpc", file, f"unusable ({type(error).__name__})", "see `webhook-cli certs dev --help`")
    left = ends - dt.datetime.now(dt.UTC)
    seen = f"good until {ends:%Y-%m-%d}"
    if left > _ENDS_SOON:
        return passed("rpc", file, seen)
    return (warned if left > dt.timedelta() else failed)("rpc", file, seen, "renew it; no restart is needed")


def settings(var: Path) -> list[Finding]:
    """Whether the configuration that stands here would start, and does all that it says.

    Args:
        var: Where a dev system on this machine keeps its secrets.
    """
    found = examine_configuration({**kept_secrets(var), **os.environ})
    findings = [warned("settings", "configuration", line, _IF_READ) for line in found.problems]
    findings += [warned("settings", "no effect yet", line, "") for line in found.not_yet]
    findings += [warned("settings", "stranger", line, "mend or unset it") for line in found.strangers]
    return findings or [passed("settings", "configuration", "every key is known and good")]
