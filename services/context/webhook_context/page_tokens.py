"""Names of places in lists, opaque to those who hand them back."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any

from webhook_shared.errors import InvalidArgument


def unknown() -> InvalidArgument:
    """What a token that is none of ours is answered with."""
    return InvalidArgument("the page token is not one of ours", fields={"page_token": "is unknown"})


def write(place: Sequence[int | str]) -> str:
    """A token for a place."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def read(token: str) -> Any:
    """What a token holds, whatever that is.

    Raises:
        InvalidArgument: It is none of ours.
    """
    try:
        return json.loads(base64.urlsafe_b64decode(token.encode()))
    except (binascii.Error, UnicodeError, ValueError):
        raise unknown() from None
