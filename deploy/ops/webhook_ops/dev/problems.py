"""Why a system can't be started."""

from __future__ import annotations


class StartError(Exception):
    """The system can't be started as asked.

    Attributes:
        problems: One line each: what is wrong and what to do about it.
        log: The last lines of the process that failed, if one did.
    """

    def __init__(self, problems: list[str], log: list[str] | None = None) -> None:
        super().__init__("\n".join([*problems, *(log or [])]))
        self.problems = problems
        self.log = log or []
