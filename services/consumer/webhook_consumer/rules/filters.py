"""What a template may do to a value before it is written: `{after:short}`, `{ref:branch}`.

A filter takes any JSON value and returns text, or "" where it can't make sense of it.
"""

import html
import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from webhook_consumer.rules.values import as_text

_SHORT_SHA_CHARS = 7
_LINE_LIMIT_CHARS = 300
_PROSE_LIMIT_NODES = 2000
_NOT_SLUG = re.compile(r"[^a-z0-9_.-]+")
_SLACK_REFERENCE = re.compile(r"<([@#!]?)([^<>|]{1,1000})(?:\|([^<>]{0,500}))?>")
_SITE = re.compile(r"https?://[^/?#@\s]{1,255}", re.IGNORECASE)
_JIRA_MENTION = re.compile(r"\[~(?:accountid:)?([^\]\n]{1,100})\]")


def _short(value: object) -> str:
    return as_text(value)[:_SHORT_SHA_CHARS]


def _line(value: object) -> str:
    return as_text(value).strip().partition("\n")[0].strip()[:_LINE_LIMIT_CHARS]


def _branch(value: object) -> str:
    ref = as_text(value)
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            return ref[len(prefix) :]
    return ref


def _tag(value: object) -> str:
    """The tag's name; "" for a branch."""
    ref = as_text(value)
    return ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else ""


def _words(value: object) -> str:
    return as_text(value).replace("_", " ").replace("-", " ")


def _slug(value: object) -> str:
    return _NOT_SLUG.sub("_", as_text(value).lower()).strip("_")[:64]


def _lower(value: object) -> str:
    return as_text(value).lower()


def _past(value: object) -> str:
    """The past of a regular verb: "close" -> "closed". Some senders say what to do, not what was done."""
    verb = _words(value)
    if not verb or verb.endswith("ed"):
        return verb
    return verb + ("d" if verb.endswith("e") else "ed")


def _host(value: object) -> str:
    try:
        return (urlsplit(as_text(value)).netloc.rpartition("@")[2]).lower()
    except ValueError:
        return ""


def _site(value: object) -> str:
    """The address up to its host: "https://acme.example"."""
    match = _SITE.match(as_text(value))
    return match[0] if match else ""


def _zero(value: object) -> str:
    """Text for the all-zero id by which git says that there is none; "" for any other."""
    text = as_text(value)
    return "yes" if text and not text.strip("0") else ""


def _count(value: object) -> str:
    return str(len(value)) if isinstance(value, list) else ""


def _prose(value: object) -> str:
    """The text within a document tree (Atlassian's or Slack's blocks); text stays as it is."""
    if not isinstance(value, dict | list):
        return _JIRA_MENTION.sub(r"@\1", as_text(value))
    found: list[str] = []
    waiting: list[object] = [value]
    for _ in range(_PROSE_LIMIT_NODES):
        if not waiting:
            break
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(reversed(node))
        elif isinstance(node, dict):
            text = node.get("text")
            if isinstance(text, str):
                found.append(text)
            waiting.extend(child for child in reversed(node.values()) if isinstance(child, dict | list))
            if node.get("type") in ("paragraph", "heading", "listItem", "rich_text_section"):
                waiting.append("\n")
        elif node == "\n":
            found.append("\n")
    return " ".join(found).replace(" \n ", "\n")


def _mrkdwn(value: object) -> str:
    """Slack's own markup as plain text: `<https://x|docs>` -> `docs (https://x)`."""
    return html.unescape(_SLACK_REFERENCE.sub(_slack_reference, as_text(value)))


def _slack_reference(match: re.Match[str]) -> str:
    sigil, target, label = match[1], match[2], match[3]
    if sigil == "!":
        return "@" + (label or target).lstrip("@")
    if sigil:
        return sigil + (label or target)
    return f"{label} ({target})" if label and label != target else target


FILTERS: Mapping[str, Callable[[object], str]] = {
    "branch": _branch,
    "count": _count,
    "host": _host,
    "line": _line,
    "lower": _lower,
    "mrkdwn": _mrkdwn,
    "past": _past,
    "prose": _prose,
    "short": _short,
    "site": _site,
    "slug": _slug,
    "tag": _tag,
    "words": _words,
    "zero": _zero,
}
