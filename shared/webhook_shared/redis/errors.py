"""What goes wrong with a server, and which of it passes."""

from __future__ import annotations

import asyncio
import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)


class UnwritableError(ResponseError):
    """The server takes no writes for now: its disk fails (MISCONF), or too few replicas follow it."""


REDIS_TROUBLE: tuple[type[BaseException], ...] = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    UnwritableError,
    ClusterDownError,
    TryAgainError,
    MasterNotFoundError,
    OSError,
    asyncio.TimeoutError,
)
"""What to back off from and try again: the server is away, starting, failing over, full or moving slots."""

_BY_CODE: dict[str, type[ResponseError]] = {
    "OOM": OutOfMemoryError,
    "READONLY": ReadOnlyError,
    "MISCONF": UnwritableError,
    "NOREPLICAS": UnwritableError,
}
# Before 7.0 the error of a command in a script carries its code somewhere inside.
_CODE = re.compile(r"(?:^|: -|\*)(" + "|".join(_BY_CODE) + r") ")


def settled(error: ResponseError) -> ResponseError:
    """The same error, by the class that its code stands for on every version."""
    if type(error) is not ResponseError:
        return error
    text = str(error)
    match = _CODE.search(text)
    return _BY_CODE[match[1]](text) if match else error


__all__ = [
    "REDIS_TROUBLE",
    "NoScriptError",
    "RedisError",
    "ResponseError",
    "UnwritableError",
    "settled",
]
