"""Which stream a source's events are in."""

from collections import Counter

import pytest
from webhook_shared.partitions import MOST, Partitions, place, possible

SOURCES = [(f"tenant-{i % 7}", f"tool-{i}") for i in range(2000)]


def test_one_partition_has_the_name_of_the_guide() -> None:
    assert Partitions("webhook-events").streams == ("webhook-events",)
    assert Partitions("webhook-events", 1).stream_of("default", "github") == "webhook-events"


def test_a_source_stays_where_it_is_and_all_are_spread() -> None:
    partitions = Partitions("webhook-events", 4)
    assert partitions.streams == tuple(f"webhook-events:{i}" for i in range(4))
    counts = Counter(partitions.stream_of(*source) for source in SOURCES)
    assert set(counts) == set(partitions.streams)
    assert min(counts.values()) > 0.8 * len(SOURCES) / 4
    # Processes of other days and machines must agree.
    assert [place("default", tool, 8) for tool in ("github", "gitlab", "slack", "stripe")] == [3, 6, 1, 0]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_another_partition_moves_only_its_share_and_only_to_itself(count: int) -> None:
    moved = [source for source in SOURCES if place(*source, count) != place(*source, count + 1)]
    assert len(moved) < 1.3 * len(SOURCES) / (count + 1)
    assert {place(*source, count + 1) for source in moved} == {count}


def test_names_that_run_together_are_told_apart() -> None:
    places = [place("ab", f"c{i}", MOST) == place("a", f"bc{i}", MOST) for i in range(50)]
    assert not all(places)


def test_every_partition_that_may_ever_be_is_looked_for() -> None:
    assert set(Partitions("s", MOST).streams) | {"s"} == set(possible("s"))
