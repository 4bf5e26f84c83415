"""One log of many processes: readable, aligned, and harmless whatever a sender wrote."""

from __future__ import annotations

import io

import orjson
from webhook_ops.dev.log_view import LogView, render


def test_a_json_line_becomes_time_level_event_and_pairs() -> None:
    raw = orjson.dumps(
        {
            "timestamp": "2026-11-22T10:11:12.345678Z",
            "level": "info",
            "event": "publish.done",
            "service": "gateway",
            "count": 3,
            "tool": "github",
            "why": "two words",
        }
    )
    level, text = render(raw)
    assert level == "info"
    assert text.split(None, 1)[1] == 'info     publish.done  count=3 tool=github why="two words"'


def test_a_traceback_stands_below_its_line() -> None:
    raw = orjson.dumps({"level": "error", "event": "boom", "exception": "Traceback\n  File x\nValueError"})
    level, text = render(raw)
    assert level == "error"
    assert [line.strip() for line in text.split("\n")] == [
        "error    boom",
        "Traceback",
        "File x",
        "ValueError",
    ]


def test_redis_lines_are_read() -> None:
    level, text = render(b"4711:M 22 Nov 2026 21:24:00.123 # Warning: overcommit")
    assert level == "warning"
    assert text == "21:24:00.123 warning  Warning: overcommit"


def test_control_characters_of_strangers_are_shown_not_obeyed() -> None:
    screen = io.StringIO()
    log = LogView(screen)
    log.line("gateway", orjson.dumps({"event": "seen", "title": "\x1b[2J\rgone\u202e"}))
    log.line("gateway", b"\x1b[2J raw")
    assert "\x1b" not in screen.getvalue()
    assert "\r" not in screen.getvalue()
    assert "\u202e" not in screen.getvalue()


def test_quiet_shows_only_what_is_loud() -> None:
    screen = io.StringIO()
    log = LogView(screen, quiet=True)
    log.line("gateway", orjson.dumps({"event": "calm", "level": "info"}))
    log.line("gateway", orjson.dumps({"event": "storm", "level": "warning"}))
    assert "calm" not in screen.getvalue()
    assert "storm" in screen.getvalue()


def test_names_have_one_width() -> None:
    screen = io.StringIO()
    log = LogView(screen)
    for name in ("redis", "intelligence", "gateway"):
        log.line(name, b"line")
    assert len({line.index("│") for line in screen.getvalue().splitlines()}) == 1


def test_a_closed_pipe_does_not_stop_the_runner() -> None:
    class Broken(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    log = LogView(Broken())
    log.say("one")
    log.say("two")
