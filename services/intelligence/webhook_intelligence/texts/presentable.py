"""What may be shown of a text that strangers, or a model that has read them, wrote."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from webhook_intelligence.texts.folding import folded
from webhook_intelligence.texts.redaction import redact

LINK_REMOVED = "[link removed]"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Markdown hides where a link leads behind other words, and loads images by itself.
_MARKDOWN_LINK = re.compile(r"!?\[([^\]\[]{0,500})\]\(([^()\s]{0,2000})[^()]{0,200}\)")
_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,1000}>")
_LINK = re.compile(
    r"(?i:\b(?:[a-z][a-z0-9+.-]{1,20}://|www\.)[^\s<>\"')]{1,2000}|\b(?:javascript|data|vbscript|mailto):\S{1,2000})"
)
# Every text with a link holds one of these, whatever its case.
_LINK_SIGNS = ("://", "www.", "javascript:", "data:", "vbscript:", "mailto:")
_END = ".,;:!?]"


def plain(text: str) -> str:
    """The text with a space for what controls a terminal, ends of lines among it."""
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def links_in(text: str) -> Iterator[re.Match[str]]:
    """Whatever might be taken for a link."""
    return _LINK.finditer(text) if _may_link(text) else iter(())


def _may_link(text: str) -> bool:
    lower = folded(text)
    return any(sign in lower for sign in _LINK_SIGNS)


def presentable(text: str, *, hosts: Collection[str], said: str | None = None) -> str:
    """One line without secrets, control or hidden characters, markup, or links that lead anywhere else.

    Args:
        text: To be shown.
        hosts: Where links may lead, with their subdomains, over https.
        said: Links must stand in this text, too; None: anywhere.
    """
    shown = plain(text)
    if "](" in shown:
        shown = _MARKDOWN_LINK.sub(r"\1 \2", shown)
    if "<" in shown:
        shown = _TAG.sub(" ", shown)
    # What is left of such a link that was cut off in the middle is no longer one.
    shown = redact(shown.replace("](", "] ("))

    def link(match: re.Match[str]) -> str:
        bare = match[0].rstrip(_END)
        known = said is None or bare in said
        return match[0] if known and _is_allowed(bare, hosts) else LINK_REMOVED + match[0][len(bare) :]

    if _may_link(shown):
        shown = _LINK.sub(link, shown)
    return redact(" ".join(shown.split()))


def _is_allowed(link: str, hosts: Collection[str]) -> bool:
    scheme, _, rest = link.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].lower()
    # A name before the host is a disguise, and what a backslash means depends on who reads it.
    if scheme.lower() != "https" or "@" in rest or "\\" in rest or ":" in host:
        return False
    return any(host == one or host.endswith(f".{one}") for one in hosts)
