"""The rules of one tool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from webhook_consumer.append import Append
from webhook_consumer.rules.paths import Scope
from webhook_consumer.rules.rule import Rule
from webhook_consumer.rules.templates import Choice

# What a hook finds joins the envelope as `@found`.
Hook = Callable[[object], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The rules of one tool.

    Attributes:
        tool: The tool's name.
        recognised_by: A header that only this sender sends: how a source of another name is known. Or "".
        type: How the payload or the envelope names the event type.
        rules: By event type; a type may have several rules, each for a context of its own.
        otherwise: For types without a rule, and where no rule finds its context.
        hook: Finds what a path can't say; None where paths suffice.
    """

    tool: str
    recognised_by: str
    type: Choice
    rules: Mapping[str, tuple[Rule, ...]]
    otherwise: Rule
    hook: Hook | None

    def appends(self, scope: Scope) -> list[Append]:
        """What the webhook says, one append per context; empty where it names none."""
        if self.hook is not None:
            scope = Scope(scope.payload, {**scope.envelope, "found": self.hook(scope.payload)})
        event_type = self.type.fill(scope) or "unknown"
        scope = Scope(scope.payload, {**scope.envelope, "type": event_type})
        found: dict[str, Append] = {}
        for rule in self.rules.get(event_type, ()):
            append = rule.append(scope, event_type)
            if append is not None:
                found.setdefault(append.context_id, append)
        if not found and (append := self.otherwise.append(scope, event_type)) is not None:
            return [append]
        return list(found.values())
