"""A clock that jumps, for those processes alone that are started with it."""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
LIBRARY = "clock.so"
COMPILERS = ("cc", "gcc", "clang")


class Clock:
    """Time of day of the processes that have its `environ`.

    Args:
        library: Made by `compiled`.
        file: Its state; made here.
    """

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set(0)
        self.environ: Mapping[str, str] = {"LD_PRELOAD": str(library), "LEDGER_CLOCK": str(file)}

    def set(self, ahead_s: int) -> None:
        """Have it be so many seconds ahead from now on; behind, if negative."""
        state = struct.pack("q", ahead_s)
        if self._file.exists():
            # In place: whoever runs has the file in memory.
            with self._file.open("r+b") as file:
                file.write(state)
        else:
            self._file.write_bytes(state)

    def is_of(self, pid: int) -> bool:
        """Whether a process has it."""
        return str(self._file) in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")

    @asynccontextmanager
    async def wrong(self, ahead_s: int) -> AsyncIterator[None]:
        """So many seconds ahead while inside, and right again afterwards."""
        self.set(ahead_s)
        try:
            yield
        finally:
            self.set(0)


async def compiled(directory: Path) -> Path | None:
    """The library that a clock needs; None where there is no C compiler."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        return None
    library = directory / LIBRARY
    making = await asyncio.create_subprocess_exec(
        compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)
    )
    assert await making.wait() == 0
    return library
