"""The same door under other loads: sizes, duplicates, forgeries, more gateways, a harder disk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.ingest.arena import Round, generating, medians, turns
from tests.bench.ingest.deliveries import Mix
from tests.bench.ingest.house import Contestant, ours, plain, storing

ROUNDS = 2
# A round of large bodies sends fewer, so that it takes about as long.
FEWEST = 200
USUAL_BYTES = 7_700


@dataclass(frozen=True)
class Leg:
    """One other load.

    Attributes:
        name: For the report.
        mix: What is sent.
        connections: At once.
        beside: "plain", or "everysec": ours as it usually is.
        gateways: Of ours.
        appendfsync: Of the Redis of ours.
    """

    name: str
    mix: Mix
    connections: int
    beside: str = "plain"
    gateways: int = 1
    appendfsync: str = "everysec"

    async def run(self, rounds: int = ROUNDS) -> dict[str, Any]:
        """Play it. Figures of ours, and how many times as many as the one beside."""
        print(f"  {self.name}", flush=True)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            own = await enter(storing(self.appendfsync))
            contestants: list[Contestant] = [await enter(ours(own, gateways=self.gateways))]
            if self.beside == "plain":
                contestants.append(await enter(plain(own)))
            else:
                usual = await enter(storing("everysec"))
                contestants.append(await enter(ours(usual, name=self.beside)))
            generator = await enter(generating(self.mix))
            played = await turns(
                generator, contestants, self.mix, connections=self.connections, rounds=rounds
            )
        return self._figures(played)

    def _figures(self, played: Sequence[Round]) -> dict[str, Any]:
        own, other = medians(played, "ours"), medians(played, self.beside)
        last = [each for each in played if each["name"] == "ours"][-1]
        return {
            "load": self.name,
            "requests_per_s": round(own["requests_per_s"]),
            "p99_ms": round(own["p99_ms"], 1),
            "beside": self.beside,
            "ratio": round(own["requests_per_s"] / other["requests_per_s"], 2),
            "deliveries": self.mix.count,
            "acknowledged": last["acknowledged"],
            "in_stream": last["kept"],
            "duplicates": self.mix.again,
            "refused": last["refused"],
            "memory_mb": last["memory_mb"],
        }


def legs(count: int, connections: int) -> list[Leg]:
    """All of them.

    Args:
        count: Deliveries of a round of GitHub's own size.
        connections: At once, but for the largest bodies.
    """

    def sized(size_bytes: int) -> Mix:
        return Mix(max(FEWEST, min(count, count * USUAL_BYTES // size_bytes)), body_bytes=size_bytes)

    return [
        Leg("bodies of 1 KB", sized(1024), connections),
        Leg("bodies of 25 KB", sized(25 * 1024), connections),
        Leg("bodies of 1 MB", sized(1024 * 1024), min(connections, 16)),
        Leg("5 % come twice", Mix(count, duplicates=0.05), connections),
        Leg("1 % forged", Mix(count, forgeries=0.01), connections),
        Leg("2 gateways", Mix(count), connections, gateways=2),
        Leg("appendfsync always", Mix(count), connections, beside="everysec", appendfsync="always"),
    ]


def show(found: Sequence[dict[str, Any]]) -> None:
    """The figures of all legs as a table."""
    columns = ("load", "requests_per_s", "p99_ms", "ratio", "beside", "acknowledged", "in_stream", "refused")
    table = Table(title="under other loads", title_justify="left")
    for column in (*columns, "memory, MB"):
        table.add_column(column, justify="left" if column in {"load", "beside"} else "right")
    for each in found:
        memory = ", ".join(f"{name} {size:.0f}" for name, size in each["memory_mb"].items())
        table.add_row(*(str(each[column]) for column in columns), memory)
    Console(width=160).print(table)
