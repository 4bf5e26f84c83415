"""The supervisor, on tiny stand-in commands: restarts, drains, kills, and never leaves orphans."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from webhook_ops.dev import supervisor as module
from webhook_ops.dev.log_view import LogView
from webhook_ops.dev.supervisor import Child, Command, Supervisor

WAIT_S = 10.0

FOREVER = "import signal\nprint('up', flush=True)\nwhile True: signal.pause()"
DRAINS = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('drained', flush=True), sys.exit(0)))\n"
    "print('up', flush=True)\nwhile True: signal.pause()"
)
STUBBORN = (
    "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\n"
    "while True: signal.pause()"
)


def command(name: str, script: str, **fields: float) -> Command:
    return Command(name, (sys.executable, "-c", script), dict(os.environ), **fields)


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose new parent has not looked yet is dead enough.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


async def up(child: Child) -> None:
    await until(lambda: "up" in child.last_lines)


async def test_a_crashed_process_is_started_again_and_said_so(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", FOREVER))
        await up(child)
        first = child.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: child.pid not in {0, first})
    assert child.restarts == 1
    assert "worker was ended by SIGKILL; starting it again in 0.25 s" in screen.getvalue()


async def test_each_crash_in_a_row_waits_twice_as_long(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", "raise SystemExit(7)"))
        await until(lambda: child.restarts >= 2)
    said = screen.getvalue()
    assert "worker ended with code 7; starting it again in 0.25 s" in said
    assert "worker ended with code 7; starting it again in 0.5 s" in said


async def test_a_kill_on_request_is_no_crash(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", FOREVER))
        for _ in range(3):
            first = child.pid
            child.kill()
            await until(lambda first=first: child.pid not in {0, first})
    assert "starting it again in" not in screen.getvalue()


async def test_a_refused_configuration_is_not_tried_again(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", "print('REDIS_X: no'); raise SystemExit(2)"))
        await until(lambda: child.failure)
        assert child.restarts == 0
    assert "worker can't use its configuration; it is not started again" in screen.getvalue()
    assert list(child.last_lines) == ["REDIS_X: no"]


async def test_what_worked_once_is_started_again_whatever_its_code(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", "import time, sys; time.sleep(0.3); sys.exit(2)"))
        child.proved = True
        await until(lambda: child.restarts == 1)


async def test_stop_lets_a_process_finish(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", DRAINS))
        await up(child)
    await until(lambda: "drained" in child.last_lines)


async def test_stop_kills_what_does_not_end_in_time(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", STUBBORN, drain_s=0.3))
        await up(child)
        pid = child.pid
    assert not alive(pid)
    assert "worker did not end within 0.3 s: killing it" in screen.getvalue()


async def test_a_process_that_waits_for_its_next_start_can_be_stopped(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", "raise SystemExit(1)"))
        await until(lambda: child.restarts >= 2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5


async def test_a_killed_process_takes_its_own_children_along(screen: io.StringIO, tmp_path: Path) -> None:
    grandchild = tmp_path / "pid"
    script = (
        "import subprocess, sys, signal\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        f"open({str(grandchild)!r}, 'w').write(str(child.pid))\n"
        "print('up', flush=True)\nsignal.pause()"
    )
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", script))
        await up(child)
        first = int(grandchild.read_text())
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: not alive(first))


async def test_lines_that_are_too_long_are_cut_and_the_rest_goes_on(screen: io.StringIO) -> None:
    too_long = module._LINE_LIMIT_BYTES * 3
    script = f"import signal\nprint('x' * {too_long})\nprint('after', flush=True)\nsignal.pause()"
    async with Supervisor(LogView(screen)) as supervisor:
        child = await supervisor.start(command("worker", script))
        await until(lambda: "after" in child.last_lines)


async def test_a_program_that_is_not_there_is_told_at_once(screen: io.StringIO) -> None:
    async with Supervisor(LogView(screen)) as supervisor:
        with pytest.raises(FileNotFoundError):
            await supervisor.start(Command("worker", ("/no/such/program",), {}))


async def test_the_children_die_with_a_killed_runner(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    runner = tmp_path / "runner.py"
    runner.write_text(
        f"""
import asyncio, io, os, sys
from webhook_ops.dev.log_view import LogView
from webhook_ops.dev.supervisor import Command, Supervisor

async def main():
    async with Supervisor(LogView(io.StringIO())) as supervisor:
        children = [
            await supervisor.start(Command(f"w{{i}}", (sys.executable, "-c", {FOREVER!r}), dict(os.environ)))
            for i in range(3)
        ]
        with open({str(pids)!r}, "w") as file:
            file.write(" ".join(str(child.pid) for child in children) + " .")
        await asyncio.sleep(60)

asyncio.run(main())
"""
    )
    process = await asyncio.create_subprocess_exec(sys.executable, str(runner))
    await until(lambda: pids.exists() and pids.read_text().endswith("."))
    children = [int(pid) for pid in pids.read_text().split()[:-1]]
    assert all(alive(pid) for pid in children)
    process.kill()
    await process.wait()
    await until(lambda: not any(alive(pid) for pid in children))
