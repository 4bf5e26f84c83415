"""`webhook-cli`: look at a system, try it out, operate it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from webhook_ops.addresses import DEFAULT_VAR, VAR_VARIABLE
from webhook_ops.cli import (
    archive,
    audit,
    breakers,
    certs,
    config,
    conflicts,
    contexts,
    dictionaries,
    dlq,
    erase,
    intelligence,
    keys,
    migration,
    pending,
    prewarm,
    quarantine,
    rejected,
    secrets,
    sources,
    tiers,
    tools,
)
from webhook_ops.cli.doctor import doctor
from webhook_ops.cli.door import CommandLine
from webhook_ops.cli.failover import failover
from webhook_ops.cli.failures import EXIT_CODES_HELP
from webhook_ops.cli.quotas import quotas
from webhook_ops.cli.replay import replay
from webhook_ops.cli.restore import restore
from webhook_ops.cli.send import send
from webhook_ops.cli.status import status
from webhook_ops.cli.tail import tail

app = typer.Typer(
    name="webhook-cli",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
    epilog=EXIT_CODES_HELP,
)


@app.callback()
def webhook_cli(
    ctx: typer.Context,
    var: Annotated[
        Path, typer.Option(envvar=VAR_VARIABLE, help="Where a system on this machine keeps its state.")
    ] = DEFAULT_VAR,
    api_key: Annotated[
        str, typer.Option(envvar="WEBHOOK_API_KEY", help="The credential; else VAR/operator.key.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each call.")] = 10.0,
) -> None:
    """Look at Webhook System, try it out, operate it.

    Finds the system that `make run` started through var/addresses.json; elsewhere set
    WEBHOOK_GATEWAY_ADDRESS, WEBHOOK_SECURITY_ADDRESS... (host:port) and WEBHOOK_HTTP_URL.

    Examples:
    - `webhook-cli status`

    - `webhook-cli send github --sample issues_opened`

    - `webhook-cli contexts search "payment fails"`

    - `webhook-cli config check`
    """
    ctx.obj = CommandLine(var, api_key, timeout)


app.command()(status)
app.command()(send)
app.command()(tail)
app.command()(doctor)
app.command()(failover)
app.command()(replay)
app.command()(restore)
app.command()(quotas)
app.command("force-transition")(tiers.force_transition)
app.command("claim-pending")(pending.claim_pending)
app.command("reset-circuit-breaker")(breakers.reset_circuit_breaker)
app.command()(breakers.breakers)
app.add_typer(contexts.app, name="contexts")
app.add_typer(dlq.app, name="dlq")
app.add_typer(tools.app, name="tools")
app.add_typer(tools.queue, name="queue")
app.add_typer(archive.app, name="archive")
app.add_typer(rejected.app, name="rejected")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(conflicts.app, name="conflicts")
app.add_typer(sources.app, name="sources")
app.add_typer(secrets.app, name="secrets")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(dictionaries.app, name="dictionaries")
app.add_typer(erase.app, name="erase")
app.add_typer(config.app, name="config")
app.add_typer(certs.app, name="certs")
app.add_typer(migration.app, name="migration")
app.add_typer(intelligence.app, name="intelligence")
app.add_typer(prewarm.app, name="prewarm")
