"""`webhook-cli keys`: credentials, and the keys that everything is sealed under."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import StrEnum
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc

from webhook_ops.cli import master_keys
from webhook_ops.cli.door import Door, Json, call
from webhook_ops.cli.lifetime import lifetime
from webhook_ops.cli.render import console, moment, print_json, table, text, to_plain

app = typer.Typer(no_args_is_help=True, help="Make and revoke API keys; rotate the master key.")
app.command()(master_keys.rotate)
app.command()(master_keys.status)


class KeyRole(StrEnum):
    """What a key may do."""

    READER = "reader"
    WRITER = "writer"
    OPERATOR = "operator"


@app.command()
def create(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="For people: ci-bot.")],
    role: Annotated[list[KeyRole], typer.Option("--role", help="May be repeated.")],
    tenant: Annotated[list[str], typer.Option("--tenant", help="May be repeated; * means all.")],
    expires: Annotated[
        dt.timedelta | None,
        typer.Option("--expires-in", parser=lifetime, metavar="DURATION", help="12h, 30d; else never."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and show its secret, this once.

    Example: `webhook-cli keys create ci-bot --role writer --tenant default --expires-in 30d`
    """
    request = security_admin_service_pb2.CreateApiKeyRequest(
        display_name=name,
        tenants=tenant,
        roles=[security_admin_service_pb2.Role.Value(f"ROLE_{one.name}") for one in role],
        expire_time=_from_now(expires) if expires else None,
        request_id=str(uuid.uuid4()),
    )

    async def work(door: Door) -> security_admin_service_pb2.CreateApiKeyResponse:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            return await stub.CreateApiKey(request)

    made = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(made))
        return
    out = console()
    out.print(text(made.secret, "bold"))
    expiry = moment(made.api_key.expire_time) if made.api_key.HasField("expire_time") else "never"
    out.print(table(("key id", "name", "expires"), [(made.api_key.key_id, name, expiry)]))
    out.print("It is not shown again. Revoke it with `webhook-cli keys revoke KEY_ID`.")


@app.command()
def revoke(
    ctx: typer.Context,
    *,
    key_id: Annotated[str, typer.Argument(help="As `keys create` showed it.")],
    as_json: Json = False,
) -> None:
    """Make a key worthless, everywhere within ten seconds.

    Example: `webhook-cli keys revoke 5f2c8a1b9d3e`
    """
    request = security_admin_service_pb2.RevokeApiKeyRequest(key_id=key_id)

    async def work(door: Door) -> None:
        async with door.open("security") as channel:
            await security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel).RevokeApiKey(request)

    call(ctx, work, as_json=as_json)
    if as_json:
        print_json({"key_id": key_id, "revoked": True})
    else:
        console().print(text(f"{key_id} is revoked."))


def _from_now(lifetime: dt.timedelta) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(dt.datetime.now(dt.UTC) + lifetime)
    return stamp
