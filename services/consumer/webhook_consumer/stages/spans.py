"""The spans of a batch: one per entry whose webhook is traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from webhook_shared import telemetry

from webhook_consumer.entry import Entry


@contextmanager
def spans(name: str, entries: Sequence[Entry]) -> Iterator[list[str]]:
    """Open a span per traced entry, each in its own trace, until the batch has its effect.

    Calls made meanwhile belong to the whole batch; they show up in the trace of its last traced entry.

    Yields:
        Per entry, the trace context to pass on; empty where there is none.
    """
    parents = [entry.text(b"traceparent") for entry in entries]
    with ExitStack() as opened:
        for at, parent in enumerate(parents):
            if parent and telemetry.is_sampled(parent):
                entry = entries[at]
                opened.enter_context(
                    telemetry.span(name, parent, event_id=entry.text(b"id"), tool=entry.tool)
                )
                parents[at] = telemetry.traceparent() or parent
        yield parents
