"""The events that were believed but can't be read, as operators look at them. Bodies stay sealed here."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from webhook_shared.redis import Client, Script

from webhook_gateway.publishing.stream import QUARANTINE

MOST_LOOKED_AT = 5000
"""Per call; a page may be short, with more to come."""

NEWEST = "+"
_ID = re.compile(r"[0-9]{1,15}-[0-9]{1,20}")


class Kept(NamedTuple):
    """One quarantined event.

    Attributes:
        quarantined_id: Where it is in the stream.
        fields: What stands beside the body in clear.
        sealed_bytes: How large the sealed body is.
        sealed: The body; empty in lists.
    """

    quarantined_id: str
    fields: dict[str, str]
    sealed_bytes: int
    sealed: bytes = b""


class Quarantine:
    """The stream of quarantined events in one Redis."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._script = Script.load("webhook_gateway", "quarantine_list")

    async def page(
        self, size: int, token: str, *, tool: str = "", tenants: Collection[str] = (), since_ms: int = 0
    ) -> tuple[list[Kept], str]:
        """At most `size` of them, newest first, and the token of the next page; empty where there is none.

        Args:
            size: At least 1.
            token: Of the page before, or empty.
            tool: Empty means all.
            tenants: None named means all.
            since_ms: When the oldest came into the stream, Unix time.

        Raises:
            ValueError: The token is not one of ours.
        """
        if token and not _ID.fullmatch(token):
            raise ValueError("not a page token of this list")
        position = f"({token}" if token else NEWEST
        args = [position, f"{max(since_ms, 0)}-0", MOST_LOOKED_AT, size, tool, *sorted(tenants)]
        further, *rows = await self._script(self._client, [QUARANTINE], args)
        kept = [Kept(rows[at].decode(), _texts(rows[at + 1]), rows[at + 2]) for at in range(0, len(rows), 3)]
        return kept, further.decode().removeprefix("(")

    async def find(self, quarantined_id: str) -> Kept | None:
        """One of them, with its sealed body."""
        if not _ID.fullmatch(quarantined_id):
            return None
        rows: Any = await self._client.xrange(QUARANTINE, quarantined_id, quarantined_id)
        if not rows:
            return None
        fields = rows[0][1]
        sealed = fields.pop(b"sealed", b"")
        flat = [part for pair in fields.items() for part in pair]
        return Kept(quarantined_id, _texts(flat), len(sealed), sealed)


def _texts(flat: list[bytes]) -> dict[str, str]:
    texts = [part.decode() for part in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
