"""Page tokens of searches: which contexts a walk has shown, so that none comes twice and none is skipped.

Scores move with every write, so neither an offset nor a last score says where a page ended. A token names
all that was shown, six bytes of digest each; any replica can go on with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from webhook_shared.errors import InvalidArgument

from webhook_context import page_tokens
from webhook_context.finding.index import Hit

LONGEST_WALK = 1000
_DIGEST_BYTES = 6
_SEARCH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Walk:
    """A search that is looked at page by page.

    Attributes:
        search: Digest of what is searched.
        shown: Digests of the contexts that were shown.
    """

    search: bytes
    shown: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, search: Sequence[bytes], token: str) -> Walk:
        """The walk that a token goes on with, or the beginning of one.

        Raises:
            InvalidArgument: The token is none of ours, or of another search.
        """
        parts = b"".join(len(part).to_bytes(4) + part for part in search)
        digest = hashlib.sha256(parts).digest()[:_SEARCH_BYTES]
        if not token:
            return cls(digest)
        try:
            content = base64.b64decode(token.encode(), b"-_", validate=True)
        except (binascii.Error, ValueError):
            content = b""
        shown = content[_SEARCH_BYTES:]
        if not shown or len(shown) % _DIGEST_BYTES or len(shown) > LONGEST_WALK * _DIGEST_BYTES:
            raise page_tokens.unknown()
        if content[:_SEARCH_BYTES] != digest:
            raise InvalidArgument(
                "the page token is of another search", fields={"page_token": "is of another search"}
            )
        starts = range(0, len(shown), _DIGEST_BYTES)
        return cls(digest, tuple(shown[start : start + _DIGEST_BYTES] for start in starts))

    def unshown(self, hits: Sequence[Hit]) -> list[Hit]:
        """Those that were on no earlier page."""
        shown = frozenset(self.shown)
        return [hit for hit in hits if _digest(hit.context_id) not in shown]

    def token(self, context_ids: Iterable[str]) -> str:
        """Names what was shown with this page; empty where a walk ends."""
        shown = (*self.shown, *(_digest(one) for one in context_ids))
        if len(shown) >= LONGEST_WALK:
            return ""
        return base64.urlsafe_b64encode(self.search + b"".join(shown)).decode()


def _digest(context_id: str) -> bytes:
    return hashlib.sha256(context_id.encode()).digest()[:_DIGEST_BYTES]
