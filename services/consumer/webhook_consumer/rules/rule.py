"""One rule: what webhooks of one type say."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from webhook_consumer.append import Append
from webhook_consumer.rules import values
from webhook_consumer.rules.moments import moment
from webhook_consumer.rules.paths import Path, Scope
from webhook_consumer.rules.templates import Choice
from webhook_consumer.rules.ties import LinkRule, Mention, ties


@dataclass(frozen=True, slots=True)
class Listing:
    """A passage of the text: a template, or one line for each item of a list.

    Attributes:
        line: The line's template.
        each: Where the items are; None means a single line.
        at_most: How many lines.
    """

    line: Choice
    each: Path | None = None
    at_most: int = 20

    def lines(self, scope: Scope) -> Iterator[str]:
        """The lines that have anything to say."""
        if self.each is None:
            if text := self.line.fill(scope):
                yield text
            return
        for item in islice(self.each.items(scope), self.at_most):
            if text := self.line.fill(Scope(scope.payload, scope.envelope, item)):
                yield text


@dataclass(frozen=True, slots=True)
class Rule:
    """What webhooks of one type say, field by field as in `Append`."""

    context: Choice
    kind: Choice
    title: Choice
    url: Choice
    context_url: Choice
    state: Choice
    actor: Choice
    action: Choice
    text: tuple[Listing, ...]
    occurred: tuple[Path, ...]
    labels: tuple[Path, ...]
    links: tuple[LinkRule, ...]
    mentions: tuple[Mention, ...]
    mentions_in: tuple[Path, ...]

    def append(self, scope: Scope, event_type: str) -> Append | None:
        """What the webhook says; None where it does not name its context."""
        rest = self.context.fill(scope, values.key_part)
        if not rest:
            return None
        own_id = values.context_id(values.as_text(scope.envelope.get("tool")), rest)
        url = values.web_address(self.url.fill(scope))
        action = values.line(self.action.fill(scope), values.NAME_LIMIT_CHARS)
        text = "\n".join(text for listing in self.text for text in listing.lines(scope))
        return Append(
            context_id=own_id,
            kind=values.line(self.kind.fill(scope), values.NAME_LIMIT_CHARS) or "event",
            type=values.line(event_type, values.NAME_LIMIT_CHARS),
            action=action,
            actor=values.line(self.actor.fill(scope), values.NAME_LIMIT_CHARS),
            # Even a crippled payload says that something happened.
            text=values.passage(text) or values.passage(f"{event_type} {action}"),
            url=url,
            occurred=self._occurred(scope),
            title=values.line(self.title.fill(scope), values.TITLE_LIMIT_CHARS),
            context_url=values.web_address(self.context_url.fill(scope)) or url,
            state=values.line(self.state.fill(scope), values.NAME_LIMIT_CHARS),
            labels=self._labels(scope),
            links=ties(own_id, self.links, self.mentions, self.mentions_in, scope),
        )

    def _occurred(self, scope: Scope) -> datetime | None:
        for path in self.occurred:
            if said := moment(path.read(scope)):
                return said
        return None

    def _labels(self, scope: Scope) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for path in self.labels:
            for item in islice(path.items(scope), values.LIST_LIMIT_ITEMS):
                if label := values.line(values.scalar_text(item), values.NAME_LIMIT_CHARS):
                    found[label] = None
        return tuple(islice(found, values.LIST_LIMIT_ITEMS))
