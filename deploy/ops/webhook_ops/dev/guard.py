"""Ends the runner's processes when the runner itself is gone.

Runs as a small process of its own: its standard input is a pipe whose other end only the runner holds.
Each line names a process group, `+123` when it begins and `-123` when it has ended. The pipe closes when
the runner ends, however it ends, and then whatever is left is terminated. (PR_SET_PDEATHSIG would reach
only direct children, only on Linux, and is tied to a thread.)

Uses the standard library alone and is run by path, so that it starts fast and needs nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable

PATIENCE_S = 5.0
POLL_S = 0.05


def alive(groups: Iterable[int]) -> set[int]:
    """Those of the process groups that still have a member."""
    return {group for group in groups if reached(group, 0)}


def reached(group: int, signal_number: int) -> bool:
    """Signal a process group; False where it has no member (any more)."""
    if group <= 1:
        # 0 would be our own group and 1 init's.
        return False
    try:
        os.killpg(group, signal_number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end(groups: set[int]) -> None:
    """Terminate the groups, and kill those that do not go in time."""
    clock = threading.Event()
    for group in groups:
        reached(group, signal.SIGTERM)
    for _ in range(int(PATIENCE_S / POLL_S)):
        groups = alive(groups)
        if not groups:
            return
        clock.wait(POLL_S)
    for group in groups:
        reached(group, signal.SIGKILL)


def main() -> None:
    """Keep the list of groups until the pipe closes, then end them."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    end(groups)


if __name__ == "__main__":
    main()
