"""One readable log of many processes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, TextIO

import orjson

from webhook_ops.plain_text import visible

RUNNER = "runner"

_NAME_WIDTH = 12
_COLOURS = {
    RUNNER: "1;37",
    "redis": "31",
    "security": "35",
    "context": "34",
    "intelligence": "36",
    "consumer": "33",
    "gateway": "32",
}
_LEVEL_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}
_LOUD = frozenset({"warning", "error", "critical"})
_RESET = "\x1b[0m"

#: `1234:M 22 Nov 2026 21:24:00.123 * Ready to accept connections tcp`
_REDIS_LINE = re.compile(r"^\d+:[A-Z] \d+ \w+ \d+ (\d\d:\d\d:\d\d\.\d+) ([.\-*#]) (.*)$")
_REDIS_LEVELS = {".": "debug", "-": "debug", "*": "info", "#": "warning"}

#: Said elsewhere on the line, or the same on every line of a process.
_HIDDEN_KEYS = frozenset({"timestamp", "time", "level", "event", "service", "logger"})
_PLAIN_VALUE = re.compile(r"^[\x21\x23-\x3c\x3e-\x7e]+$")


class LogView:
    """Writes what the processes say, each line with a fixed-width name before it.

    Args:
        stream: Where to.
        colour: Whether the stream shows ANSI colours.
        quiet: Show only warnings and errors of the processes.
    """

    def __init__(self, stream: TextIO, *, colour: bool = False, quiet: bool = False) -> None:
        self._stream = stream
        self._colour = colour
        self._quiet = quiet
        self._broken = False

    def line(self, name: str, raw: bytes) -> None:
        """One line as a process wrote it: JSON, Redis's own form, or anything."""
        level, text = render(raw)
        if self._quiet and level not in _LOUD:
            return
        self._write(name, level, text)

    def say(self, text: str, *, level: str = "info") -> None:
        """A line of the runner itself."""
        self._write(RUNNER, level, f"{_now()} {level:<8} {text}")

    def plain(self, text: str) -> None:
        """Text with nothing before it."""
        self._emit(f"{text}\n")

    def _write(self, name: str, level: str, text: str) -> None:
        prefix = self._painted(f"{name:<{_NAME_WIDTH}} │", _COLOURS.get(name, "37"))
        for part in text.split("\n"):
            self._emit(f"{prefix} {self._painted(part, _LEVEL_COLOURS.get(level, ''))}\n")

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}{_RESET}" if self._colour and colour else text

    def _emit(self, text: str) -> None:
        if self._broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            # The reader is gone (a closed pipe): the system goes on without being watched.
            self._broken = True


def render(raw: bytes) -> tuple[str, str]:
    """The level of a line and how people read it; several lines only where there is a traceback."""
    fields = _parsed(raw)
    if fields is not None:
        return _render_fields(fields)
    text = raw.decode("utf-8", "replace").rstrip()
    if match := _REDIS_LINE.match(text):
        level = _REDIS_LEVELS[match[2]]
        return level, f"{match[1][:12]} {level:<8} {visible(match[3])}"
    return "info", f"{'':<12} {'':<8} {visible(text)}"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    if not raw.startswith(b"{"):
        return None
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return fields if isinstance(fields, dict) and "event" in fields else None


def _render_fields(fields: Mapping[str, Any]) -> tuple[str, str]:
    level = str(fields.get("level", "info")).lower()
    time = _clock(str(fields.get("timestamp") or fields.get("time") or ""))
    trace = str(fields.get("exception", ""))
    pairs = " ".join(
        f"{key}={_shown(value)}"
        for key, value in fields.items()
        if key not in _HIDDEN_KEYS and key != "exception"
    )
    head = f"{time:<12} {level:<8} {visible(str(fields['event']))}"
    lines = [f"{head}  {pairs}" if pairs else head]
    lines += [f"{'':<21} {visible(line)}" for line in trace.splitlines()]
    return level, "\n".join(lines)


def _clock(timestamp: str) -> str:
    try:
        moment = dt.datetime.fromisoformat(timestamp)
    except ValueError:
        return ""
    return moment.astimezone().strftime("%H:%M:%S.%f")[:12]


def _now() -> str:
    return dt.datetime.now().astimezone().strftime("%H:%M:%S.%f")[:12]


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    if not isinstance(value, str) or _PLAIN_VALUE.match(text):
        return visible(text)
    return visible(orjson.dumps(text).decode())
