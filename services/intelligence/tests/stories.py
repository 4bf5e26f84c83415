"""Stories to be summarised, with the facts that a good summary must keep; labelled by hand."""

from __future__ import annotations

from dataclasses import dataclass

from webhook_intelligence.texts.subject import Happening, Subject


@dataclass(frozen=True)
class Story:
    """Texts, and what must not be lost of them."""

    texts: tuple[str, ...]
    facts: tuple[str, ...]


STORIES = (
    Story(
        (
            "Deployment of payments-api v2.14.0 to eu-west-1 failed at 09:31. Checks were red for 6 minutes.",
            "Rolled back to v2.13.4. Error rate fell from 12 % to 0.1 %. Root cause is tracked in OPS-812.",
        ),
        ("v2.14.0", "v2.13.4", "12 %", "OPS-812", "6 minutes"),
    ),
    Story(
        (
            "Issue #482: Login fails with HTTP 503 for users behind the Frankfurt proxy since 3f9c2ab1.",
            "@mina-okafor bisected it to the session cache. A fix is in pull request #490.",
            "Reverted in 7be01d44; 1,204 users were affected.",
        ),
        ("#482", "HTTP 503", "3f9c2ab1", "@mina-okafor", "#490", "7be01d44", "1,204 users"),
    ),
    Story(
        (
            "Security advisory GHSA-9f2x-q4rm-77vw: path traversal in the reader, CVE-2026-30111, high.",
            "Affected are versions below 4.2.7. Please upgrade within 3 days.",
        ),
        ("GHSA-9f2x-q4rm-77vw", "CVE-2026-30111", "4.2.7", "3 days"),
    ),
    Story(
        (
            "The nightly backup is 0 bytes since Tuesday. The dump job lost its permission on the bucket.",
            "Restored from the copy of 14 November in 41 minutes. INC-204 stays open until the drill.",
            "We talked about the menu for the summer party. There will be cake. Somebody brings a guitar.",
        ),
        ("41 minutes", "INC-204"),
    ),
    Story(
        (
            "Invoice run for October: 18,204 customers, $1,204,551. 37 customers have a wrong VAT",
            "BILL-77 corrects them; documents go out in 2 days.",
        ),
        ("18,204 customers", "$1,204,551", "37 customers", "BILL-77", "2 days"),
    ),
    Story(
        (
            "Release 3.2.0 drops Python 3.9. The parser in src/reader/parse.py is 4 times faster.",
            "Thanks to @ann and @bo. Closes #11, #12 and #19.",
        ),
        ("3.2.0", "3.9", "#11", "#12", "#19", "@ann", "@bo"),
    ),
    Story(
        (
            "Consumer lag of orders-events reached 120,000 messages. "
            + "Nothing else of interest happened then. " * 40,
            "Lag is back to 0 after 18 minutes; see OPS-901. " + "People went for lunch and came back. " * 40,
        ),
        ("18 minutes", "OPS-901"),
    ),
    Story(
        (
            "Disk pg-data-1 is at 98 %. The slot of replica eu-3 is inactive since 2 days, WAL takes 400 GB.",
            "Dropped the slot. Usage is 31 % now. Follow-up: DB-55.",
        ),
        ("98 %", "2 days", "400 GB", "31 %", "DB-55"),
    ),
)


def long_story(events: int = 1000) -> tuple[list[Happening], tuple[str, ...]]:
    """A pull request with many events, and the facts that must stand in its summary at the end."""
    people = ("mina", "jonas", "priya", "wei", "olu")
    topics = (
        "I think the retry loop should live in the client, because the worker restarts often.",
        "The table of the benchmark needs another column for the queue depth, or nobody can compare runs.",
        "Could we split the migration so that the read path goes first and the write path a week later?",
        "The log line in the upload handler is misleading, it says 'done' before the last part has arrived.",
        "Please rebase; the formatter changed half of the files on main and the diff is hard to read now.",
    )
    happenings = []
    for i in range(events):
        who = people[i % len(people)]
        kind, action, text = "issue_comment", "created", f"{topics[i % len(topics)]} (round {i // 5})"
        if i == 0:
            kind, action, text = "pull_request", "opened", "Resume uploads\nFixes #17, part of OPS-812."
        elif i % 50 == 7:
            kind, action, text = "check_run", "failed" if i % 100 == 7 else "succeeded", "build"
        elif i == events - 10:
            kind, action, text = "pull_request_review", "approved", "Ship it in v2.4.1, after CVE-2026-30111."
        elif i == events - 5:
            kind, action, text = "pull_request", "merged", "Resume uploads"
        elif i == events - 2:
            kind, action, text = "issue_comment", "created", "Deployed; latency fell by 38 %, see OPS-900."
        happenings.append(Happening(f"e{i}", kind, action, who, text))
    return happenings, ("#17", "OPS-812", "v2.4.1", "CVE-2026-30111", "merged", "38 %", "OPS-900")


def subject_of(happenings: list[Happening], summary: str, event_count: int) -> Subject:
    """The long story, as far as it needs reading."""
    context_id = "github:octo/hello:pull_request:42"
    return Subject(context_id, "Resume uploads", summary, tuple(happenings), event_count).readable()
