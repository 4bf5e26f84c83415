"""Lists of sources, a page at a time, in order of tenant and tool."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence

from webhook_shared.errors import InvalidArgument

from webhook_security.registry.sources import Source

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000


def page_of(sources: Iterable[Source], size: int, token: str) -> tuple[Sequence[Source], str]:
    """A page and the token of the next one, empty where there is none.

    Args:
        sources: In order.
        size: 0 means 100; more than 1,000 is taken as 1,000.
        token: Of the page before, or empty.

    Raises:
        InvalidArgument: FIELD_INVALID: a negative size, or a token that is none of ours.
    """
    if size < 0:
        raise InvalidArgument("page_size is negative", fields={"page_size": "0 means 100"})
    size = min(size or DEFAULT_PAGE, LARGEST_PAGE)
    after = _route_of(token)
    left = [source for source in sources if (source.tenant, source.tool) > after]
    page = left[:size]
    return page, _token_of(page[-1]) if len(left) > size else ""


def _token_of(source: Source) -> str:
    return base64.urlsafe_b64encode(f"{source.tenant}/{source.tool}".encode()).decode()


def _route_of(token: str) -> tuple[str, str]:
    if not token:
        return ("", "")
    try:
        tenant, _, tool = base64.b64decode(token, altchars=b"-_", validate=True).decode().partition("/")
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidArgument("not a page token of ours", fields={"page_token": "is not valid"}) from None
    return (tenant, tool)
