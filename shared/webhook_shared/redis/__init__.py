"""The one place that opens Redis (or Valkey) connections, loads scripts and knows its failures.

What it speaks to may be a single server, a master behind Sentinels or a Cluster; nobody beyond this package
needs to know which. See docs/redis.md.
"""

from redis.asyncio.client import Pipeline

from webhook_shared.redis.backoff import Backoff
from webhook_shared.redis.capabilities import Server, look
from webhook_shared.redis.client import Client, WrongForm
from webhook_shared.redis.cluster import slot_of
from webhook_shared.redis.errors import (
    REDIS_TROUBLE,
    NoScriptError,
    RedisError,
    ResponseError,
    UnwritableError,
)
from webhook_shared.redis.opening import connect, guard, opened, ping
from webhook_shared.redis.script import Script

__all__ = [
    "REDIS_TROUBLE",
    "Backoff",
    "Client",
    "NoScriptError",
    "Pipeline",
    "RedisError",
    "ResponseError",
    "Script",
    "Server",
    "UnwritableError",
    "WrongForm",
    "connect",
    "guard",
    "look",
    "opened",
    "ping",
    "slot_of",
]
