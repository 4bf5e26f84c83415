"""What a server is and what it can: asked of it, never concluded from its version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from webhook_shared.redis.client import Client
from webhook_shared.redis.errors import REDIS_TROUBLE

WAITAOF = "WAITAOF"

NEEDED = ("EVALSHA", "XAUTOCLAIM", "LPOS")
"""Commands of 6.2: whoever lacks one is older than what we support, or something else."""
OPTIONAL = (WAITAOF, "FUNCTION", "HEXPIRE", "XACKDEL", "XDELEX", "XCFGSET", "XNACK", "CLUSTER")
"""Commands that came later, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class Server:
    """One server, or a Cluster, which can what its least able master can.

    Attributes:
        vendor: "redis" or "valkey".
        version: The vendor's own; several are separated by commas.
        form: "single", "sentinel" or "cluster".
        masters: How many.
        commands: Those of OPTIONAL that it has.
        missing: Those of NEEDED that it lacks.
        settings_readable: Whether we may CONFIG GET.
        waits_for_disk: It has WAITAOF, and keeps an append-only file as far as we may know.
        always_on_disk: It answers nothing that it has not synced.
    """

    vendor: str
    version: str
    form: str
    masters: int
    commands: frozenset[str]
    missing: frozenset[str]
    settings_readable: bool
    waits_for_disk: bool
    always_on_disk: bool

    def __str__(self) -> str:
        return f"{self.vendor} {self.version}, {self.form}"


async def look(client: Client) -> Server:
    """Ask.

    Raises:
        REDIS_TROUBLE: Nobody answers.
        WrongForm: See `Client.as_cluster`.
    """
    facts = [_facts(reply) for reply in (await client.at_each("INFO", "server")).values()]
    commands = await _commands(client)
    appends = await setting_at_each(client, "appendonly")
    syncs = await setting_at_each(client, "appendfsync")
    readable = bool(appends)
    keeps_file = set(appends.values()) == {"yes"}
    return Server(
        vendor=next(("valkey" for each in facts if "valkey_version" in each), "redis"),
        version=",".join(
            sorted({each.get("valkey_version") or each.get("redis_version", "?") for each in facts})
        ),
        form=await client.form(),
        masters=len(facts),
        commands=commands & frozenset(OPTIONAL),
        missing=frozenset(NEEDED) - commands,
        settings_readable=readable,
        # Where we may not ask, WAITAOF itself will say whether it works.
        waits_for_disk=WAITAOF in commands and (keeps_file or not readable),
        always_on_disk=keeps_file and set(syncs.values()) == {"always"},
    )


async def setting_at_each(client: Client, name: str) -> dict[str, str]:
    """The value of one setting at every master, by address; of those that may be asked."""
    found = {}
    for address, reply in (await client.at_each("CONFIG GET", name)).items():
        if isinstance(reply, REDIS_TROUBLE):
            raise reply
        if isinstance(reply, list) and len(reply) == 2:
            found[address] = reply[1].decode()
    return found


async def _commands(client: Client) -> frozenset[str]:
    names = (*NEEDED, *OPTIONAL)
    common = frozenset(names)
    for reply in (await client.at_each("COMMAND INFO", *names)).values():
        if isinstance(reply, REDIS_TROUBLE):
            raise reply
        if not isinstance(reply, list):
            # We may not ask: what every supported server has is there, nothing more is counted on.
            return frozenset((*NEEDED, WAITAOF))
        common &= {name for name, row in zip(names, reply, strict=True) if row}
    return common


def _version(facts: Mapping[str, str]) -> str:
    return facts.get("valkey_version") or facts.get("redis_version") or "unknown"


def _facts(reply: Any) -> dict[str, str]:
    if isinstance(reply, REDIS_TROUBLE):
        raise reply
    if isinstance(reply, Exception):
        return {}
    return dict(line.split(":", 1) for line in reply.decode().splitlines() if ":" in line)
