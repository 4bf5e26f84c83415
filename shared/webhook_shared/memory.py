"""How a process gives memory back: seldom, since it needs the same again with the next batch."""

from __future__ import annotations

import ctypes

# Of <malloc.h>.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_THRESHOLD = -3

KEPT_BYTES = 64 * 2**20
"""So much that is free stays with the process, per heap."""
GROWTH_BYTES = 2**20
LARGEST_KEPT_BYTES = 32 * 2**20
"""A single block beyond this is asked of the system and given back at once; the most that glibc allows."""


def keep_freed() -> bool:
    """Have glibc keep what is freed, up to KEPT_BYTES. False where the C library is another one.

    By default it gives back whatever is free at the end of a heap, and every block of more than 128 KB. A
    batch of deliveries has several of these, so that the system would clear and map the same pages for each
    one anew.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    options = {
        _TRIM_THRESHOLD: KEPT_BYTES,
        _TOP_PAD: GROWTH_BYTES,
        _MMAP_THRESHOLD: LARGEST_KEPT_BYTES,
    }
    return all(mallopt(option, size) == 1 for option, size in options.items())
