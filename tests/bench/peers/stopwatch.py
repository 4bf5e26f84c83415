"""Shared by the peers: what to do for each event (count it), and when to stop the clock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

REDIS = os.environ["BENCH_REDIS"]
COUNT = int(os.environ["BENCH_COUNT"])
BODY = "x" * int(os.environ["BENCH_BODY_BYTES"])
AT_ONCE = 100


class Stopwatch:
    """Runs from the first event to the last."""

    def __init__(self) -> None:
        self._seen = 0
        self._began_s = 0.0

    def tick(self) -> None:
        """An event has been handled."""
        if not self._seen:
            self._began_s = time.perf_counter()
        self._seen += 1
        if self._seen == COUNT:
            took_s = time.perf_counter() - self._began_s
            Path(os.environ["BENCH_RESULT"]).write_text(json.dumps({"seconds": took_s}), encoding="utf-8")


stopwatch = Stopwatch()
