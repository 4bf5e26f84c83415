"""What must never be written is not written, whoever logs it and however."""

import io
import json
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from webhook_shared import telemetry
from webhook_shared.settings import LoggingSection

PLANTED = "hunter2-planted"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    before = (root.handlers, root.level)
    telemetry.configure_logging("test", LoggingSection(format="json"))
    yield stream
    root.handlers, root.level = before[0], before[1]
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def raise_planted() -> None:
    raise KeyError(PLANTED)


def test_secrets_and_payloads_are_blanked_at_any_depth(written: io.StringIO) -> None:
    structlog.get_logger().info(
        "x", password=PLANTED, nested={"api_key": PLANTED, "body": PLANTED.encode()}, tool="github"
    )
    line = json.loads(written.getvalue())
    assert PLANTED not in written.getvalue()
    assert line["tool"] == "github"
    assert line["service"] == "test"


@pytest.mark.parametrize(
    "field",
    [
        "password",
        "passphrase",
        "client_secret",
        "secrets",
        "resume_token",
        "Authorization",
        "api_key",
        "master_key",
        "x-hub-signature-256",
        "signature",
        "set-cookie",
        "private_key",
        "request_body",
        "payload",
    ],
)
@pytest.mark.parametrize(
    "wrap", [str, str.encode, lambda planted: [planted], lambda planted: {"x": [planted]}]
)
def test_a_field_that_sounds_like_a_secret_is_blanked(
    written: io.StringIO, field: str, wrap: Callable[[str], object]
) -> None:
    value = wrap(PLANTED)
    structlog.get_logger().info("x", headers={field: value}, pairs=[(field, PLANTED), ("tool", "github")])
    if not isinstance(value, dict):
        structlog.get_logger().info("x", **{field: value})
    assert PLANTED not in written.getvalue()
    assert "github" in written.getvalue()


@pytest.mark.parametrize(
    "credential",
    [
        "whk_0a1b2c3d4e5f_hunter2-planted",
        "whsec_hunter2-planted",
        "Bearer hunter2-planted",
        "authorization: basic hunter2-planted",
        "postgresql://user:hunter2-planted@db.example/webhooks",
    ],
)
@pytest.mark.parametrize("foreign", [True, False])
def test_a_credential_is_blanked_wherever_it_stands(
    written: io.StringIO, credential: str, foreign: bool
) -> None:
    if foreign:
        logging.getLogger("some.library").warning("could not use %s, sorry", credential)
    else:
        structlog.get_logger().info("x", why=f"could not use {credential}, sorry", seen=[credential])
    assert PLANTED not in written.getvalue()
    assert "sorry" in written.getvalue()


def test_a_span_tells_no_secret_and_of_an_exception_only_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(telemetry, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(telemetry._State, "tracing", True)
    with (
        pytest.raises(KeyError),
        telemetry.span("x", token=PLANTED, url=f"https://u:{PLANTED}@example.com/", tool="github"),
    ):
        raise_planted()
    [span] = spans.get_finished_spans()
    assert PLANTED not in span.to_json()
    assert (span.attributes or {})["tool"] == "github"
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "KeyError")


@pytest.mark.parametrize("foreign", [True, False])
def test_of_an_exception_only_kind_and_place_are_written(written: io.StringIO, foreign: bool) -> None:
    try:
        raise_planted()
    except KeyError:
        if foreign:
            logging.getLogger("some.library").exception("it failed")
        else:
            structlog.get_logger().exception("it failed")
    line = json.loads(written.getvalue())
    assert PLANTED not in written.getvalue()
    assert line["error"] == "KeyError"
    assert "raise_planted" in line["stack"]


def test_a_span_costs_nothing_and_has_no_name_where_tracing_is_off() -> None:
    with telemetry.span("webhook.process", "00-" + "a" * 32 + "-" + "b" * 16 + "-01", tool="github"):
        assert telemetry.traceparent() == ""
