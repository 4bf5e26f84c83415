"""A fair share of what is being compressed, to train dictionaries on; in memory only, and bounded."""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass, field

SAMPLES = 512
"""Of one source at most."""
SOURCE_BYTES = 4 * 2**20
LARGEST_SAMPLE_BYTES = 64 * 2**10
"""Larger ones gain little from a dictionary."""
SMALLEST_SAMPLE_BYTES = 128
MOST_SOURCES = 1024


@dataclass
class _Reservoir:
    """Algorithm L: every offer has the same chance, and most cost one subtraction."""

    samples: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    skip: int = 0
    weight: float = 1.0
    began_s: float = field(default_factory=time.monotonic)

    def skip_on(self) -> None:
        if len(self.samples) < SAMPLES:
            return
        self.weight *= math.exp(math.log(_chance()) / SAMPLES)
        self.skip = int(math.log(_chance()) / math.log1p(-self.weight))


class Samples:
    """Samples by tenant and name. Safe for concurrent use by threads.

    Args:
        most_bytes: Of all samples together; beyond it nothing new is kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._reservoirs: dict[tuple[str, str], _Reservoir] = {}
        self._size_bytes = 0
        self._lock = threading.Lock()

    def offer(self, tenant: str, name: str, content: bytes) -> None:
        """Keep it, or not; costs next to nothing."""
        reservoir = self._reservoirs.get((tenant, name))
        if reservoir is not None and reservoir.skip > 0:
            reservoir.skip -= 1
            return
        if name and SMALLEST_SAMPLE_BYTES <= len(content) <= LARGEST_SAMPLE_BYTES:
            with self._lock:
                self._keep(tenant, name, content)

    def _keep(self, tenant: str, name: str, content: bytes) -> None:
        reservoir = self._reservoirs.get((tenant, name))
        if reservoir is None:
            if len(self._reservoirs) >= MOST_SOURCES or self._size_bytes >= self._most_bytes:
                return
            reservoir = self._reservoirs[tenant, name] = _Reservoir()
        samples, at = reservoir.samples, -1
        if len(samples) >= SAMPLES:
            at = random.randrange(SAMPLES)  # noqa: S311  # a fair share; guards nothing
        more = len(content) - (len(samples[at]) if at >= 0 else 0)
        fits = self._size_bytes + more <= self._most_bytes and reservoir.size_bytes + more <= SOURCE_BYTES
        if fits:
            if at >= 0:
                samples[at] = content
            else:
                samples.append(content)
            reservoir.size_bytes += more
            self._size_bytes += more
        reservoir.skip_on()

    def sources(self) -> list[tuple[str, str]]:
        """Tenants and names of which there is a sample."""
        with self._lock:
            return list(self._reservoirs)

    def of(self, tenant: str, name: str) -> list[bytes]:
        """The samples of one source, in no particular order."""
        with self._lock:
            reservoir = self._reservoirs.get((tenant, name))
            return list(reservoir.samples) if reservoir else []

    def age_s(self, tenant: str, name: str) -> float:
        """How long ago the first sample of a source came; 0 where there is none."""
        reservoir = self._reservoirs.get((tenant, name))
        return time.monotonic() - reservoir.began_s if reservoir else 0.0

    def clear_older(self, age_s: float) -> None:
        """Make room: let go of sources that began so long ago and never had enough."""
        before = time.monotonic() - age_s
        with self._lock:
            old = [source for source, one in self._reservoirs.items() if one.began_s < before]
        for tenant, name in old:
            self.clear(tenant, name)

    def clear(self, tenant: str, name: str) -> None:
        """Begin anew, so that the next ones tell what comes now."""
        with self._lock:
            reservoir = self._reservoirs.pop((tenant, name), None)
            self._size_bytes -= reservoir.size_bytes if reservoir else 0


def _chance() -> float:
    return 1.0 - random.random()  # noqa: S311  # never 0; guards nothing
