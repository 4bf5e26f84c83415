"""`webhook-cli dictionaries`: what makes events and contexts small."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from webhook.context.v1 import context_admin_service_pb2, context_admin_service_pb2_grpc
from webhook.dictionary.v1.dictionary_pb2 import Dictionary, Training
from webhook.security.v1 import security_admin_service_pb2, security_admin_service_pb2_grpc

from webhook_ops.cli.door import Door, Json, Tenant, call
from webhook_ops.cli.failures import Exit, fail
from webhook_ops.cli.render import NONE, console, moment, print_json, table, text, to_plain
from webhook_ops.cli.tiers import size
from webhook_ops.delivery import DEFAULT_TENANT

app = typer.Typer(no_args_is_help=True, help="Look at compression dictionaries, and train them.")

_LONGEST_S = 330.0
_TenantFilter = Annotated[
    str, typer.Option("--tenant", envvar="WEBHOOK_TENANT", help="Only of this one, and the shipped ones.")
]


@app.command("list")
def list_(ctx: typer.Context, *, tenant: _TenantFilter = "", as_json: Json = False) -> None:
    """List the dictionaries with what they gain. Needs an operator's key.

    What is in a dictionary is shown nowhere; none is deleted before its tenant's keys are.

    Example: `webhook-cli dictionaries list`
    """

    async def work(door: Door) -> list[Dictionary]:
        return await _all(door, tenant)

    found = call(ctx, work, as_json=as_json)
    if as_json:
        print_json({"dictionaries": [to_plain(one) for one in found]})
        return
    rows = [
        (
            one.tenant or "shipped",
            one.use or "all",
            one.name,
            str(one.generation),
            one.id,
            "yes" if one.in_use else "to read",
            size(one.size_bytes),
            _times(one.ratio),
            _times(one.plain_ratio),
            moment(one.create_time) if one.HasField("create_time") else NONE,
        )
        for one in found
    ]
    columns = ("tenant", "use", "name", "generation", "id", "in use", "size", "ratio", "without", "made")
    console().print(table(columns, rows))


@app.command()
def show(
    ctx: typer.Context,
    *,
    dictionary_id: Annotated[str, typer.Argument(metavar="ID", help="Such as bb1eda615ca763bf.")],
    as_json: Json = False,
) -> None:
    """Show what is known of one dictionary. Needs an operator's key.

    Example: `webhook-cli dictionaries show bb1eda615ca763bf`
    """

    async def work(door: Door) -> Dictionary | None:
        return next((one for one in await _all(door, "") if one.id == dictionary_id), None)

    found = call(ctx, work, as_json=as_json)
    if found is None:
        fail(
            f"there is no dictionary {dictionary_id}",
            Exit.NOT_FOUND,
            reason="DICTIONARY_NOT_FOUND",
            as_json=as_json,
        )
    plain = to_plain(found)
    if as_json:
        print_json(plain)
        return
    console().print(table(("field", "value"), [(field, value) for field, value in plain.items() if value]))


@app.command()
def train(
    ctx: typer.Context,
    *,
    name: Annotated[str, typer.Argument(help="The source, such as github.")],
    use: Annotated[Literal["events", "contexts"], typer.Option("--use", help="What it compresses.")] = (
        "events"
    ),
    tenant: Tenant = DEFAULT_TENANT,
    as_json: Json = False,
) -> None:
    """Train a source's dictionary now, on what one replica has seen of it; the better one is kept.

    Takes seconds; nothing waits for it. Needs an operator's key.

    Example: `webhook-cli dictionaries train github --use events`
    """

    async def work(door: Door) -> Training:
        async with door.open("security" if use == "events" else "context") as channel:
            if use == "events":
                events = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
                asked = security_admin_service_pb2.TrainDictionaryRequest(tenant=tenant, name=name)
                return (await events.TrainDictionary(asked, timeout=_LONGEST_S)).training
            contexts = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
            request = context_admin_service_pb2.TrainDictionaryRequest(tenant=tenant, name=name)
            return (await contexts.TrainDictionary(request, timeout=_LONGEST_S)).training

    told = call(ctx, work, as_json=as_json)
    if as_json:
        print_json(to_plain(told))
        return
    ratios = (
        f"{_times(told.ratio)} with the new one, {_times(told.in_use_ratio)} with the one in use, "
        f"{_times(told.plain_ratio)} with none, on {told.sample_count // 4} of {told.sample_count} samples"
    )
    verdict = "Nothing is gained; it is not kept"
    if told.HasField("adopted"):
        verdict = f"Dictionary {told.adopted.id} is kept, and used from {moment(told.adopted.use_time)} on"
    console().print(text(f"{verdict}: {ratios}."))


async def _all(door: Door, tenant: str) -> list[Dictionary]:
    async with door.open("security") as channel:
        events = security_admin_service_pb2_grpc.SecurityAdminServiceStub(channel)
        asked = security_admin_service_pb2.ListDictionariesRequest(tenant=tenant)
        found: list[Any] = list((await events.ListDictionaries(asked)).dictionaries)
    async with door.open("context") as channel:
        contexts = context_admin_service_pb2_grpc.ContextAdminServiceStub(channel)
        request = context_admin_service_pb2.ListDictionariesRequest(tenant=tenant)
        # The shipped ones are the same everywhere.
        found += [one for one in (await contexts.ListDictionaries(request)).dictionaries if one.tenant]
    return found


def _times(ratio: float) -> str:
    return f"{ratio:.1f} x" if ratio else NONE
