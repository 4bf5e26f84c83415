"""How many tokens a text has, without anybody's vocabulary file.

An estimate on the safe side for prose and code: 3.5 ASCII characters make a token, and other scripts cost
by the bytes that they need beyond one per character (Cyrillic about 0.9 a character, Chinese 1.6,
emoji 2). Two texts together never have more tokens than apart.
"""

from __future__ import annotations

ASCII_CHARS_PER_TOKEN = 3.5
TOKENS_PER_WIDE_BYTE = 0.7


def estimate(text: str) -> int:
    """About how many tokens; rather too many than too few."""
    wide_bytes = len(text.encode("utf-8", "surrogatepass")) - len(text)
    ascii_chars = max(0.0, len(text) - wide_bytes / 3)
    return 1 + int(ascii_chars / ASCII_CHARS_PER_TOKEN + wide_bytes * TOKENS_PER_WIDE_BYTE)


def head(text: str, tokens: int) -> str:
    """The beginning, of at most so many tokens but one character at least; cut at white space if possible."""
    whole = estimate(text)
    if whole <= tokens:
        return text
    # All ASCII fits this many characters, anything else a smaller share of them.
    end = max(1, int(len(text) * tokens / whole) - 1)
    while end > 1 and estimate(text[:end]) > tokens:
        end = end * 3 // 4
    space = text.rfind(" ", end // 2, end)
    return text[: space + 1 if space > 0 else end]


def pieces(text: str, tokens: int) -> list[str]:
    """The text in parts of at most so many tokens, cut at white space where there is some."""
    parts = []
    while text:
        parts.append(head(text, tokens))
        text = text[len(parts[-1]) :]
    return parts
