"""Which samples there are, in the order in which their story happens."""

import uuid
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import orjson

from webhook_ops.samples.variation import varied

_DELIVERIES = uuid.UUID("5f8a2d3c-6a0b-4c3e-9d55-0d8f3f0c1e77")


@dataclass(frozen=True, slots=True)
class Sample:
    """One webhook of the story.

    Attributes:
        tool: Who sends it; the name of its route.
        type: The sender's event type.
        name: Unique within the tool.
        description: What happened, in one line.
    """

    tool: str
    type: str
    name: str
    description: str

    @property
    def file(self) -> str:
        """The data file, below this package."""
        return f"{self.tool}/{self.name}.json"

    def delivery_id(self, n: int = 0) -> str:
        """The sender's id of the n-th variation's delivery; always the same for the same n."""
        return str(uuid.uuid5(_DELIVERIES, f"{self.file}:{n}"))


SAMPLES: tuple[Sample, ...] = (
    Sample("slack", "message", "message", "Support reports a double booking in a channel"),
    Sample("jira", "jira:issue_created", "issue_created", "The problem becomes a ticket"),
    Sample("github", "issues", "issues_opened", "The problem becomes an issue, with the steps to see it"),
    Sample("github", "push", "push", "A new branch with two commits"),
    Sample("github", "pull_request", "pull_request_opened", "A pull request that closes the issue"),
    Sample("jira", "jira:issue_updated", "issue_updated", "The ticket goes from To Do to In Review"),
    Sample("github", "workflow_run", "workflow_run_failed", "The tests of the pull request fail"),
    Sample("gitlab", "merge_request", "merge_request_opened", "The infrastructure's part of the change"),
    Sample("gitlab", "pipeline", "pipeline_failed", "Its pipeline fails while planning"),
    Sample("github", "issue_comment", "issue_comment_created", "A reviewer asks for more"),
    Sample("jira", "comment_created", "comment_created", "How the review goes, told in the ticket"),
    Sample("slack", "message", "message_in_thread", "The team answers in the thread"),
    Sample("gitlab", "note", "note_on_merge_request", "Why the pipeline failed"),
    Sample("github", "pull_request", "pull_request_merged", "The pull request is merged"),
    Sample("acme-deploy", "deployment.failed", "deployment_failed", "Its first deployment is rolled back"),
    Sample("acme-deploy", "deployment.finished", "deployment_finished", "Its second deployment stays"),
    Sample("slack", "url_verification", "url_verification", "Slack's handshake; it becomes no event"),
)


def sample(tool: str, name: str) -> Sample:
    """The sample of that name; raises KeyError with the names there are."""
    for each in SAMPLES:
        if (each.tool, each.name) == (tool, name):
            return each
    raise KeyError(f"no sample {tool}/{name}; there are {', '.join(each.file for each in SAMPLES)}")


@cache
def body(each: Sample) -> bytes:
    """The sample's body as its sender would send it: JSON without spaces."""
    return orjson.dumps(orjson.loads((files("webhook_ops.samples") / each.file).read_bytes()))


def vary(each: Sample, n: int) -> bytes:
    """The body of the n-th variation of the story (n >= 0; 0 is the story itself).

    Samples varied by the same n still belong together: same numbers, people and commits, so that their
    contexts link up.
    """
    return varied(body(each), n)
