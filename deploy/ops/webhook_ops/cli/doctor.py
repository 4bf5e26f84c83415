"""`webhook-cli doctor`: is this system safe to stand at a door?"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import typer
from rich.text import Text
from webhook.security.v1 import source_pb2
from webhook_shared.settings import Group, RedisSection, Settings, SettingsError, read_secret

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import NOTHING_RUNS_HINT, Exit, fail
from webhook_ops.cli.render import console, print_json, table
from webhook_ops.delivery import DEFAULT_TENANT
from webhook_ops.dev.secrets import kept_secrets, secret_variable
from webhook_ops.doctor import edge, services, store
from webhook_ops.doctor.abuse import Forger
from webhook_ops.doctor.finding import Finding, Verdict, skipped
from webhook_ops.doctor.raw_http import Edge
from webhook_ops.trust import trust

_STYLES = {Verdict.GOOD: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}
#: Senders whose requests the doctor can forge in all their parts, best first.
_PREFERRED = ("github", "slack", "standard-webhooks", "jira")


class _Webhook(Group):
    redis: RedisSection = RedisSection()


@dataclass(frozen=True)
class _Patient:
    """What is asked for; texts are empty where nothing was said."""

    tool: str
    tenant: str
    secret: str
    quick: bool


class _Stored(Settings):
    """Where the durable Redis is, as configuration says."""

    webhook: _Webhook = _Webhook()


def doctor(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Option("--tool", help="The source to try; else one that has a secret.")] = "",
    tenant: Tenant = DEFAULT_TENANT,
    secret_ref: Annotated[
        str, typer.Option("--secret-ref", help="Its secret, env:NAME or file:PATH: for nearer misses.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what is slow on purpose.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="Show only what is not well.")] = False,
    as_json: Json = False,
) -> None:
    """Try a live system with hostile requests, look at how it is set, and say what to do.

    Sends only what must be refused, so a system that is well stores nothing of it; its metrics and its list
    of refusals show it. Takes up to 25 seconds: as long as the system bears somebody who is slow.

    Exit code 0 where nothing fails (warnings may stand), 1 where something does, 3 where nothing answers.

    Examples:
    - `webhook-cli doctor --problems`

    - `WEBHOOK_HTTP_URL=https://hooks.example.com webhook-cli doctor --tool github --json`
    """
    secret = _secret(secret_ref, as_json=as_json)

    async def examined(door: Door) -> list[Finding]:
        return await _examine(door, _Patient(tool, tenant, secret, quick))

    findings = call(ctx, examined, as_json=as_json)
    if services.nothing_runs(findings):
        fail(
            "nothing answers here",
            Exit.UNREACHABLE,
            reason="PEER_UNREACHABLE",
            hint=NOTHING_RUNS_HINT,
            as_json=as_json,
        )
    tally = Counter(finding.verdict for finding in findings)
    if as_json:
        print_json({"well": not tally[Verdict.FAIL], "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings, tally, problems=problems)
    sys.exit(Exit.FAILED if tally[Verdict.FAIL] else Exit.OK)


async def _examine(door: Door, patient: _Patient) -> list[Finding]:
    door_edge = Edge(door.http, trust(door.tls))
    listed, secrets = await services.sources(door)
    chosen = patient.tool or _chosen(listed, patient.tenant)
    variable = secret_variable(chosen)
    secret = patient.secret or os.environ.get(variable) or kept_secrets(door.var).get(variable, "")
    try:
        forger = Forger(chosen, door_edge.authority, secret=secret, tenant=patient.tenant)
    except ValueError:
        # Whatever kind of secret it is, the doctor can do without it.
        forger = Forger(chosen, door_edge.authority, tenant=patient.tenant)
    refusals, health, locks, drift, kept = await asyncio.gather(
        edge.examine(door_edge, forger, quick=patient.quick),
        services.health(door),
        services.locks(door),
        edge.clock(door_edge),
        _stored(door),
    )
    return [
        *health,
        *services.certificates(door.tls, dict(door.services)),
        *locks,
        *refusals,
        drift,
        *kept,
        *secrets,
        *services.settings(door.var),
    ]


def _chosen(sources: Sequence[source_pb2.Source], tenant: str) -> str:
    own = "" if tenant == DEFAULT_TENANT else tenant
    usable = [
        source.tool
        for source in sources
        if source.enabled and source.tenant in {own, tenant} and any(one.usable for one in source.secrets)
    ]
    return next((tool for tool in (*_PREFERRED, *usable) if tool in usable), _PREFERRED[0])


async def _stored(door: Door) -> list[Finding]:
    try:
        redis = _Stored.load().webhook.redis
    except SettingsError as error:
        return [skipped(store.AREA, "settings", problem, "mend it") for problem in error.problems]
    if door.running and "addresses" not in redis.model_fields_set:
        redis = redis.model_copy(update={"addresses": tuple(door.running.redis.split(","))})
    return await store.examine(redis)


def _secret(reference: str, *, as_json: bool) -> str:
    try:
        return read_secret(reference) if reference else ""
    except ValueError as error:
        fail(str(error), Exit.USAGE, reason="SECRET_UNREADABLE", as_json=as_json)


def _print(findings: Sequence[Finding], tally: Counter[Verdict], *, problems: bool) -> None:
    shown = [one for one in findings if not problems or one.verdict in {Verdict.WARN, Verdict.FAIL}]
    rows = [
        (Text(one.verdict.value, _STYLES[one.verdict]), one.area, one.name, one.seen, one.remedy)
        for one in shown
    ]
    out = console()
    if rows:
        out.print(table(("", "area", "what", "seen", "what to do"), rows))
    out.print(", ".join(f"{tally[verdict]} {verdict.value}" for verdict in Verdict if tally[verdict]))
