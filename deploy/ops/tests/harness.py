"""`python -m webhook_ops.dev` and `webhook-cli` as tests hold them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from typer.testing import CliRunner
from webhook_ops.addresses import Addresses
from webhook_ops.cli import app

UP_WITHIN_S = 90.0
ENDS_WITHIN_S = 60.0
BANNER_ENDS = "Ctrl-C drains"


def clean_environment(**more: str) -> dict[str, str]:
    """Nothing of ours but what a test says."""
    ours = ("WEBHOOK_", "REDIS_", "AI_", "S3_", "ENCRYPTION_", "OPENAI_", "OTEL_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "WEBHOOK_LOG_LEVEL": "info", **more}


def until(condition: Callable[[], Any], within_s: float = 30.0) -> Any:
    """What the condition gives once it is true; looks every tenth of a second."""
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.1)
    return found


@dataclass
class Runner:
    """`python -m webhook_ops.dev` as a process, and what it has printed."""

    var: Path
    environ: dict[str, str] = field(default_factory=clean_environment)
    arguments: tuple[str, ...] = ("--free-ports",)
    process: subprocess.Popen[bytes] | None = None

    @property
    def screen(self) -> str:
        return (self.var.parent / f"{self.var.name}.log").read_text(encoding="utf-8", errors="replace")

    @property
    def addresses(self) -> Addresses:
        found = Addresses.read(self.var)
        assert found is not None
        return found

    def start(self) -> Runner:
        with (self.var.parent / f"{self.var.name}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "webhook_ops.dev", "--var", str(self.var), *self.arguments],
                env=self.environ,
                stdout=log,
                stderr=log,
                cwd=self.var.parent,
            )
        return self

    def up(self) -> Runner:
        assert self.process is not None
        process = self.process
        until(lambda: BANNER_ENDS in self.screen or process.poll() is not None, UP_WITHIN_S)
        assert BANNER_ENDS in self.screen, self.screen
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(ENDS_WITHIN_S)


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """`webhook-cli`, in this process: a fresh one takes a second to start."""

    environ: dict[str, str]

    def __call__(self, *arguments: str, stdin: bytes = b"", **environ: str) -> Ran:
        done = CliRunner().invoke(
            app, list(arguments), input=stdin, env=self._whole({**self.environ, **environ})
        )
        # An exception that is no exit is a bug: show it as what it is.
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    @staticmethod
    def _whole(environ: dict[str, str]) -> dict[str, str | None]:
        """The environment that is to hold, with what is set here and not there taken away."""
        return {**dict.fromkeys(os.environ), **environ}
