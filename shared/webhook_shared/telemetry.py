"""Logs, traces and the /metrics page, set up once per process.

Logs are structlog's: one JSON object per line, or readable lines on a terminal. Traces exist only where
an OTLP endpoint is configured; without one every span here is a no-op that costs next to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIServer

import prometheus_client
import structlog
from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, TraceFlags

from webhook_shared.settings import LoggingSection, TracingSection

log = structlog.get_logger()

_tracer = trace.get_tracer("webhook")
_TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_SENSITIVE = re.compile(
    r"secret|password|passwd|passphrase|token|authorization|api_?key|master_?key|private|credential|signature"
    r"|cookie|payload|body$",
    re.IGNORECASE,
)
# What is a credential by its own look, wherever it stands: our keys, Standard Webhooks' secrets, what follows
# "Bearer", and the user and password of a URL.
_CREDENTIAL = re.compile(
    r"whk_[0-9a-f]+_[\w-]{8,}|whsec_[\w+/=-]{8,}|(?i:\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}|(?<=://)[^/\s@]+(?=@)"
)
REDACTED = "***"


class _State:
    tracing = False


def configure_logging(service: str, settings: LoggingSection) -> None:
    """Send structlog and the standard library's logging down the same road, to stderr."""
    pretty = settings.format == "pretty" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        stack_only,
        redact,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    # These say at INFO what their callers say better.
    for chatty in ("httpx", "httpx2", "httpcore", "openai", "opentelemetry", "grpc", "asyncio"):
        logging.getLogger(chatty).setLevel("WARNING")
    structlog.contextvars.bind_contextvars(service=service)


def stack_only(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Of an exception keep its kind and where it was raised; its text may quote a payload or a secret."""
    found = event.pop("exc_info", None)
    if found is True:
        found = sys.exc_info()[1]
    elif isinstance(found, tuple):
        found = found[1]
    if isinstance(found, BaseException):
        event["error"] = type(found).__name__
        event["stack"] = "".join(traceback.format_tb(found.__traceback__))
    return event


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Blank the values of keys that sound like secrets or payloads, and credentials wherever they stand."""
    for key, value in event.items():
        event[key] = _redacted(key, value)
    return event


def _redacted(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        # What stands in something secret is secret, whatever it is called there.
        known = key if _SENSITIVE.search(key) else ""
        return {inner: _redacted(known or _name(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        # Headers are often written as pairs.
        if len(value) == 2 and isinstance(value[0], str | bytes) and _SENSITIVE.search(_name(value[0])):
            return [value[0], REDACTED]
        return [_redacted(key, item) for item in value]
    if isinstance(value, str | bytes) and _SENSITIVE.search(key):
        return REDACTED
    return _CREDENTIAL.sub(REDACTED, value) if isinstance(value, str) else value


def _name(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _add_trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
    return event


@contextmanager
def tracing(service: str, settings: TracingSection) -> Iterator[None]:
    """Export traces while inside, if an endpoint is configured."""
    if not (settings.enabled and settings.endpoint):
        yield
        return
    provider = _exporting(f"{settings.service_name or 'webhook'}-{service}", settings)
    trace.set_tracer_provider(provider)
    _State.tracing = True
    try:
        yield
    finally:
        _State.tracing = False
        provider.shutdown()


def _exporting(service: str, settings: TracingSection) -> Any:
    # Slow to import, and needed only where traces are made.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: service}),
        sampler=ParentBased(TraceIdRatioBased(settings.sampling_rate)),
    )
    exporter = OTLPSpanExporter(
        endpoint=settings.endpoint, insecure=not settings.endpoint.startswith("https")
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


def tracing_is_on() -> bool:
    """Whether spans go anywhere."""
    return _State.tracing


@contextmanager
def span(
    name: str, parent: str = "", *, start_ns: int | None = None, **attributes: str | float | bool
) -> Iterator[Span]:
    """A span around a piece of work.

    Args:
        name: "webhook.process".
        parent: A traceparent; empty means the span that is current here.
        start_ns: Unix time at which the work began, where that was before now.
        attributes: Ids and counts; never a payload or a secret: such are blanked as in logs.
    """
    if not _State.tracing:
        yield trace.INVALID_SPAN
        return
    context = None
    if parent:
        remote = _parse(parent)
        if remote is not None:
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
    told = {key: _redacted(key, value) for key, value in attributes.items()}
    # Of an exception only the kind is kept: its text may quote a payload or a secret.
    with _tracer.start_as_current_span(
        name,
        context=context,
        attributes=told,
        start_time=start_ns,
        record_exception=False,
        set_status_on_exception=False,
    ) as started:
        try:
            yield started
        except Exception as error:
            started.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise


def traceparent() -> str:
    """The current span as W3C trace context; empty where there is none."""
    if not _State.tracing:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_sampled(parent: str) -> bool:
    """Whether a traceparent belongs to a trace that is recorded."""
    if not _State.tracing:
        return False
    match = _TRACEPARENT.match(parent)
    # A mask: the other flags say other things, such as that the trace id is random.
    return match is not None and bool(int(match[3], 16) & TraceFlags.SAMPLED)


def _parse(parent: str) -> SpanContext | None:
    match = _TRACEPARENT.match(parent)
    if match is None:
        return None
    return SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16)),
    )


class PageError(Exception):
    """The page can't be served."""


@contextmanager
def metrics_page(address: str) -> Iterator[None]:
    """Serve /metrics on host:port while inside; nothing where the address is empty.

    Raises:
        PageError: The port is taken.
    """
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server: WSGIServer
        thread: Thread
        server, thread = prometheus_client.start_http_server(int(port), addr=host)
    except OSError as error:
        raise PageError(f"can't serve /metrics on {address}: {error.strerror}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_loop_lag = prometheus_client.Gauge(
    "webhook_loop_lag_seconds", "How much later than asked for the event loop woke up, last time it looked."
)
_LAG_PERIOD_S = 1.0


def show_loop_lag(seconds: float) -> None:
    """Show how late the event loop is, told by somebody who need not wait for it."""
    _loop_lag.set(seconds)


async def watch_loop() -> None:
    """Measure, for as long as it runs, how late the event loop is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_PERIOD_S
        await asyncio.sleep(_LAG_PERIOD_S)
        _loop_lag.set(max(0.0, loop.time() - due))
