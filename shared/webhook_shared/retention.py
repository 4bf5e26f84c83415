"""How long what has come in is kept, by tenant and tool: the same rules for every service that keeps some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from webhook_shared.settings import Duration, Section, setting

FOR_EVER = timedelta()
Kind = Literal["contexts", "archive", "dead_letters"]


class RetentionRule(Section):
    """One entry of `webhook.retention.rules`: what differs for a tenant, a tool, or a tool of a tenant."""

    tenant: str = Field("", description="Whose; empty: everybody's.")
    tool: str = Field("", description="Of which source; empty: of all.")
    contexts: Duration | None = Field(None, description="Untouched contexts; 0s: for ever.")
    archive: Duration | None = Field(None, description="Processed events; 0s: for ever.")
    dead_letters: Duration | None = Field(None, description="Events that were given up; 0s: for ever.")

    @model_validator(mode="after")
    def _useful(self) -> RetentionRule:
        given = [one for one in (self.contexts, self.archive, self.dead_letters) if one is not None]
        if not (self.tenant or self.tool):
            raise ValueError(
                "a rule needs a tenant, a tool or both; what holds for all stands above the rules"
            )
        if not given:
            raise ValueError("a rule needs one of contexts, archive, dead_letters")
        if any(one < FOR_EVER for one in given):
            raise ValueError("a duration must not be negative")
        return self


class RetentionSection(Section):
    """`webhook.retention`: when what nobody has touched for long is erased."""

    contexts: Duration = setting(
        FOR_EVER, description="How long an untouched context is kept; 0s: for ever. Pinned ones go as well."
    )
    dead_letters: Duration = setting(
        FOR_EVER, description="How long an event that was given up is kept; 0s: for ever."
    )
    rules: tuple[RetentionRule, ...] = setting(
        (),
        description="What differs: a list of tenant, tool (or both), and contexts, archive, dead_letters. "
        "The rule for a tool of a tenant goes before that for a tenant, this before that for a tool.",
    )
    sweep_interval: Duration = setting(
        timedelta(minutes=10), description="How often to look for contexts and dead letters that are due."
    )

    @model_validator(mode="after")
    def _consistent(self) -> RetentionSection:
        if min(self.contexts, self.dead_letters) < FOR_EVER:
            raise ValueError("a duration must not be negative")
        if self.sweep_interval <= timedelta():
            raise ValueError("sweep_interval must be above 0s")
        places = [(rule.tenant, rule.tool) for rule in self.rules]
        if len(set(places)) < len(places):
            raise ValueError("two rules are for the same tenant and tool")
        return self


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things of one kind are kept.

    Attributes:
        usual_ms: Where no rule says otherwise; 0 for ever.
        rules: By tenant and tool, either of which may be empty; ms.
    """

    usual_ms: int
    rules: dict[tuple[str, str], int]

    @classmethod
    def of(cls, kind: Kind, usual: timedelta, rules: Sequence[RetentionRule]) -> Retention:
        """The rules for a kind."""
        given: dict[tuple[str, str], timedelta | None] = {
            (rule.tenant, rule.tool): getattr(rule, kind) for rule in rules
        }
        return cls(
            _ms(usual), {place: _ms(duration) for place, duration in given.items() if duration is not None}
        )

    def kept_ms(self, tenant: str, tool: str) -> int:
        """How long what a tool has sent to a tenant is kept; 0 for ever."""
        for place in ((tenant, tool), (tenant, ""), ("", tool)):
            if place in self.rules:
                return self.rules[place]
        return self.usual_ms

    def shortest_ms(self, tenant: str | None = None) -> int:
        """The shortest time that anything (of a tenant) is kept; 0 where all is kept for ever."""
        return min((one for one in self._possible(tenant) if one), default=0)

    def longest_ms(self) -> int:
        """The longest time that anything is kept; 0 where some is kept for ever."""
        possible = list(self._possible(None))
        return 0 if 0 in possible else max(possible)

    def _possible(self, tenant: str | None) -> Iterator[int]:
        # The usual one holds unless a rule covers all that the tenant has.
        if tenant is None or (tenant, "") not in self.rules:
            yield self.usual_ms
        for (of, _), kept in self.rules.items():
            if tenant is None or of in (tenant, ""):
                yield kept


def _ms(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))
