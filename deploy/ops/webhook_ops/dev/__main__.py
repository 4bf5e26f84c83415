"""`python -m webhook_ops.dev`: run everything until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from webhook_ops.addresses import VAR_VARIABLE
from webhook_ops.dev.banner import banner
from webhook_ops.dev.log_view import LogView
from webhook_ops.dev.problems import StartError
from webhook_ops.dev.system import running_system

EXIT_CANNOT_START = 1
EXIT_INTERRUPTED_TWICE = 130
#: make, timeout and shells pass a signal on to us that we have had already.
ECHO_S = 0.5


class Fsync(StrEnum):
    """How durable the embedded Redis is."""

    ALWAYS = "always"
    EVERYSEC = "everysec"


def run(
    var: Annotated[Path, typer.Option(envvar=VAR_VARIABLE, help="Where state is kept.")] = Path("var"),
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Take any free ports instead of the usual ones.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only warnings and errors.")] = False,
    fsync: Annotated[
        Fsync, typer.Option(help="always: nothing acknowledged is ever lost. everysec: at most a second.")
    ] = Fsync.EVERYSEC,
) -> None:
    """Run the whole system on this machine: Redis, security, context, intelligence, consumer, gateway.

    Ctrl-C lets everything finish and stops it; a second Ctrl-C kills. State survives in the directory
    that --var names. Settings come from the environment and ./config.yaml, as for each process.
    """
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    log = LogView(sys.stdout, colour=colour, quiet=quiet)
    try:
        asyncio.run(_until_signal(var, log, free_ports=free_ports, fsync=fsync))
    except StartError as error:
        for line in error.log:
            log.plain(f"  {line}")
        for problem in error.problems:
            log.say(problem, level="error")
        log.say("not started", level="error")
        sys.exit(EXIT_CANNOT_START)


async def _until_signal(var: Path, log: LogView, *, free_ports: bool, fsync: Fsync) -> None:
    serving = asyncio.current_task()
    assert serving is not None
    stopping_since = 0.0

    def signalled(number: signal.Signals) -> None:
        nonlocal stopping_since
        if not stopping_since:
            stopping_since = time.monotonic()
            log.say(f"{number.name}: draining (Ctrl-C again to kill)")
            serving.cancel()
        elif number is signal.SIGINT and time.monotonic() - stopping_since > ECHO_S:
            log.say("interrupted again: ending what is left", level="warning")
            # The guard sees our end of its pipe close and ends every process.
            os._exit(EXIT_INTERRUPTED_TWICE)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, signalled, number)
    try:
        async with running_system(var, log=log, free_ports=free_ports, fsync=fsync.value) as system:
            log.plain(banner(system))
            await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        if not stopping_since:
            raise
    log.say("stopped")


if __name__ == "__main__":
    typer.run(run)
