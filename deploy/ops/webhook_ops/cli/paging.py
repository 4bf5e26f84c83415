"""Lists that come in pages: all of them, or one and how to go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from rich.console import Console

from webhook_ops.cli.render import text

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
