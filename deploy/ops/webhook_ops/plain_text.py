"""Text of strangers on our terminal."""

from __future__ import annotations


def visible(text: str, *, keep: str = "") -> str:
    """Without control characters: what a sender wrote must not move our cursor or colour our screen.

    Args:
        text: Anything.
        keep: Control characters that may stay, such as a line end.
    """
    return "".join(
        character
        if character.isprintable() or character in keep
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
