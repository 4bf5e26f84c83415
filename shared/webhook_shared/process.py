"""The life of one process: settings, logs, traces, metrics, the service, and a clean end."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Never, TypeVar

import structlog
import uvloop

from webhook_shared import memory, telemetry
from webhook_shared import settings as configuration
from webhook_shared.tasks import ended

log = structlog.get_logger()

S = TypeVar("S", bound=configuration.ServiceSettings)

EXIT_CONFIGURATION = 2
# Made before Python looks for garbage; a batch of parsed webhooks makes tens of thousands.
YOUNG_OBJECTS = 50_000


def run(
    service: str, settings_type: type[S], running: Callable[[S], AbstractAsyncContextManager[object]]
) -> Never:
    """Run a service until SIGTERM or SIGINT, then let it drain.

    Args:
        service: "security".
        settings_type: Its settings; it has `observability` and `process`.
        running: The service is up while inside.

    Exits with 2 and one line per problem where the configuration can't be used.
    """
    try:
        settings = settings_type.load()
    except configuration.SettingsError as error:
        _refuse(service, error.problems)
    memory.keep_freed()
    observability, process = settings.observability, settings.process
    telemetry.configure_logging(service, observability.logging)
    for line in configuration.unfinished(settings):
        log.warning("settings.unfinished", key=line)
    try:
        with telemetry.tracing(service, observability.tracing):
            page = process.metrics_address if observability.metrics.enabled else ""
            with telemetry.metrics_page(page):
                uvloop.run(_until_signal(running(settings)))
    except (_NotStarted, telemetry.PageError) as error:
        _refuse(service, [str(error)])
    sys.exit(0)


class _NotStarted(Exception):
    """What the service needs is not there or not usable; the text says what to do."""


async def _until_signal(running: AbstractAsyncContextManager[object]) -> None:
    stop, up = asyncio.Event(), asyncio.Event()
    serving = asyncio.current_task()
    assert serving is not None

    def signalled() -> None:
        stop.set()
        if not up.is_set():
            # It still waits for something that may never come.
            serving.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    lag = asyncio.create_task(telemetry.watch_loop())
    try:
        async with running:
            up.set()
            collect_garbage_seldom()
            log.info("process.started")
            await stop.wait()
            log.info("process.draining")
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
    except (ValueError, RuntimeError) as error:
        if up.is_set():
            raise
        raise _NotStarted(str(error)) from error
    finally:
        await ended([lag])
    log.info("process.stopped")


def collect_garbage_seldom() -> None:
    """Set Python's collector to a process that makes thousands of short-lived objects and few cycles.

    What the start has made stays for good, so it is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _refuse(service: str, problems: list[str]) -> Never:
    for problem in problems:
        sys.stderr.write(f"{service}: {problem}\n")
    sys.stderr.write(f"{service}: not started; `webhook-cli config check` shows the effective settings\n")
    sys.exit(EXIT_CONFIGURATION)
