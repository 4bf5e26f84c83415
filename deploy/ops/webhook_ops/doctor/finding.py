"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How it is."""

    GOOD = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: "edge", "redis", "clock", "rpc", "secrets", "settings".
        name: What was looked at.
        verdict: How it is; SKIP where it could not be looked at.
        seen: What was seen.
        remedy: What to do about it; empty where nothing is to be done.
    """

    area: str
    name: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def passed(area: str, name: str, seen: str) -> Finding:
    """All is well."""
    return Finding(area, name, Verdict.GOOD, seen)


def warned(area: str, name: str, seen: str, remedy: str) -> Finding:
    """It works, and may harm some day."""
    return Finding(area, name, Verdict.WARN, seen, remedy)


def failed(area: str, name: str, seen: str, remedy: str) -> Finding:
    """It must not be so."""
    return Finding(area, name, Verdict.FAIL, seen, remedy)


def skipped(area: str, name: str, seen: str, remedy: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(area, name, Verdict.SKIP, seen, remedy)
