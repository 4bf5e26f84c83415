"""What must never be written is not written, whoever logs it and however."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
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
