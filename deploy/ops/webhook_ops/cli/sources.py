"""`webhook-cli sources`: the senders that are configured."""

from __future__ import annotations

from typing import Annotated

import typer
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc, source_pb2
from webhook_shared.settings import show_duration

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.paging import pages
from webhook_ops.cli.render import console, print_json, table, to_plain
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Look at the senders that are configured.")

_PAGE = 1000


@app.command("list")
def list_(ctx: typer.Context, as_json: Json = False) -> None:
    """List every sender with how it is verified and whether its secrets can be read.

    Example: `webhook-cli sources list`
    """

    async def work(door: Door) -> list[source_pb2.Source]:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            request = security_admin_service_pb2.ListSourcesRequest(page_size=_PAGE)
            return [source async for page in pages(stub.ListSources, request) for source in page.sources]

    sources = call(ctx, work, as_json=as_json)
    if as_json:
        print_json({"sources": [to_plain(source) for source in sources]})
        return
    rows = [
        (
            source.tenant,
            source.tool,
            source.kind,
            "yes" if source.enabled else "no",
            ", ".join(source.schemes),
            _usable(source),
            show_duration(source.dedup_window.ToTimedelta()),
        )
        for source in sources
    ]
    columns = ("tenant", "tool", "kind", "enabled", "verified by", "secrets usable", "duplicates within")
    console().print(table(columns, rows))


@app.command()
def show(
    ctx: typer.Context,
    *,
    tool: Annotated[str, typer.Argument(help="Such as github.")],
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Show one sender.

    Example: `webhook-cli sources show github`
    """
    request = security_admin_service_pb2.GetSourceRequest(tenant=tenant, tool=tool)

    async def work(door: Door) -> source_pb2.Source:
        async with door.open("security") as channel:
            stub = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
            return (await stub.GetSource(request)).source

    source = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(source))
        return
    plain = to_plain(source)
    secrets = plain.pop("secrets")
    out = console()
    out.print(table(("field", "value"), [(name, _shown(value)) for name, value in plain.items()]))
    out.print()
    out.print(
        table(
            ("secret", "read from", "usable", "since", "until"),
            (
                (
                    secret["key_id"],
                    secret["reference"],
                    "yes" if secret["usable"] else "no",
                    secret["not_before_time"] or "ever",
                    secret["not_after_time"] or "retired",
                )
                for secret in secrets
            ),
        )
    )


def _usable(source: source_pb2.Source) -> str:
    return f"{sum(secret.usable for secret in source.secrets)} of {len(source.secrets)}"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
