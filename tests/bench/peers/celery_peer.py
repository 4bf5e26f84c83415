"""Celery with its Redis broker, one process (the solo pool), 100 messages ahead, no results kept."""

from __future__ import annotations

import sys

from celery import Celery
from stopwatch import AT_ONCE, BODY, COUNT, REDIS, stopwatch

app = Celery("celery_peer", broker=f"redis://{REDIS}/0")
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=AT_ONCE,
    task_acks_late=True,
    broker_connection_retry=True,
)


@app.task
def handle(body: str) -> None:
    """Nothing but counting."""
    stopwatch.tick()


def fill() -> None:
    """Queue all events."""
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(COUNT):
            handle.apply_async((BODY,), producer=producer)


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill()
    else:
        app.worker_main(
            ["worker", "--pool", "solo", "--loglevel", "error", "--without-gossip", "--without-mingle"]
        )
