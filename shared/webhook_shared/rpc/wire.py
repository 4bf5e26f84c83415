"""Fields of protobuf messages that are put beside what the generated code writes.

A body that is set in a message is copied there, and once more when the message is written. Put beside the
rest it is copied once. The contract stays the one of the generated code: fields may come in any order.
"""

from __future__ import annotations

_OF_LENGTH = 2
"""The wire type of bytes, texts and messages."""
_SEVEN_BITS = 127


def before(number: int, length: int) -> bytes:
    """What stands before the value of a field, given its number and the value's length in bytes."""
    return _varint(number << 3 | _OF_LENGTH) + _varint(length)


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > _SEVEN_BITS:
        written.append(number & _SEVEN_BITS | _SEVEN_BITS + 1)
        number >>= 7
    written.append(number)
    return bytes(written)
