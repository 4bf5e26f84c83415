"""What a text names: people, issues, commits, links, versions, files, repositories.

Patterns with bounded repetition only, and a bound on what is read: the text is hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

READ_CHARS = 16 * 1024
MOST_ENTITIES = 64


@dataclass(frozen=True)
class Entity:
    """One thing that is named; kinds as in `webhook.intelligence.v1.Entity`."""

    kind: str
    value: str


_URL = re.compile(r"\bhttps?://[^\s<>\"'`\\(){}|\[\]]{1,500}")
_TRAILING = ".,;:!?*_~"
_NAME = r"[A-Za-z0-9_.-]{1,100}"
_CODE_HOST = re.compile(rf"https?://(?:www\.)?(?:github\.com|gitlab\.com|bitbucket\.org)/({_NAME}/{_NAME})")
# A kind; what every text that names such a thing holds, begun with one character, for which a search is many
# times faster; and the thing itself.
_PATTERNS: tuple[tuple[str, re.Pattern[str], re.Pattern[str]], ...] = (
    ("person", re.compile(r"@"), re.compile(r"(?<![\w/@.-])@([A-Za-z0-9](?:-?[A-Za-z0-9]){0,38})(?![\w/@])")),
    ("issue", re.compile(r"[#!]\d"), re.compile(rf"(?<![\w/.&-])((?:{_NAME}/{_NAME})?[#!]\d{{1,9}})(?!\w)")),
    ("repository", re.compile(r"[#!]\d"), re.compile(rf"(?<![\w/.&-])({_NAME}/{_NAME})(?=[#!]\d)")),
    (
        "issue",
        re.compile(r"-\d"),
        re.compile(r"(?<![\w-])(CVE-\d{4}-\d{4,7}|[A-Z][A-Z0-9]{1,9}-\d{1,7})(?![\w-])"),
    ),
    (
        "commit",
        re.compile(r"[0-9a-f][0-9a-f]{6}"),
        re.compile(r"(?<![\w-])([0-9a-f]{40}|[0-9a-f]{7,12})(?![\w-])"),
    ),
    (
        "version",
        re.compile(r"\.\d"),
        re.compile(
            r"(?<![\w.-])((?:v\d{1,5}(?:\.\d{1,5}){1,3}|\d{1,5}\.\d{1,5}\.\d{1,5})"
            r"(?:[-+][0-9A-Za-z]{1,20}(?:\.[0-9A-Za-z]{1,20}){0,3})?)(?![\w-]|\.\d)"
        ),
    ),
    (
        "path",
        re.compile(r"/"),
        re.compile(
            r"(?<![\w./:@-])((?:\.{0,2}/)?(?:[\w.-]{1,64}/){1,12}[\w.-]{1,64}\.[A-Za-z]\w{0,9})(?![\w/])"
        ),
    ),
)
_REPOSITORY_ID = re.compile(rf"[\w.-]{{1,64}}:({_NAME}(?:/{_NAME}){{1,4}}):")
# Standards, not tickets.
_NOT_TICKETS = {"UTF", "SHA", "ISO", "RFC", "MD", "HTTP", "AES", "RSA", "TLS", "IPV", "GPT", "PEP", "X"}


def find(texts: Iterable[str], *, people: Iterable[str] = (), context_id: str = "") -> list[Entity]:
    """The entities of a context, each once, in order of appearance; at most MOST_ENTITIES.

    Args:
        texts: Read until READ_CHARS characters are through.
        people: Those who are known to have acted.
        context_id: "github:octo/hello:pull_request:42" names a repository.
    """
    found: dict[Entity, None] = {}
    if match := _REPOSITORY_ID.match(context_id):
        found[Entity("repository", match[1])] = None
    for person in people:
        if person:
            found[Entity("person", person[:100])] = None
    left = READ_CHARS
    for text in texts:
        if left <= 0:
            break
        for entity in _in_text(text[:left]):
            found[entity] = None
        left -= len(text)
    return list(found)[:MOST_ENTITIES]


def _in_text(text: str) -> list[Entity]:
    spotted: list[tuple[int, Entity]] = []

    def take_url(match: re.Match[str]) -> str:
        url = match[0].rstrip(_TRAILING)
        spotted.append((match.start(), Entity("url", url)))
        if host := _CODE_HOST.match(url):
            spotted.append((match.start(), Entity("repository", host[1].removesuffix(".git"))))
        return " " * len(match[0])

    # What stands in a link is not looked at again.
    rest = _URL.sub(take_url, text) if "://" in text else text
    for kind, sign, pattern in _PATTERNS:
        if not sign.search(rest):
            continue
        spotted += [
            (match.start(), Entity(kind, match[1]))
            for match in pattern.finditer(rest)
            if _is_genuine(kind, match[1])
        ]
    return [entity for _, entity in sorted(spotted, key=lambda pair: pair[0])]


def _is_genuine(kind: str, value: str) -> bool:
    if kind == "commit":
        return not value.isdigit() and not value.isalpha()
    return kind != "issue" or value.partition("-")[0] not in _NOT_TICKETS
