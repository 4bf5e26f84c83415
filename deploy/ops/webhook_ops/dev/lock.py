"""One system per directory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from webhook_ops.dev.problems import StartError


@contextmanager
def owned(var: Path) -> Iterator[None]:
    """Make the directory and hold it for as long as this process lives.

    Raises:
        StartError: Another system runs on it, or it can't be written.
    """
    try:
        var.mkdir(mode=0o700, parents=True, exist_ok=True)
        var.chmod(0o700)
        descriptor = os.open(var / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError([f"{var} can't be used: {error.strerror}; choose another with --var"]) from None
    try:
        _take(descriptor, var)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, var: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20).decode() or "unknown"
        raise StartError(
            [f"a system runs on {var} already (process {holder}): end it, or choose another with --var"]
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
