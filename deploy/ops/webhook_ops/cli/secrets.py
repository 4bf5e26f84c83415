"""`webhook-cli secrets`: what senders sign with, rotated so that nothing valid is refused."""

from __future__ import annotations

import datetime as dt
import sys
import uuid
from collections.abc import Iterable, Sequence
from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration
from webhook.security.v1 import security_admin_service_pb2 as messages
from webhook.security.v1 import security_admin_service_pb2_grpc
from webhook_shared.settings import read_secret, show_duration

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.paging import pages
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Look at the senders' secrets, rotate and retire them.")

_PAGE = 1000
_DAY = dt.timedelta(hours=24)
_STANDARD_INPUT = "-"

Tool = Annotated[str, typer.Argument(help="Such as github.")]


@app.command("list")
def list_(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Argument(help="Such as github; all where it is left out.")] = "",
    tenant: Annotated[
        str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="All that the key covers, if left out.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List secrets, and when each last verified a delivery: an old one that is used no more can be retired.

    Example: `webhook-cli secrets list github`
    """

    async def work(door: Door) -> list[messages.SecretStatus]:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            request = messages.ListSecretsRequest(tenant=tenant, tool=tool, page_size=_PAGE)
            return [secret async for page in pages(stub.ListSecrets, request) for secret in page.secrets]

    secrets = call(ctx, work, as_json=as_json)
    if as_json:
        print_json({"secrets": [to_plain(secret) for secret in secrets]})
    else:
        _print(secrets)


@app.command()
def rotate(
    ctx: typer.Context,
    *,
    tool: Tool,
    tenant: Tenant = DEFAULT_TENANT,
    secret_ref: Annotated[
        str,
        typer.Option(
            "--secret-ref", help="The new secret, where the sender made it: env:NAME, file:PATH or - (stdin)."
        ),
    ] = "",
    overlap: Annotated[
        dt.timedelta,
        typer.Option(
            "--overlap", parser=lifetime, metavar="DURATION", help="How long the old ones verify still."
        ),
    ] = _DAY,
    request_id: Annotated[
        str, typer.Option("--request-id", help="The same for a repeated call, so that it adds nothing.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Add a secret, and end the old ones after an overlap. One that is made here is shown, this once.

    Rotate first, then give the new secret to the sender: both verify meanwhile.

    Examples:
    - `webhook-cli secrets rotate github --overlap 48h`

    - `webhook-cli secrets rotate stripe --secret-ref env:STRIPE_NEW_SECRET`
    """
    span = Duration()
    span.FromTimedelta(overlap)
    request = messages.RotateSecretRequest(
        tenant=tenant,
        tool=tool,
        secret=_given(secret_ref, as_json=as_json),
        overlap=span,
        request_id=request_id or str(uuid.uuid4()),
    )

    async def work(door: Door) -> messages.RotateSecretResponse:
        async with door.open("security") as channel:
            return await security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel).RotateSecret(
                request
            )

    made = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(made))
    else:
        out = console()
        if made.secret:
            out.print(text(made.secret, "bold"))
            out.print("It is not shown again: give it to the sender now.")
        elif not secret_ref:
            out.print(
                "An earlier call with this request id added it; what was not noted then is lost: rotate anew."
            )
        _print([made.added, *made.ending])
        if made.ending:
            until = f"for {show_duration(overlap)} at most" if overlap else "no longer"
            out.print(f"The old ones verify {until}. `webhook-cli secrets list {tool}` tells if one is used.")
    _warn(made.replicas_behind, "do not let the sender use the new secret yet")


@app.command()
def retire(
    ctx: typer.Context,
    *,
    tool: Tool,
    key_id: Annotated[str, typer.Argument(help="As `secrets list` shows it.")],
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """End a secret now. The last one that verifies a sender stays.

    Example: `webhook-cli secrets retire github env:GITHUB_WEBHOOK_SECRET`
    """
    request = messages.RetireSecretRequest(tenant=tenant, tool=tool, key_id=key_id)

    async def work(door: Door) -> messages.RetireSecretResponse:
        async with door.open("security") as channel:
            return await security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel).RetireSecret(
                request
            )

    done = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(done))
    else:
        console().print(text(f"{key_id} verifies nothing any more."))
    _warn(done.replicas_behind, "it may still be taken there")


def _given(reference: str, *, as_json: bool) -> str:
    """The secret that the sender made; empty where one is to be made. Never on the command line itself."""
    if not reference:
        return ""
    try:
        found = sys.stdin.readline() if reference == _STANDARD_INPUT else read_secret(reference)
    except ValueError as error:
        fail(str(error), Exit.USAGE, reason="SECRET_UNREADABLE", as_json=as_json)
    found = found.rstrip("\r\n")
    if not found.strip():
        fail("the secret is blank", Exit.USAGE, reason="SECRET_BLANK", as_json=as_json)
    return found


def _warn(behind: int, consequence: str) -> None:
    if behind:
        replicas = "1 replica has" if behind == 1 else f"{behind} replicas have"
        sys.stderr.write(f"warning: {replicas} not heard of it yet: {consequence}\n")


def _print(secrets: Iterable[messages.SecretStatus]) -> None:
    columns = ("tenant", "tool", "key id", "from", "state", "until", "last used", "uses")
    console().print(table(columns, [_row(status) for status in secrets]))


def _row(status: messages.SecretStatus) -> Sequence[object]:
    secret = status.secret
    return (
        status.tenant,
        status.tool,
        secret.key_id,
        secret.reference,
        _state(status),
        moment(secret.not_after_time) if secret.HasField("not_after_time") else NONE,
        moment(status.last_use_time),
        status.use_count,
    )


def _state(status: messages.SecretStatus) -> str:
    if status.live:
        return "live"
    if status.secret.not_after_time.seconds and _is_past(status):
        return "ended"
    return "not yet" if status.secret.usable else "unreadable"


def _is_past(status: messages.SecretStatus) -> bool:
    return status.secret.not_after_time.ToDatetime(tzinfo=dt.UTC) <= dt.datetime.now(dt.UTC)
