"""Keeps processes running: starts them, starts them again after a crash, drains and ends them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from webhook_ops.dev import guard
from webhook_ops.dev.log_view import LogView

#: A process that can't use its configuration says why and ends with this; trying again changes nothing.
EXIT_CONFIGURATION = 2

FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 30.0
#: Up for this long, a process counts as healthy again and its next crash as the first one.
STABLE_AFTER_S = 30.0

_LINE_LIMIT_BYTES = 64 * 1024
_LAST_LINES = 20


@dataclass(frozen=True)
class Command:
    """What to run.

    Attributes:
        name: Short and unique; stands before each line of its log.
        argv: Program and arguments.
        env: Its whole environment.
        drain_s: How long it may take to end after SIGTERM before it is killed; seconds.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    drain_s: float = 12.0


class Child:
    """One process that is to be running.

    Attributes:
        pid: Of the running process; 0 while there is none.
        failure: Why it is not started any more; empty while it is.
        proved: Set by whoever has seen it work: from then on every end of it is a crash, not a refusal.
        restarts: How often it was started again.
        last_lines: The end of what it wrote.
    """

    def __init__(
        self, command: Command, *, log: LogView, watch: Watch, on_change: Callable[[], None]
    ) -> None:
        self.command = command
        self.pid = 0
        self.failure = ""
        self.proved = False
        self.restarts = 0
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = log
        self._watch = watch
        self._on_change = on_change
        self._leaving = asyncio.Event()
        self._killed_by_us = False
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it and keep it running until `stop`.

        Raises:
            OSError: The program can't be executed.
        """
        process = await self._spawn()
        self._keeper = asyncio.create_task(self._keep(process), name=f"keeper of {self.command.name}")

    def kill(self) -> None:
        """End it at once with SIGKILL, whole group; it is started again without delay."""
        if self._process is not None and self._process.returncode is None:
            self._killed_by_us = True
            self.pid = 0
            self._kill_group()

    async def stop(self) -> None:
        """Ask it to finish, and kill it if it takes longer than it may."""
        self._leaving.set()
        if self._keeper is None:
            return
        self._terminate()
        done, _ = await asyncio.wait({self._keeper}, timeout=self.command.drain_s)
        if not done:
            self._log.say(
                f"{self.command.name} did not end within {self.command.drain_s:g} s: killing it",
                level="warning",
            )
            self._kill_group()
        await self._keeper

    def _kill_group(self) -> None:
        if self._process is not None:
            guard.reached(self._process.pid, signal.SIGKILL)

    def _terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    async def _keep(self, process: asyncio.subprocess.Process) -> None:
        crashes = 0
        while True:
            begun = time.monotonic()
            code = await process.wait()
            self._ended(process.pid)
            if self._leaving.is_set():
                return
            if code == EXIT_CONFIGURATION and not self.proved:
                self._give_up(f"{self.command.name} can't use its configuration")
                return
            if time.monotonic() - begun > STABLE_AFTER_S:
                crashes = 0
            if not await self._pause(code, crashes):
                return
            crashes += 0 if self._killed_by_us else 1
            self._killed_by_us = False
            self.restarts += 1
            try:
                process = await self._spawn()
            except OSError as error:
                self._give_up(f"{self.command.name} can't be executed ({error.strerror})")
                return

    def _give_up(self, why: str) -> None:
        self.failure = why
        self._log.say(f"{why}; it is not started again", level="error")
        self._on_change()

    async def _pause(self, code: int, crashes: int) -> bool:
        """Wait before the next start; False where there is to be none."""
        if self._killed_by_us:
            self._log.say(f"{self.command.name} was killed on request; starting it again", level="warning")
            return True
        delay_s = min(FIRST_DELAY_S * 2**crashes, LONGEST_DELAY_S)
        self._log.say(
            f"{self.command.name} {how_it_ended(code)}; starting it again in {delay_s:g} s", level="error"
        )
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), delay_s)
        return not self._leaving.is_set()

    async def _spawn(self) -> asyncio.subprocess.Process:
        reading, writing = os.pipe()
        try:
            # A session of its own: Ctrl-C reaches the runner alone, and the group can be killed whole.
            process = await asyncio.create_subprocess_exec(
                *self.command.argv,
                env=dict(self.command.env),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self._watch.begun(process.pid)
        self._process, self.pid = process, process.pid
        await _follow(reading, self._line)
        if self._leaving.is_set():
            self._terminate()
        self._on_change()
        return process

    def _ended(self, group: int) -> None:
        # What it may have left running (workers of a killed parent) must not hold its ports.
        guard.reached(group, signal.SIGKILL)
        self._watch.ended(group)
        self.pid = 0
        self._on_change()

    def _line(self, raw: bytes) -> None:
        self.last_lines.append(raw.decode("utf-8", "replace"))
        self._log.line(self.command.name, raw)


class Watch:
    """The runner's end of the guard's pipe: what is written there outlives the runner."""

    def __init__(self) -> None:
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(  # noqa: S603  # our own file
            [sys.executable, "-I", "-S", str(Path(guard.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._guard is not None
        self._guard.communicate()

    def begun(self, group: int) -> None:
        """A process group has begun."""
        self._tell(f"+{group}\n")

    def ended(self, group: int) -> None:
        """A process group has ended; its number may come again for somebody else's."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()


class Supervisor:
    """All processes of one system.

    Args:
        log: Where their lines and the supervisor's own go.
        on_change: Called when a process has begun or ended.
    """

    def __init__(self, log: LogView, on_change: Callable[[], None] = lambda: None) -> None:
        self.children: dict[str, Child] = {}
        self._log = log
        self._on_change = on_change
        self._watch = Watch()

    async def __aenter__(self) -> Self:
        self._watch.__enter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(*self.children)
        self._watch.__exit__()

    async def start(self, command: Command) -> Child:
        """Start a process and keep it running.

        Raises:
            OSError: The program can't be executed.
        """
        child = Child(command, log=self._log, watch=self._watch, on_change=self._on_change)
        self.children[command.name] = child
        await child.start()
        return child

    async def stop(self, *names: str) -> None:
        """Drain these processes side by side; those that never began or have ended are left out."""
        await asyncio.gather(*(self.children.pop(name).stop() for name in names if name in self.children))


def how_it_ended(code: int) -> str:
    """In words: "ended with code 1", "was ended by SIGKILL"."""
    if code >= 0:
        return f"ended with code {code}"
    return f"was ended by {signal.Signals(-code).name}"


async def _follow(reading: int, line: Callable[[bytes], None]) -> None:
    """Give each line that arrives on a pipe to `line`, until all its writers are gone."""
    pipe = os.fdopen(reading, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: _Lines(line), pipe)


class _Lines(asyncio.Protocol):
    """Cuts a stream of bytes into lines; a line beyond the limit is shown in pieces."""

    def __init__(self, line: Callable[[bytes], None]) -> None:
        self._line = line
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_LIMIT_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                self._line(line)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest.strip():
            self._line(self._rest)
