"""What is understood: one context, and what has happened in it since it was last read."""

from __future__ import annotations

from dataclasses import dataclass

from webhook_intelligence.texts.redaction import redacted_head

# Of one happening so much is read. Enough for a commit message, an alert, the point of a comment.
TEXT_CHARS = 1024
TITLE_CHARS = 256
SUMMARY_CHARS = 4096
WORD_CHARS = 64


@dataclass(frozen=True)
class Happening:
    """One event of a context.

    Attributes:
        event_id: Of the webhook event.
        kind: "pull_request"; usually the kind of the whole context.
        action: "opened"; empty where the tool names none.
        actor: Who did it; empty where nobody did.
        text: What people would read of it. Where a normaliser made it, the first line says who did what
            to which thing and ends with the thing's title; the rest is in the words of strangers.
    """

    event_id: str
    kind: str
    action: str
    actor: str
    text: str

    def headline(self, title: str) -> str:
        """The first line of the text, without the title that it may end with."""
        line = " ".join(self.text.partition("\n")[0].split())
        ending = f": {' '.join(title.split())}"
        return line[: -len(ending)] if title and line.casefold().endswith(ending.casefold()) else line


@dataclass(frozen=True)
class Subject:
    """One context, as far as it needs reading again.

    Attributes:
        context_id: "github:octo/hello:pull_request:42".
        title: In the words of a stranger.
        summary: So far; empty at first.
        happenings: Since that summary, oldest first.
        event_count: Over its whole life.
    """

    context_id: str
    title: str
    summary: str
    happenings: tuple[Happening, ...]
    event_count: int

    def readable(self) -> Subject:
        """The same, cut to what is read of it and without secrets."""
        return Subject(
            context_id=self.context_id[:TITLE_CHARS],
            title=redacted_head(self.title, TITLE_CHARS).strip(),
            summary=redacted_head(self.summary, SUMMARY_CHARS).strip(),
            happenings=tuple(
                Happening(
                    happening.event_id,
                    redacted_head(happening.kind, WORD_CHARS).strip().lower(),
                    redacted_head(happening.action, WORD_CHARS).strip().lower(),
                    redacted_head(happening.actor, WORD_CHARS).strip(),
                    redacted_head(happening.text, TEXT_CHARS).strip(),
                )
                for happening in self.happenings
            ),
            event_count=self.event_count,
        )
