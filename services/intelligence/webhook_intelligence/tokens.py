"""How many tokens a text has, without anybody's vocabulary file.

An estimate on the safe side for prose and code: 3.5 ASCII characters make a token, and other scripts cost
by the bytes that they need beyond one per character (Cyrillic about 0.9 a character, Chinese 1.6, emoji 2).
"""

from __future__ import annotations

ASCII_CHARS_PER_TOKEN = 3.5
TOKENS_PER_WIDE_BYTE = 0.7


def estimate(text: str) -> int:
    """About how many tokens; rather too many than too few."""
    wide_bytes = len(text.encode("utf-8", "surrogatepass")) - len(text)
    ascii_chars = max(0.0, len(text) - wide_bytes / 3)
    return 1 + int(ascii_chars / ASCII_CHARS_PER_TOKEN + wide_bytes * TOKENS_PER_WIDE_BYTE)


def pieces(text: str, tokens: int) -> list[str]:
    """The text in parts of at most so many tokens, cut at white space where there is some."""
    parts = []
    while estimate(text) > tokens:
        # All ASCII fits this many characters, anything else a smaller share of them.
        end = max(1, int(len(text) * tokens / estimate(text)) - 1)
        while end > 1 and estimate(text[:end]) > tokens:
            end = end * 3 // 4
        space = text.rfind(" ", end // 2, end)
        end = space + 1 if space > 0 else end
        parts.append(text[:end])
        text = text[end:]
    return [*parts, text] if text else parts
