"""What happens outside, and what is to be known of it afterwards: one story per kind of sender."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests import payloads
from tests.senders import Delivery
from tests.system import Senders


@dataclass(frozen=True)
class Story:
    """A thing and what happens to it.

    Attributes:
        name: Of the test.
        happenings: Signed deliveries, in order; each time anew, with new ids.
        context_id: What the thing is called here.
        kind: What it is.
        title: Its title at the end.
        state: Its state at the end, in the sender's words; empty where it has none.
        types: The type of each event, as the sender names it.
        actor: Somebody who took part.
        question: Asks for it in words that it does not use.
    """

    name: str
    happenings: Callable[[Senders], Sequence[Delivery]]
    context_id: str
    kind: str
    title: str
    state: str
    types: tuple[str, ...]
    actor: str
    question: str


def _github(senders: Senders) -> Sequence[Delivery]:
    subject = ("octo/shop", 42, "Checkout times out for baskets above 100 items")
    text = "Since release 2.4.1 the payment page answers 504 when a basket is large. Étienne saw it, too. 🛒"
    sender = senders.github
    return (
        sender.deliver("issues", payloads.github_issue(*subject, text)),
        sender.deliver(
            "issue_comment", payloads.github_comment(*subject, "The price rules are read once per item.")
        ),
        sender.deliver("issues", payloads.github_issue(*subject, text, action="closed")),
    )


def _gitlab(senders: Senders) -> Sequence[Delivery]:
    subject = ("platform/billing", 7, "Add retries to the invoice export job")
    text = "The nightly export gives up at the first network error."
    merged = payloads.gitlab_merge_request(*subject, text, action="merge", state="merged")
    return (
        senders.gitlab.deliver("Merge Request Hook", payloads.gitlab_merge_request(*subject, text)),
        senders.gitlab.deliver("Merge Request Hook", merged),
    )


def _signing_gitlab(senders: Senders) -> Sequence[Delivery]:
    issue = payloads.gitlab_issue(
        "platform/mobile",
        11,
        "App crashes when the camera permission is denied",
        "Happens on Android 15 only.",
    )
    return (senders.signing_gitlab.deliver("Issue Hook", issue),)


def _jira(senders: Senders) -> Sequence[Delivery]:
    subject = ("OPS-318", "Single sign-on fails after the certificate was renewed", "Users see error 403.")
    done = payloads.jira_issue(*subject, event="jira:issue_updated", status="Done")
    return (senders.jira.deliver(payloads.jira_issue(*subject)), senders.jira.deliver(done))


def _slack(senders: Senders) -> Sequence[Delivery]:
    first = "1795166400.000100"
    opening = payloads.slack_message("C024BE91L", first, "Database disk is nearly full on db-eu-3")
    reply = payloads.slack_message(
        "C024BE91L", "1795166460.000200", "I am deleting old backups now", thread_ts=first
    )
    return (senders.slack.deliver(opening), senders.slack.deliver(reply))


def _standard(senders: Senders) -> Sequence[Delivery]:
    invoice = {
        "object": "invoice",
        "id": "inv_8841",
        "title": "Invoice for the annual subscription of Umbrella Bakery",
        "status": "paid",
        "customer_name": "Umbrella Bakery",
    }
    return (senders.standard.deliver(payloads.standard("invoice.paid", invoice)),)


def _any_tool(senders: Senders) -> Sequence[Delivery]:
    subject = ("dep-20261120-7", "Recommendation engine to production")
    deliver = senders.acme.deliver
    return (
        deliver("deployment", payloads.deployment(*subject, "started", "Rolling out build 5120")),
        deliver("deployment", payloads.deployment(*subject, "failed", "Health checks never turned green")),
    )


STORIES = (
    Story(
        name="github",
        happenings=_github,
        context_id="github:octo/shop:issue:42",
        kind="issue",
        title="Checkout times out for baskets above 100 items",
        state="closed",
        types=("issues", "issue_comment", "issues"),
        actor="mona",
        question="customers cannot pay for big shopping carts",
    ),
    Story(
        name="gitlab-token",
        happenings=_gitlab,
        context_id="gitlab:platform/billing:merge_request:7",
        kind="merge_request",
        title="Add retries to the invoice export job",
        state="merged",
        types=("merge_request", "merge_request"),
        actor="Ada Lovelace",
        question="try again when sending bills out at night does not work",
    ),
    Story(
        name="gitlab-signing-secret",
        happenings=_signing_gitlab,
        context_id="gitlab:platform/mobile:issue:11",
        kind="issue",
        title="App crashes when the camera permission is denied",
        state="opened",
        types=("issue",),
        actor="Ada Lovelace",
        question="smartphone program stops when it may not take photos",
    ),
    Story(
        name="jira",
        happenings=_jira,
        context_id="jira:example.atlassian.net:issue:OPS-318",
        kind="issue",
        title="Single sign-on fails after the certificate was renewed",
        state="Done",
        types=("jira:issue_created", "jira:issue_updated"),
        actor="Grace Hopper",
        question="people cannot log in with their company account",
    ),
    Story(
        name="slack",
        happenings=_slack,
        context_id="slack:T061EG9R6:thread:C024BE91L/1795166400.000100",
        kind="thread",
        title="Database disk is nearly full on db-eu-3",
        state="",
        types=("message", "message"),
        actor="Margaret Hamilton",
        question="running out of storage space on a server",
    ),
    Story(
        name="standard-webhooks",
        happenings=_standard,
        context_id="standard-webhooks:invoice:inv_8841",
        kind="invoice",
        title="Invoice for the annual subscription of Umbrella Bakery",
        state="paid",
        types=("invoice.paid",),
        actor="",
        question="a bread shop settled its yearly bill",
    ),
    Story(
        name="any-tool",
        happenings=_any_tool,
        context_id="acme-deploy:deployment:dep-20261120-7",
        kind="deployment",
        title="Recommendation engine to production",
        state="failed",
        types=("deployment", "deployment"),
        actor="release-bot",
        question="new version of product suggestions could not be released",
    ),
)
