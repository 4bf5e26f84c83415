"""Which other contexts an event ties its own to: links that a rule states, and mentions found in text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from webhook_consumer.append import Link
from webhook_consumer.rules.paths import Path, Scope
from webhook_consumer.rules.templates import Choice
from webhook_consumer.rules.values import TEXT_LIMIT_BYTES, as_text, context_id, key_part

LINKS_LIMIT = 32
# Repeated mentions of the same thing must not make a hostile text costly.
_MATCHES_LIMIT = 64


@dataclass(frozen=True, slots=True)
class LinkRule:
    """A tie that the payload states.

    Attributes:
        relation: The tie's name.
        to: The other context's id without its tool.
        tool: The other context's tool; None means the event's own.
        each: Where to look for items; the rule holds for each of them. None means once.
    """

    relation: Choice
    to: Choice
    tool: str | None
    each: Path | None

    def links(self, scope: Scope) -> Iterator[Link]:
        """The ties, in the payload's order."""
        items = [None] if self.each is None else self.each.items(scope)[:LINKS_LIMIT]
        tool = self.tool or as_text(scope.envelope.get("tool"))
        for item in items:
            within = scope if self.each is None else Scope(scope.payload, scope.envelope, item)
            to = self.to.fill(within, key_part)
            relation = self.relation.fill(within)
            if to and relation:
                yield Link(relation, context_id(tool, to))


@dataclass(frozen=True, slots=True)
class Mention:
    """A tie that people write: a pattern whose named groups are the item of the link's templates.

    Attributes:
        near: Text without which the pattern can't match; looking for it first is much cheaper.
        pattern: What a mention looks like.
        link: The tie it means.
    """

    near: str
    pattern: re.Pattern[str]
    link: LinkRule

    def links(self, text: str, scope: Scope) -> Iterator[Link]:
        """The ties that the text, which holds `near`, mentions; in its order."""
        for count, match in enumerate(self.pattern.finditer(text)):
            if count >= _MATCHES_LIMIT:
                return
            yield from self.link.links(Scope(scope.payload, scope.envelope, match.groupdict()))


def ties(
    own_id: str,
    rules: tuple[LinkRule, ...],
    mentions: tuple[Mention, ...],
    mentions_in: tuple[Path, ...],
    scope: Scope,
) -> tuple[Link, ...]:
    """All ties of one event: each other context once, by the first relation found; at most 32."""
    found: dict[str, Link] = {}
    for link in _candidates(rules, mentions, mentions_in, scope):
        if link.context_id != own_id:
            found.setdefault(link.context_id, link)
            if len(found) == LINKS_LIMIT:
                break
    return tuple(found.values())


def _candidates(
    rules: tuple[LinkRule, ...], mentions: tuple[Mention, ...], mentions_in: tuple[Path, ...], scope: Scope
) -> Iterator[Link]:
    for rule in rules:
        yield from rule.links(scope)
    text = "\n".join(as_text(path.read(scope)) for path in mentions_in)[:TEXT_LIMIT_BYTES]
    if text:
        for mention in mentions:
            if mention.near in text:
                yield from mention.links(text, scope)
