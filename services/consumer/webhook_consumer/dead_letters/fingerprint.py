"""What dead letters have in common that died of the same thing."""

from __future__ import annotations

import hashlib
import re

# Quoted text may be a stranger's; numbers, ids and addresses differ from event to event.
_VARIABLE = re.compile(
    r"""
    '[^']*' | "[^"]*" | `[^`]*`             # what somebody else wrote
    | \b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b
    | \b\S+:\S+:\S+\b                       # the id of a context, a URL, an address
    | \b(?=[0-9a-z_-]*\d)[0-9a-z_-]{2,}\b   # ids, hashes, versions
    | \d+
    """,
    re.VERBOSE | re.IGNORECASE,
)
LENGTH = 16


def fingerprint(stage: str, tool: str, cause: str, detail: str) -> str:
    """16 hexadecimal digits, equal for failures that differ only in ids, numbers and quoted text."""
    normalised = " ".join(_VARIABLE.sub("#", detail).lower().split())
    told = f"{stage}\0{tool}\0{cause}\0{normalised}"
    return hashlib.sha256(told.encode(errors="replace")).hexdigest()[:LENGTH]
