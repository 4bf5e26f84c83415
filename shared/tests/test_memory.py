"""A process keeps what it frees for the next batch."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = 200
# Takes three megabytes and lets go of them, again and again; says how many pages it had to be given.
_CHILD = f"""
import resource, sys
from webhook_shared.memory import keep_freed
if sys.argv[1] == "keep":
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def batch():
    taken = [bytes(300_000) for _ in range(10)]
batch()
before = faults()
for _ in range({ROUNDS}):
    batch()
print(faults() - before)
"""


def _page_faults(how: str) -> int:
    done = subprocess.run(  # our own interpreter, our own words
        [sys.executable, "-c", _CHILD, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_not_asked_for_again() -> None:
    assert _page_faults("keep") < ROUNDS < _page_faults("give back")
