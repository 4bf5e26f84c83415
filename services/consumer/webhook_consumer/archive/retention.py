"""How long archived events are kept where that differs by tenant and tool."""

from __future__ import annotations

from webhook_shared.retention import Retention

from webhook_consumer.archive.segments import Row, Segment


class ArchiveRetention:
    """Says which events of a segment have been kept for long enough.

    Segments hold events of many, so one in which only some are due is written anew without them. An index is
    read only when another of the times has passed since that segment was written.

    Args:
        retention: How long.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        times = {retention.usual_ms, *retention.rules.values()} - {0}
        self._times_ms = sorted(times)
        self._looked: dict[str, int] = {}

    @property
    def longest_ms(self) -> int:
        """After so long nothing is kept; 0: some is kept for ever."""
        return self._retention.longest_ms()

    def is_over(self, segment: Segment, now_ms: int) -> bool:
        """Whether all of a segment is due, whatever is in it."""
        return bool(self.longest_ms) and segment.written_ms + self.longest_ms <= now_ms

    def wants_look(self, segment: Segment, now_ms: int) -> bool:
        """Whether some of it may have become due since it was last looked at."""
        passed = self._passed(segment, now_ms)
        return bool(passed) and self._looked.get(segment.stem) != passed

    def looked(self, segment: Segment, now_ms: int) -> None:
        """What was due by now is gone."""
        self._looked[segment.stem] = self._passed(segment, now_ms)

    def forget(self, stems: set[str]) -> None:
        """There are no other segments than these."""
        self._looked = {stem: passed for stem, passed in self._looked.items() if stem in stems}

    def keeps(self, segment: Segment, row: Row, now_ms: int) -> bool:
        """Whether an event stays."""
        kept_ms = self._retention.kept_ms(row.tenant, row.tool)
        return not kept_ms or segment.written_ms + kept_ms > now_ms

    def _passed(self, segment: Segment, now_ms: int) -> int:
        return sum(segment.written_ms + time_ms <= now_ms for time_ms in self._times_ms)
