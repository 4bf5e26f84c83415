"""What one webhook tells of one context: the shape in which all senders' events are stored."""

from datetime import datetime
from typing import NamedTuple


class Link(NamedTuple):
    """A tie to another context, which need not exist yet.

    Attributes:
        relation: How they are tied: "fixes", "head_commit", "mentions", "part_of"...
        context_id: The other context's id.
    """

    relation: str
    context_id: str


class Append(NamedTuple):
    """One event of one context. Empty text and empty tuples mean that the sender does not say.

    Attributes:
        context_id: `<tool>:<scope>:<kind>:<key>`, e.g. `github:octo/hello:pull_request:42`; at most 512
            characters.
        kind: What the context is: "pull_request", "issue", "thread"...
        type: The sender's event type.
        action: The sender's action within the type.
        actor: Who did it, by the name that the sender's users know.
        text: What a person would read of it; at most 16 KiB of UTF-8.
        url: Where a person can look at this event.
        occurred: When it happened (UTC); None where nobody says.
        title: The context's title.
        context_url: Where a person can look at the context.
        state: The context's state in the sender's words: "open", "merged", "Done".
        labels: The context's labels, at most 50.
        links: The context's ties to others, at most 32.
    """

    context_id: str
    kind: str
    type: str
    action: str
    actor: str
    text: str
    url: str
    occurred: datetime | None
    title: str
    context_url: str
    state: str
    labels: tuple[str, ...]
    links: tuple[Link, ...]
