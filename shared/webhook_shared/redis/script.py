"""Lua scripts that ship with our packages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from webhook_shared.redis.client import Client
from webhook_shared.redis.cluster import Follow
from webhook_shared.redis.errors import NoScriptError

Call = tuple[Sequence[Any], Sequence[Any]]
"""The keys, all of one slot, and the arguments."""


class Script:
    """A Lua script that ships with a package, called by its digest and sent whole to where it is missing."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def load(cls, package: str, *names: str, shared: Sequence[str] = ()) -> Script:
        """The script made of `scripts/<name>.lua` of a package, one behind the other.

        Args:
            package: "webhook_consumer".
            names: The last one is the script, those before it what it calls.
            shared: As `names`, of this package, before all others.
        """
        parts = [
            *((__package__.partition(".")[0], name) for name in shared),
            *((package, name) for name in names),
        ]
        sources = (files(of) / "scripts" / f"{name}.lua" for of, name in parts)
        return cls("\n".join(source.read_text(encoding="utf-8") for source in sources))

    async def __call__(self, client: Client, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        """Run it once. May be repeated only if the script is idempotent: NOSCRIPT means it did not run."""
        (reply,) = await self.all(client, [(keys, args)])
        return reply

    async def all(self, client: Client, calls: Sequence[Call]) -> list[Any]:
        """As `batch`, where one error is everybody's: it is raised. No calls cost nothing."""
        replies = await self.batch(client, calls) if calls else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies

    async def batch(self, client: Client, calls: Sequence[Call]) -> list[Any]:
        """Run it once per call: one round trip (on a Cluster one per server), no transaction around them.

        Returns:
            A reply per call, in order; an error stands as an exception in its place.
        """
        replies, _ = await self.batch_then(client, calls, None)
        return replies

    async def batch_then(
        self, client: Client, calls: Sequence[Call], follow: Follow | None, *, timeout_s: float | None = None
    ) -> tuple[list[Any], list[list[Any]]]:
        """As `batch`, with commands behind the calls on the same connections, such as WAIT.

        Args:
            client: Where.
            calls: Keys and arguments.
            follow: These commands, by the first key of a call that the connection carried.
            timeout_s: As of `Client.run`.

        Returns:
            As of `batch`, and the replies to what followed, per connection.
        """
        known = [("EVALSHA", self._digest, len(keys), *keys, *args) for keys, args in calls]
        replies, after = await client.run(known, follow, timeout_s=timeout_s)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            whole = [("EVAL", self.source, *known[i][2:]) for i in missing]
            again, more = await client.run(whole, follow, timeout_s=timeout_s)
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
            after = [*after, *more]
        return replies, after
