"""JSON values as text, cleaned and bounded: control characters never reach a context."""

import hashlib
import re
from itertools import islice
from urllib.parse import quote

TEXT_LIMIT_BYTES = 16 * 1024
TITLE_LIMIT_CHARS = 300
NAME_LIMIT_CHARS = 200
URL_LIMIT_CHARS = 2048
CONTEXT_ID_LIMIT_CHARS = 512
LIST_LIMIT_ITEMS = 50

# Control characters but tab and newline; the bidirectional overrides that make text read other than it is.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9._/@+#~-]*")
_WEB_ADDRESS = re.compile(r"https?://[^\s<>\"']+", re.IGNORECASE)


def as_text(value: object) -> str:
    """The value as a person would write it; "" for null, objects and empty things."""
    if isinstance(value, str):
        # A first, rough bound: nothing longer survives the last cut anyway.
        return value[:TEXT_LIMIT_BYTES] if len(value) > TEXT_LIMIT_BYTES else value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list):
        return ", ".join(text for item in islice(value, LIST_LIMIT_ITEMS) if (text := scalar_text(item)))
    return ""


def scalar_text(value: object) -> str:
    """Like `as_text`, but "" for lists too."""
    return "" if isinstance(value, list) else as_text(value)


def line(text: str, limit_chars: int) -> str:
    """The text on one line, without control characters, at most so many characters."""
    if not text:
        return ""
    joined = " ".join(text[: limit_chars * 4].split())
    if not joined.isprintable():
        joined = " ".join(_UNWANTED.sub("", joined).split())
    return joined if len(joined) <= limit_chars else joined[: limit_chars - 1].rstrip() + "…"


def passage(text: str, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
    """The text with its lines kept, without control characters, cut at a character boundary."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _UNWANTED.sub("", text).strip()
    if len(text) * 4 <= limit_bytes:
        return text
    encoded = text.encode()
    return text if len(encoded) <= limit_bytes else encoded[:limit_bytes].decode(errors="ignore").rstrip()


def key_part(text: str) -> str:
    """The text as one part of a context id: what could be taken for structure is percent-encoded."""
    if _PLAIN_KEY.fullmatch(text):
        return text
    return "".join(
        char if char.isprintable() and char not in "%:{} " else quote(char, safe="", errors="replace")
        for char in text[:CONTEXT_ID_LIMIT_CHARS]
    )


def context_id(tool: str, rest: str) -> str:
    """`<tool>:<rest>`; a digest replaces the end of one that is too long, so that it stays distinct."""
    whole = f"{tool}:{rest}"
    if len(whole) <= CONTEXT_ID_LIMIT_CHARS:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return f"{whole[: CONTEXT_ID_LIMIT_CHARS - len(digest) - 1]}~{digest}"


def web_address(text: str) -> str:
    """The text if it is an http(s) address that a page may link to; else ""."""
    return text if len(text) <= URL_LIMIT_CHARS and _WEB_ADDRESS.fullmatch(text) else ""
