"""Bare HTTP servers beside each other: `python -m tests.bench.servers` (needs wrk; Debian has it).

Every server answers 202 to a POST of 7.7 KB on one core, asked over 64 connections; they take turns.
"""

from __future__ import annotations

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROUNDS = 3
SECONDS = 4
CONNECTIONS = 64
LUA = """
wrk.method = "POST"
wrk.body = string.rep("x", 7741)
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-GitHub-Event"] = "push"
wrk.headers["X-GitHub-Delivery"] = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
wrk.headers["X-Hub-Signature-256"] = "sha256=" .. string.rep("7", 64)
"""
QUIET = ["--log-level", "warning", "--no-access-log", "--port"]
GRANIAN = ["-m", "granian", "--loop", "uvloop", "--http", "1", "--workers", "1"]
SERVERS = {
    "uvicorn, ASGI": ["-m", "uvicorn", "tests.bench.servers.apps:asgi", "--http", "httptools", *QUIET],
    "Granian, ASGI": [*GRANIAN, "--interface", "asgi", "tests.bench.servers.apps:asgi", *QUIET],
    "Granian, RSGI": [*GRANIAN, "--interface", "rsgi", "tests.bench.servers.apps:rsgi", *QUIET],
    "ours, httptools": ["-m", "tests.bench.servers.apps"],
}


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(process: psutil.Process) -> float:
    """What a process and its children have used."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def listening(port: int) -> None:
    """Wait for a server."""
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)  # noqa: TID251  # the server is another process
    raise TimeoutError(f"nobody listens on {port}")


def measure(command: list[str], script: Path) -> tuple[float, float]:
    """Requests per second, and CPU per request in µs."""
    port = free_port()
    with subprocess.Popen([sys.executable, *command, str(port)]) as server:
        try:
            listening(port)
            process = psutil.Process(server.pid)
            before = cpu_s(process)
            load = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", str(script)]
            text = subprocess.run(
                [*load, f"http://127.0.0.1:{port}/webhooks/github"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            used = cpu_s(process) - before
        finally:
            server.terminate()
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+(\S+)", text)
    if not requests or not rate or "Non-2xx" in text:
        raise RuntimeError(text)
    return float(rate[1]), used / int(requests[1]) * 1e6


def main() -> None:
    """Print the medians."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "post.lua"
        script.write_text(LUA, encoding="utf-8")
        for _ in range(ROUNDS):
            for name, command in SERVERS.items():
                found[name].append(measure(command, script))
    for name, rounds in found.items():
        rate, cost = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{name:16} {rate:9,.0f} /s   {cost:6.1f} µs of CPU a request")


if __name__ == "__main__":
    main()
