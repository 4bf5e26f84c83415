"""Payloads shaped as their senders shape them, as small as a test can do with."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_OPENED, _CLOSED = "2026-11-20T09:30:00Z", "2026-11-21T16:05:00Z"


def github_issue(
    repository: str, number: int, title: str, body: str, *, action: str = "opened", login: str = "mona"
) -> Json:
    """An `issues` event."""
    closed = action == "closed"
    issue = {
        **_github_issue(repository, number, title, login),
        "body": body,
        "state": "closed" if closed else "open",
        "state_reason": "completed" if closed else None,
        "updated_at": _CLOSED if closed else _OPENED,
        "closed_at": _CLOSED if closed else None,
    }
    return {"action": action, "issue": issue, **_github_tail(repository, login)}


def github_comment(repository: str, number: int, title: str, text: str, *, login: str = "hubot") -> Json:
    """An `issue_comment` event, between opening and closing."""
    moment = "2026-11-20T18:00:00Z"
    issue = {**_github_issue(repository, number, title, "mona"), "state": "open", "updated_at": moment}
    comment = {
        "id": uuid.uuid4().int % 10**10,
        "html_url": f"https://github.com/{repository}/issues/{number}#issuecomment-1",
        "body": text,
        "user": {"login": login},
        "created_at": moment,
        "updated_at": moment,
    }
    return {"action": "created", "issue": issue, "comment": comment, **_github_tail(repository, login)}


def _github_issue(repository: str, number: int, title: str, login: str) -> Json:
    return {
        "id": 10**9 + number,
        "number": number,
        "title": title,
        "html_url": f"https://github.com/{repository}/issues/{number}",
        "user": {"login": login, "type": "User"},
        "labels": [{"name": "bug", "color": "d73a4a"}],
        "created_at": _OPENED,
    }


def _github_tail(repository: str, login: str) -> Json:
    owner, _, name = repository.partition("/")
    return {
        "repository": {
            "id": 186853002,
            "name": name,
            "full_name": repository,
            "owner": {"login": owner},
            "html_url": f"https://github.com/{repository}",
            "private": False,
        },
        "sender": {"login": login, "type": "User"},
    }


def gitlab_merge_request(
    project: str, iid: int, title: str, description: str, *, action: str = "open", state: str = "opened"
) -> Json:
    """A `Merge Request Hook`."""
    return {
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": {"name": "Ada Lovelace", "username": "ada"},
        "project": _gitlab_project(project),
        "object_attributes": {
            "iid": iid,
            "title": title,
            "description": description,
            "state": state,
            "action": action,
            "source_branch": "feature",
            "target_branch": "main",
            "url": f"https://gitlab.example.com/{project}/-/merge_requests/{iid}",
            "created_at": "2026-11-20 09:30:00 UTC",
            "updated_at": "2026-11-20 09:30:00 UTC" if action == "open" else "2026-11-21 16:05:00 UTC",
            "last_commit": {"id": "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", "message": title},
        },
        "labels": [{"title": "backend"}],
    }


def gitlab_issue(project: str, iid: int, title: str, description: str) -> Json:
    """An `Issue Hook`."""
    return {
        "object_kind": "issue",
        "event_type": "issue",
        "user": {"name": "Ada Lovelace", "username": "ada"},
        "project": _gitlab_project(project),
        "object_attributes": {
            "iid": iid,
            "title": title,
            "description": description,
            "state": "opened",
            "action": "open",
            "type": "Issue",
            "url": f"https://gitlab.example.com/{project}/-/issues/{iid}",
            "created_at": "2026-11-20 09:30:00 UTC",
            "updated_at": "2026-11-20 09:30:00 UTC",
        },
        "labels": [],
    }


def _gitlab_project(path: str) -> Json:
    return {
        "id": 15,
        "name": path.rpartition("/")[2],
        "path_with_namespace": path,
        "web_url": f"https://gitlab.example.com/{path}",
    }


def jira_issue(
    key: str, summary: str, description: str, *, event: str = "jira:issue_created", status: str = "To Do"
) -> Json:
    """An issue event of a Jira Cloud site."""
    moment_ms = 1_795_166_400_000 + (60_000 if event != "jira:issue_created" else 0)
    return {
        "timestamp": moment_ms,
        "webhookEvent": event,
        "issue_event_type_name": event.removeprefix("jira:"),
        "user": {"accountId": "5b10a2844c20165700ede21g", "displayName": "Grace Hopper"},
        "issue": {
            "id": "10042",
            "self": "https://example.atlassian.net/rest/api/2/issue/10042",
            "key": key,
            "fields": {
                "summary": summary,
                "description": description,
                "status": {"name": status},
                "issuetype": {"name": "Bug"},
                "priority": {"name": "High"},
                "labels": ["login"],
                "assignee": {"displayName": "Grace Hopper"},
            },
        },
    }


def slack_message(channel: str, ts: str, text: str, *, thread_ts: str = "", event_id: str = "") -> Json:
    """An `event_callback` with a message."""
    event = {
        "type": "message",
        "user": "U061F7AUR",
        "user_profile": {"real_name": "Margaret Hamilton"},
        "text": text,
        "ts": ts,
        "channel": channel,
        "event_ts": ts,
        "channel_type": "channel",
    }
    if thread_ts:
        event["thread_ts"] = thread_ts
    return {
        "token": "z26uFbvR1xHJEdHE1OQiO6t8",
        "team_id": "T061EG9R6",
        "api_app_id": "A0PNCHHK2",
        "type": "event_callback",
        "event_id": event_id or f"Ev{uuid.uuid4().hex[:10].upper()}",
        "event_time": int(float(ts)),
        "event": event,
    }


def slack_handshake(challenge: str) -> Json:
    """What Slack sends when somebody enters our address."""
    return {"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": challenge, "type": "url_verification"}


def standard(kind: str, data: Mapping[str, Any]) -> Json:
    """An event as the Standard Webhooks specification shapes it."""
    return {"type": kind, "timestamp": "2026-11-20T09:30:00.000000Z", "data": dict(data)}


def deployment(identity: str, name: str, status: str, message: str) -> Json:
    """What a home-made deployment tool might send."""
    return {
        "type": "deployment",
        "deployment": {
            "id": identity,
            "name": name,
            "status": status,
            "message": message,
            "url": f"https://deploy.example.com/runs/{identity}",
        },
        "actor": {"name": "release-bot"},
        "occurred_at": "2026-11-20T09:30:00Z" if status == "started" else "2026-11-20T09:42:00Z",
    }
