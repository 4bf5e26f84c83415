"""Traces of real work: the histories of free programs, as their ChangeLogs tell them.

Debian ships the upstream ChangeLog of a package in `/usr/share/doc/PACKAGE/changelog.gz` (images that leave
documentation out do not). Those of GNU style name, for each commit, its day, its author, and the files that
it touched. A file is a context, a commit a burst of events by one actor. The hour is not told: the commits
of a day are spread over its working hours, in their order.
"""

from __future__ import annotations

import datetime as dt
import gzip
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from webhook_intelligence.prediction.observations import Observation, ObservationKind

Recorded = tuple[str, Observation]

DOCUMENTS = Path("/usr/share/doc")
#: Packages with long histories of GNU style; the first four are in every Debian system.
PACKAGES = ("tar", "findutils", "grep", "login", "wget", "gnupg", "strace")
FIRST_HOUR_S, LAST_HOUR_S = 8 * 3600, 20 * 3600
STEP_S = 5.0

_COMMIT = re.compile(r"^(\d{4}-\d{2}-\d{2})\s+(\S.*?)\s*(?:<|$)")
_FILES = re.compile(r"^\s+\* ([\w./+@~-]+(?:, ?[\w./+@~-]+)*)")

Commit = tuple[dt.date, str, list[str]]


def history(package: str) -> list[Recorded]:
    """The trace of a package, oldest first; empty where its ChangeLog is not here."""
    file = DOCUMENTS / package / "changelog.gz"
    if not file.exists():
        return []
    with gzip.open(file, "rt", encoding="utf-8", errors="replace") as lines:
        return trace_of(package, list(lines))


def trace_of(package: str, lines: list[str]) -> list[Recorded]:
    """The trace that a ChangeLog tells, oldest first."""
    commits = sorted(enumerate(_commits(lines)), key=lambda numbered: (numbered[1][0], -numbered[0]))
    found: list[Recorded] = []
    for day, group in groupby((commit for _, commit in commits), key=lambda commit: commit[0]):
        of_day = list(group)
        midnight = dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()
        gap_s = (LAST_HOUR_S - FIRST_HOUR_S) / len(of_day)
        for number, (_, author, files) in enumerate(of_day):
            began = midnight + FIRST_HOUR_S + number * gap_s
            found += [
                (
                    "public",
                    Observation(
                        began + STEP_S * at, ObservationKind.EVENT, f"git:{package}:file:{path}", author
                    ),
                )
                for at, path in enumerate(files)
            ]
    return found


def _commits(lines: list[str]) -> Iterator[Commit]:
    """Day, author and files of each commit that names any, in the order of the file."""
    day, author, files = dt.date.min, "", dict[str, None]()
    for line in lines:
        header = _COMMIT.match(line)
        if header:
            if files:
                yield day, author, list(files)
            try:
                day = dt.date.fromisoformat(header[1])
            except ValueError:
                continue
            author, files = header[2], {}
        elif named := _FILES.match(line):
            files.update(dict.fromkeys(path.strip() for path in named[1].split(",")))
    if files:
        yield day, author, list(files)
