"""Traces that anybody can rebuild: with known structure, shaped like a commit history, of chance."""

from __future__ import annotations

import random
from bisect import bisect
from itertools import accumulate

from webhook_intelligence.prediction.observations import Observation, ObservationKind

Recorded = tuple[str, Observation]

START_S = 1_790_000_000.0
DAY_S = 86_400.0

# The event types of GitHub's published webhook examples, as directories of a source tree.
DIRECTORIES = (
    "branch_protection_rule", "check_run", "check_suite", "code_scanning_alert", "commit_comment", "create",
    "delete", "deploy_key", "deployment", "deployment_status", "discussion", "discussion_comment", "fork",
    "gollum", "installation", "issue_comment", "issues", "label", "marketplace_purchase", "member",
    "membership", "meta", "milestone", "organization", "org_block", "package", "page_build", "ping",
    "project", "project_card", "project_column", "public", "pull_request", "pull_request_review", "push",
    "release", "repository", "repository_dispatch", "secret_scanning_alert", "security_advisory",
    "sponsorship", "star", "status", "team", "team_add", "watch", "workflow_dispatch", "workflow_job",
    "workflow_run",
)  # fmt: skip
FILES = ("payload.json", "schema.json", "types.ts", "handler.py", "README.md", "created.json", "deleted.json")


def structured(*, days: int = 30, groups: int = 400, seed: int = 1) -> list[Recorded]:
    """Pull requests with an issue and a run each: whoever reads the one reads the others within minutes.

    Any group is as likely as any other, so an LRU that holds one in twenty is of little use.
    """
    chance = random.Random(seed)
    trace: list[Recorded] = []
    for day in range(days):
        moment = START_S + day * DAY_S
        for _ in range(60):
            moment += chance.uniform(300, 1400)
            number = chance.randrange(groups)
            pull = f"github:octo/hello:pull_request:{number}"
            issue = f"github:octo/hello:issue:{10_000 + number}"
            run = f"github:octo/hello:workflow_run:{20_000 + number}"
            who = f"dev{chance.randrange(6)}"
            kinds = (ObservationKind.EVENT, ObservationKind.ACCESS, ObservationKind.ACCESS)
            for i, (kind, context_id) in enumerate(zip(kinds, (pull, issue, run), strict=True)):
                if i and chance.random() < 0.2:
                    continue
                links = (issue, run) if context_id == pull else ()
                trace.append(("acme", Observation(moment + 40 * i, kind, context_id, who, links)))
    return trace


def commits(*, days: int = 120, seed: int = 2) -> list[Recorded]:
    """A commit history: authors stay in a directory for a while, and what belongs together changes together.

    Directories are unequally popular, as in any repository; every other commit also touches another one.
    """
    chance = random.Random(seed)
    popularity = list(accumulate(1 / (rank + 4) for rank in range(len(DIRECTORIES))))
    order = chance.sample(DIRECTORIES, len(DIRECTORIES))

    def directory() -> str:
        return order[bisect(popularity, chance.random() * popularity[-1])]

    authors = [f"author{i}" for i in range(8)]
    focus = {author: directory() for author in authors}
    trace: list[Recorded] = []
    for day in range(days):
        moment = START_S + day * DAY_S + 9 * 3600
        for _ in range(chance.randint(4, 14)):
            moment += chance.expovariate(1 / 2400)
            author = chance.choice(authors)
            if chance.random() < 0.35:
                focus[author] = directory()
            trace += _commit(chance, moment, author, focus[author], directory())
    return trace


def _commit(chance: random.Random, moment: float, author: str, where: str, elsewhere: str) -> list[Recorded]:
    first = chance.randrange(len(FILES))
    # Neighbours in the listing belong together: a schema and its types, a handler and its page.
    names = {FILES[first], FILES[first ^ 1 if first ^ 1 < len(FILES) else first]}
    names |= {name for name in FILES if chance.random() < 0.12}
    touched = [f"{where}/{name}" for name in sorted(names)]
    if chance.random() < 0.5:
        touched.append(f"{elsewhere}/{chance.choice(FILES)}")
    chance.shuffle(touched)
    return [
        ("acme", Observation(moment + i, ObservationKind.EVENT, f"git:octo/webhooks:file:{path}", author))
        for i, path in enumerate(touched)
    ]


def noise(*, uses: int = 6000, contexts: int = 800, seed: int = 3) -> list[Recorded]:
    """Chance: nothing follows from anything."""
    chance = random.Random(seed)
    moment = START_S
    trace: list[Recorded] = []
    for _ in range(uses):
        moment += chance.expovariate(1 / 300)
        context_id = f"acme:octo/hello:thing:{chance.randrange(contexts)}"
        trace.append(("acme", Observation(moment, ObservationKind.ACCESS, context_id, f"dev{uses % 5}")))
    return trace
