"""Archived events, and the chunks in which they wait to be written into a segment."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

_ALWAYS = (b"id", b"tenant", b"tool", b"type", b"received", b"schema", b"sealed")
_OF_ALL = itemgetter(*_ALWAYS)
_TRACE = b"traceparent"
_COLUMNS = len(_ALWAYS) + 1


class Damaged(ValueError):
    """Bytes that are no chunk."""


class Archived(NamedTuple):
    """A processed event: what the gateway wrote. What the queue added on its way is not part of it.

    Attributes:
        received_ms: Unix milliseconds; never later than when it was archived.
        schema: Of what is sealed: "1".
        traceparent: Empty where it was not traced.
        sealed: Opens only for its tenant and id.
    """

    event_id: str
    tenant: str
    tool: str
    type: str
    received_ms: int
    schema: str
    traceparent: str
    sealed: bytes

    def fields(self) -> dict[str, str | bytes]:
        """As an entry of the stream of events."""
        fields: dict[str, str | bytes] = {
            "id": self.event_id,
            "tenant": self.tenant,
            "tool": self.tool,
            "type": self.type,
            "received": str(self.received_ms),
            "schema": self.schema,
            "sealed": self.sealed,
        }
        return fields | {"traceparent": self.traceparent} if self.traceparent else fields


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that were processed at about the same time.

    Attributes:
        data: The values of each event's fields, then the trace of each; all joined.
        sizes: Of all these values, 4 bytes each, big-endian.
    """

    data: bytes
    sizes: bytes

    @property
    def count(self) -> int:
        """How many events it has."""
        return len(self.sizes) // 4 // _COLUMNS

    @classmethod
    def of(cls, entries: Sequence[Mapping[bytes, bytes]]) -> Chunk:
        """The events of stream entries, given their fields."""
        # For every event that is processed: all loops are in C but one.
        try:
            rows = list(map(_OF_ALL, entries))
        except KeyError:
            rows = [tuple(fields.get(name, b"") for name in _ALWAYS) for fields in entries]
        values = list(chain.from_iterable(rows))
        values += [fields.get(_TRACE, b"") for fields in entries]
        return cls(b"".join(values), struct.pack(f">{len(values)}I", *map(len, values)))

    def events(self, *, latest_ms: int | None = None) -> list[Archived]:
        """The events.

        Args:
            latest_ms: What was received later than this counts as received then; None: than now.

        Raises:
            Damaged: There are none in it.
        """
        if latest_ms is None:
            latest_ms = int(time.time() * 1000)
        values = self._values()
        traces = values[-self.count :]
        rows = zip(*[iter(values[: -self.count])] * len(_ALWAYS), strict=True)
        try:
            return [
                Archived(
                    event_id.decode(),
                    tenant.decode(),
                    tool.decode(),
                    kind.decode(),
                    min(int(received), latest_ms) if received.isdigit() else latest_ms,
                    schema.decode(),
                    trace.decode(),
                    sealed,
                )
                for (event_id, tenant, tool, kind, received, schema, sealed), trace in zip(
                    rows, traces, strict=True
                )
            ]
        except UnicodeDecodeError:
            raise Damaged("a chunk has bytes for text") from None

    def offsets(self) -> list[int]:
        """Where in `data` each event's sealed bytes begin."""
        offsets, at = [], 0
        for number, (size,) in enumerate(struct.iter_unpack(">I", self.sizes[: -4 * self.count])):
            if number % len(_ALWAYS) == len(_ALWAYS) - 1:
                offsets.append(at)
            at += size
        return offsets

    def _values(self) -> list[bytes]:
        if not self.sizes or len(self.sizes) % (4 * _COLUMNS):
            raise Damaged("a chunk has no sizes")
        values, at = [], 0
        for (size,) in struct.iter_unpack(">I", self.sizes):
            values.append(self.data[at : at + size])
            at += size
        if at != len(self.data):
            raise Damaged("a chunk is cut short")
        return values
