"""Senders' many ways to write a time."""

import re
from datetime import UTC, datetime

# Seconds, milliseconds and so on are told apart by size: 1e11 s is the year 5138, 1e11 ms is 1973.
_SECONDS_BELOW = 1e11
_NANOSECONDS_BELOW = _SECONDS_BELOW * 1e9
_EPOCH = datetime.fromtimestamp(0, UTC)
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?")
_ISO_LENGTH_MAX_CHARS = 40


def moment(value: object) -> datetime | None:
    """The time (UTC) that an ISO 8601 text or a number of (milli-, micro-, nano-) seconds says, or None."""
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, int | float):
            return _from_number(float(value))
        if isinstance(value, str):
            return _from_text(value)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _from_number(number: float) -> datetime | None:
    if not 0 < number < _NANOSECONDS_BELOW:
        return None
    while number >= _SECONDS_BELOW:
        number /= 1000
    return datetime.fromtimestamp(number, UTC)


def _from_text(text: str) -> datetime | None:
    text = text.strip()
    if not text or len(text) > _ISO_LENGTH_MAX_CHARS:
        return None
    if _NUMBER.fullmatch(text) and text.isascii():
        return _from_number(float(text))
    if text.endswith(" UTC"):
        text = text[:-4] + "+00:00"
    said = datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-"))
    said = said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
    # Some senders write "none" as the year 1.
    return said if said > _EPOCH else None
