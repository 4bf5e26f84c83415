"""Why a delivery is not let in."""

from __future__ import annotations

from enum import IntEnum


class Refusal(IntEnum):
    """The causes; the numbers are those of `webhook.security.v1.Refusal`."""

    UNKNOWN_SOURCE = 1
    SIGNATURE_MISSING = 2
    SIGNATURE_INVALID = 3
    HEADER_MALFORMED = 4
    TIMESTAMP_EXPIRED = 5
    TIMESTAMP_AHEAD = 6
    TIMESTAMP_MALFORMED = 7
    CONTENT_TYPE = 8
    BODY_TOO_LARGE = 9
    SECRET_UNAVAILABLE = 10
    ADDRESS = 11
    RATE = 12
    METHOD = 13
    BODY_EMPTY = 14
    INTERNAL = 15
    EVENT_TYPE = 16

    @property
    def label(self) -> str:
        """As metrics and logs write it: "signature_invalid"."""
        return self.name.lower()
