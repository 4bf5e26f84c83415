"""Runs the peers: queue so many events, then have one process of theirs handle them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = Path("var/bench/peers").resolve()
WITHIN_S = 120.0
POLL_S = 0.05


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        name: "faststream".
        command: Starts it; "fill" or "work" follows.
        python: Whether it is one of Python's.
        most: Events that it is given: the slow ones get fewer, so that a round takes seconds.
    """

    name: str
    command: tuple[str, ...]
    python: bool = True
    most: int = 20_000

    @property
    def is_installed(self) -> bool:
        """Whether `make peers` has been here."""
        return (INSTALLED / (self.name if self.python else "node_modules")).is_dir()


def _python(name: str, most: int) -> Peer:
    return Peer(name, (str(INSTALLED / name / "bin" / "python"), str(HERE / f"{name}_peer.py")), most=most)


PEERS = (
    _python("faststream", 20_000),
    _python("taskiq", 20_000),
    _python("streaq", 10_000),
    _python("arq", 4_000),
    _python("celery", 10_000),
    Peer("bullmq", ("node", str(HERE / "bullmq_peer.cjs")), python=False),
)


class PeerFailedError(Exception):
    """It did not handle all events in time."""


async def events_per_s(peer: Peer, redis: str, *, count: int, body_bytes: int) -> float:
    """How many events a second one process of a peer handles.

    Args:
        peer: Which.
        redis: host:port of an empty server.
        count: Events, but no more than suit the peer.
        body_bytes: Of text in each.

    Raises:
        PeerFailedError: It ended early, or took longer than WITHIN_S.
    """
    count = min(count, peer.most)
    with tempfile.TemporaryDirectory(prefix="webhook-bench-") as directory:
        result = Path(directory) / "result.json"
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": directory,
            "NODE_PATH": str(INSTALLED / "node_modules"),
            "BENCH_REDIS": redis,
            "BENCH_COUNT": str(count),
            "BENCH_BODY_BYTES": str(body_bytes),
            "BENCH_RESULT": str(result),
            "PYTHONWARNINGS": "ignore",
        }
        filling = await asyncio.create_subprocess_exec(*peer.command, "fill", env=environ)
        if await filling.wait():
            raise PeerFailedError(f"{peer.name} could not queue the events")
        working = await asyncio.create_subprocess_exec(
            *peer.command, "work", env=environ, start_new_session=True, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            return count / await _seconds(peer, working, result)
        finally:
            if working.returncode is None:
                os.killpg(working.pid, signal.SIGKILL)
            await working.wait()


async def _seconds(peer: Peer, working: asyncio.subprocess.Process, result: Path) -> float:
    try:
        async with asyncio.timeout(WITHIN_S):
            while working.returncode is None:
                if (seconds := _written(result)) is not None:
                    return seconds
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise PeerFailedError(f"{peer.name} took longer than {WITHIN_S:g} s") from None
    raise PeerFailedError(f"{peer.name} ended before it was done")


def _written(result: Path) -> float | None:
    text = result.read_text(encoding="utf-8") if result.exists() else ""
    return float(json.loads(text)["seconds"]) if text else None
