"""A whole system for the suite, started as a user starts it, and the command line beside it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.ops.tests.harness import Cli, Runner, clean_environment


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    """A runner of one's own, not started yet."""
    made = Runner(tmp_path / "var")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A system that is up, for all tests that only use it."""
    made = Runner(tmp_path_factory.mktemp("ops") / "var").start()
    try:
        yield made.up()
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            made.stop()


@pytest.fixture
def cli(running: Runner) -> Cli:
    """The command line, looking at the running system."""
    return Cli(clean_environment(WEBHOOK_VAR=str(running.var)))


@pytest.fixture
def lonely_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The command line where nothing runs."""
    monkeypatch.chdir(tmp_path)
    nowhere = {
        f"WEBHOOK_{service}_ADDRESS": "127.0.0.1:1"
        for service in ("GATEWAY", "SECURITY", "CONSUMER", "INTELLIGENCE", "CONTEXT")
    }
    return Cli(clean_environment(WEBHOOK_HTTP_URL="http://127.0.0.1:1", **nowhere))
