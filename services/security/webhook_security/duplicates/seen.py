"""Which deliveries were certainly never seen here: a Bloom filter that forgets its older half at times."""

from __future__ import annotations

import math

from rbloom import Bloom


class Seen:
    """Remembers keys in bounded memory; "never seen" is certain, "seen" is not.

    Two filters of one size: while the young one fills up, the old one still answers. With that, at least as
    many keys as fit into one are remembered and at most twice as many.

    Args:
        bits: Of each of the two.
        hashes: Per key.
        false_positive_rate: At which share of wrong answers a filter counts as full; both together may reach
            twice that.

    Attributes:
        capacity: Keys of one filter.
    """

    def __init__(self, bits: int, hashes: int, false_positive_rate: float) -> None:
        # Stated the other way round, as the library wants it: the size at which so many hashes serve best.
        self._size = (max(1, round(bits * math.log(2) / hashes)), 0.5**hashes)
        self.capacity = _capacity(bits, hashes, false_positive_rate)
        self._young, self._old = self._empty(), self._empty()
        self._count = 0

    def note(self, key: str) -> bool:
        """Whether a key may have been noted before; from now on it has."""
        if key in self._young:
            return True
        self._young.add(key)
        self._count += 1
        known = key in self._old
        if self._count >= self.capacity:
            self._young, self._old, self._count = self._empty(), self._young, 0
        return known

    @property
    def size_bytes(self) -> int:
        """Memory of both."""
        return (self._young.size_in_bits + self._old.size_in_bits) // 8

    def _empty(self) -> Bloom:
        return Bloom(*self._size)


def _capacity(bits: int, hashes: int, false_positive_rate: float) -> int:
    """With how many keys a filter is wrong that often."""
    share_set = false_positive_rate ** (1 / hashes)
    return max(1, int(-bits / hashes * math.log1p(-share_set)))
