"""What a registry of sources says of each: who, with which secrets, and which of its events are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from webhook_security.secrets.secret import Secret, Values


class Definition(NamedTuple):
    """One source.

    Attributes:
        tenant: Owner of what comes in.
        tool: The route's name.
        secrets: Where its secrets are.
        event_types: The types of event that are taken; None: every one.
    """

    tenant: str
    tool: str
    secrets: tuple[Secret, ...] = ()
    event_types: frozenset[str] | None = None


class Registered(NamedTuple):
    """All that a registry says.

    Attributes:
        definitions: The sources that are switched on, each route once.
        values: Of the secrets that the registry holds itself, by reference.
    """

    definitions: Sequence[Definition]
    values: Values

    def __repr__(self) -> str:
        return f"Registered({len(self.definitions)} sources)"


class RegistryUnreadable(Exception):
    """A registry does not say now which sources there are.

    Attributes:
        final: Somebody has to change something before it will.
    """

    def __init__(self, why: str, *, final: bool) -> None:
        super().__init__(why)
        self.final = final


class SourceRegistry(Protocol):
    """Where sources are defined: in the configuration, in a database."""

    @property
    def name(self) -> str:
        """What logs and metrics call it."""
        ...

    async def read(self) -> Registered:
        """What it says now.

        Raises:
            RegistryUnreadable: It says nothing; what it said before stays good.
        """
        ...
