"""Where a running system is: `var/addresses.json`, written by the runner, read by everybody else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

VAR_VARIABLE = "WEBHOOK_VAR"
DEFAULT_VAR = Path("var")

#: In the order in which they are started; those on the left need nobody on the right to be ready.
SERVICES = ("security", "context", "intelligence", "consumer", "gateway")

_FILE_NAME = "addresses.json"


@dataclass(frozen=True)
class Process:
    """One process of the system.

    Attributes:
        pid: Process id; 0 while it is down.
        grpc: host:port of its gRPC server; empty for Redis.
        metrics: host:port of its /metrics; empty for Redis.
    """

    pid: int
    grpc: str = ""
    metrics: str = ""


@dataclass(frozen=True)
class Addresses:
    """A whole system.

    Attributes:
        runner_pid: The process that started it and watches over it.
        http: Base URL of the HTTP edge, without a slash at its end.
        redis: host:port of the durable Redis, or several with commas.
        processes: By name: the services, and "redis" where it is embedded.
    """

    runner_pid: int
    http: str
    redis: str
    processes: Mapping[str, Process]

    def grpc(self, service: str) -> str:
        """host:port of a service's gRPC server."""
        return self.processes[service].grpc

    def write(self, var: Path) -> None:
        """Replace the file in one step, so that nobody reads half of it."""
        file = var / _FILE_NAME
        draft = file.with_suffix(f".{os.getpid()}.tmp")
        draft.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")
        draft.replace(file)

    @staticmethod
    def remove(var: Path) -> None:
        """Say that nothing runs (any more)."""
        (var / _FILE_NAME).unlink(missing_ok=True)

    @classmethod
    def read(cls, var: Path) -> Addresses | None:
        """The system that runs on this directory; None where none does."""
        try:
            tree = orjson.loads((var / _FILE_NAME).read_bytes())
            found = cls(
                runner_pid=tree["runner_pid"],
                http=tree["http"],
                redis=tree["redis"],
                processes={name: Process(**process) for name, process in tree["processes"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if _alive(found.runner_pid) else None


def default_var(environ: Mapping[str, str]) -> Path:
    """The directory that holds a system's state: WEBHOOK_VAR, else ./var."""
    return Path(environ.get(VAR_VARIABLE) or DEFAULT_VAR)


def service_variable(service: str) -> str:
    """The environment variable of a service's address."""
    return f"WEBHOOK_{service.upper()}_ADDRESS"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
