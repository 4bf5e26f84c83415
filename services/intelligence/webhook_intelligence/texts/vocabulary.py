"""The words that webhooks use for what happened, and what they mean to us. Data, not code.

Kinds and actions come from the structure of an event, set by the tool; nobody can put a word here by
writing it into a title.
"""

from __future__ import annotations

# How a kind is called in a sentence.
NOUNS: dict[str, str] = {
    "pull_request": "PR",
    "merge_request": "MR",
    "check_run": "checks",
    "check_suite": "checks",
    "workflow_run": "workflow",
    "workflow_job": "workflow job",
    "status": "commit status",
    "deployment_status": "deployment",
    "pull_request_review": "review",
    "issue_comment": "comment",
    "commit_comment": "comment",
    "note": "comment",
}

# Kinds that are somebody speaking, and how that is told.
SAYING: dict[str, str] = {
    "comment": "commented",
    "issue_comment": "commented",
    "commit_comment": "commented",
    "pull_request_review_comment": "commented on the code",
    "note": "commented",
    "review": "reviewed",
    "pull_request_review": "reviewed",
    "message": "wrote",
    "push": "pushed",
}

# Actions of those kinds that say no more than that somebody spoke.
MERE_SAYING: frozenset[str] = frozenset({"", "created", "posted", "sent", "submitted", "published", "pushed"})

# Kinds that a machine runs.
RUNS: frozenset[str] = frozenset(
    {
        "check_run", "check_suite", "workflow_run", "workflow_job", "status", "deployment_status", "pipeline",
        "build", "job",
    }
)  # fmt: skip

# Kinds whose text begins with a line that ends with a result, in the tool's own word.
TELLING_RESULTS: frozenset[str] = RUNS | {"deployment", "commit"}

# How tools begin a line about such a run.
RUN_WORDS: frozenset[str] = frozenset(
    {"check", "checks", "workflow", "job", "pipeline", "deployment", "build"}
)

# Actions that read badly as they are.
VERBS: dict[str, str] = {
    "synchronize": "updated with new commits",
    "success": "passed",
    "succeeded": "passed",
    "failure": "failed",
    "timed_out": "timed out and failed",
    "changes_requested": "sent back with changes requested",
    "completed": "completed",
    "create": "created",
    "delete": "deleted",
    "open": "opened",
    "close": "closed",
    "merge": "merged",
    "update": "updated",
    "reopen": "reopened",
}

# Words of our sentences that say in which state something now is, by what they are a state of.
STATES: dict[str, str] = {
    "opened": "life",
    "reopened": "life",
    "created": "life",
    "closed": "life",
    "merged": "life",
    "deleted": "life",
    "resolved": "life",
    "done": "life",
    "locked": "life",
    "draft": "life",
    "released": "release",
    "published": "release",
    "deployed": "release",
    "failed": "run",
    "failure": "run",
    "passed": "run",
    "success": "run",
    "cancelled": "run",
    "completed": "run",
    "error": "run",
    "triggered": "alarm",
    "firing": "alarm",
    "acknowledged": "alarm",
    "approved": "review",
    "changes": "review",
    "dismissed": "review",
}

FAILURES: frozenset[str] = frozenset({"failed", "failure", "error", "triggered", "firing", "changes"})

# Actions, and ends of runs, that say that something went wrong, or that it is right again.
BAD_RESULTS: frozenset[str] = frozenset(
    {
        "failed", "failure", "error", "errored", "timed_out", "timed out", "startup failure", "triggered",
        "firing", "alerting", "breached", "down",
    }
)  # fmt: skip
GOOD_RESULTS: frozenset[str] = frozenset(
    {"success", "succeeded", "passed", "fixed", "resolved", "ok", "recovered", "up", "merged"}
)
TRANSITIONS: frozenset[str] = frozenset(
    {
        "opened", "open", "reopened", "reopen", "closed", "close", "merged", "merge", "resolved", "released",
        "published", "deployed", "approved", "changes_requested", "triggered", "acknowledged", "transitioned",
        "escalated", "reassigned",
    }
)  # fmt: skip

# How much a kind matters by itself, 0..1, by the words of its name; the greatest counts.
KIND_WORTH: dict[str, float] = {
    "incident": 1.0,
    "alert": 1.0,
    "alarm": 1.0,
    "vulnerability": 1.0,
    "security": 1.0,
    "advisory": 1.0,
    "dependabot": 0.8,
    "scanning": 0.8,
    "deployment": 0.7,
    "release": 0.7,
    "pipeline": 0.5,
    "workflow": 0.5,
    "check": 0.5,
    "build": 0.5,
    "job": 0.5,
    "pull": 0.5,
    "merge": 0.5,
    "review": 0.5,
    "issue": 0.5,
    "ticket": 0.5,
    "bug": 0.7,
    "push": 0.3,
    "commit": 0.3,
    "branch": 0.2,
    "tag": 0.2,
    "comment": 0.25,
    "note": 0.25,
    "message": 0.25,
    "star": 0.0,
    "watch": 0.0,
    "fork": 0.05,
    "ping": 0.0,
    "reaction": 0.05,
}
UNKNOWN_KIND_WORTH = 0.3

LABELING_ACTIONS: frozenset[str] = frozenset({"labeled", "labelled", "label_added", "tagged"})
GRAVE_LABELS: frozenset[str] = frozenset(
    {
        "bug", "security", "incident", "critical", "blocker", "p0", "p1", "sev0", "sev1", "sev2", "outage",
        "regression", "vulnerability", "hotfix", "urgent",
    }
)  # fmt: skip

# Words of senders; they count little, whatever they say (see `importance.TEXT_SHARE`).
GRAVE_WORDS: frozenset[str] = frozenset(
    {
        "outage", "incident", "critical", "sev0", "sev1", "p0", "p1", "breach", "vulnerability", "cve",
        "exploit", "crash", "crashed", "crashes", "panic", "oom", "corrupt", "corrupted", "corruption",
        "dataloss", "leak", "deadlock", "down", "unavailable", "failed", "failure", "fatal", "regression",
        "rollback", "urgent", "security",
    }
)  # fmt: skip

# Words that carry no subject matter; English, as most of what tools send.
EMPTY_WORDS: frozenset[str] = frozenset(
    {
        "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
        "does", "for", "from", "had", "has", "have", "he", "her", "his", "how", "i", "if", "in",
        "into", "is", "it", "its", "may", "more", "most", "no", "not", "of", "on", "or", "our",
        "out", "she", "should", "so", "some", "such", "than", "that", "the", "their", "them",
        "then", "there", "these", "they", "this", "to", "too", "up", "us", "was", "we", "were",
        "what", "when", "which", "who", "will", "with", "would", "you", "your",
    }
)  # fmt: skip
