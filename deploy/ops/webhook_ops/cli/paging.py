"""Lists that come in pages: all of them, or one and how to go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from webhook_ops.cli.render import console, print_json, table, text, to_plain

Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many at most.")]
PageToken = Annotated[str, typer.Option("--page-token", help="Go on from the page before.")]

# Requests and responses of every list RPC have these fields; protobuf gives them no type in common.
Page = TypeVar("Page", bound=Any)


async def pages(method: Callable[[Any], Awaitable[Page]], request: Any) -> AsyncIterator[Page]:
    """Every page of a list RPC, in order.

    Args:
        method: Of a stub.
        request: With a `page_token`, which is moved on.
    """
    while True:
        page = await method(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def print_way_on(out: Console, page: Any) -> None:
    """How to see the next page, if there is one."""
    if page.next_page_token:
        out.print(text(f"more: --page-token {page.next_page_token}"))


def print_page(
    page: Any, rows: Sequence[Sequence[Any]], columns: Sequence[str], *, nothing: str, as_json: bool
) -> None:
    """One page as a table, or as it is.

    Args:
        page: The response.
        rows: Of the table.
        columns: Its heads.
        nothing: What to say where there is none at all.
        as_json: For programs.
    """
    if as_json:
        print_json(to_plain(page))
        return
    out = console()
    if rows:
        out.print(table(columns, rows))
    else:
        out.print("None here; there are more pages." if page.next_page_token else nothing)
    print_way_on(out, page)
