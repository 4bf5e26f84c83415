"""What hand-written webhooks of each tool come to."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.normalize import Append, NormalizeError, Normalizer, normalize

SHA = "1a954628a960aaef81d7b2d4521929579f3541e6"
NONE = "0" * 40
REPOSITORY = {"full_name": "octo/hello", "html_url": "https://github.com/octo/hello", "pushed_at": 1795165129}
PROJECT = {"path_with_namespace": "octo/ops/infra", "web_url": "https://gitlab.com/octo/ops/infra"}
SITE = "https://octo.atlassian.example"

ISSUE = {
    "key": "OPS-12",
    "self": f"{SITE}/rest/api/2/issue/1",
    "fields": {
        "summary": "No hello",
        "status": {"name": "In Review"},
        "labels": ["web"],
        "description": "Like OPS-3, not UTF-8; https://github.com/octo/hello/pull/42",
        "issuelinks": [{"type": {"outward": "is blocked by"}, "outwardIssue": {"key": "OPS-2"}}],
        "parent": {"key": "OPS-1"},
    },
}
SAID = {
    "type": "message",
    "channel": "C1",
    "user": "U1",
    "text": "See <https://github.com/octo/hello/pull/42|the fix> &amp; tell <@U2> in <#C2|ops>",
    "ts": "1795168230.447219",
}
MESSAGE = {
    "type": "event_callback",
    "token": "verysecret",
    "team_id": "T1",
    "event_time": 1795168230,
    "event": SAID,
}


def event(tool: str, event_type: str, payload: Any, **fields: Any) -> WebhookEvent:
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    fields = {"content_type": "application/json", **fields}
    return WebhookEvent(tool=tool, type=event_type, payload=body, **fields)


def only(tool: str, event_type: str, payload: Any, **fields: Any) -> Append:
    (append,) = normalize(event(tool, event_type, payload, **fields))
    return append


def ties(append: Append) -> set[tuple[str, str]]:
    return {(link.relation, link.context_id) for link in append.links}


def pull_request(**changes: Any) -> dict[str, Any]:
    return {
        "number": 42,
        "title": "Say hello",
        "state": "open",
        "body": "Fixes #12, see octo/other#3 and https://octo.atlassian.example/browse/OPS-7",
        "html_url": "https://github.com/octo/hello/pull/42",
        "updated_at": "2026-11-20T09:02:11Z",
        "labels": [{"name": "bug"}, {"name": "greeting"}],
        "head": {"sha": SHA, "ref": "say-hello", "repo": {"full_name": "octo/hello"}},
        "base": {"ref": "main"},
        **changes,
    }


class TestGitHub:
    def test_a_pull_request_knows_its_issue_its_commit_and_the_ticket(self) -> None:
        payload = {"action": "opened", "pull_request": pull_request(), "repository": REPOSITORY}
        append = only("github", "pull_request", payload | {"sender": {"login": "ada"}})
        assert append.context_id == "github:octo/hello:pull_request:42"
        assert append.kind == "pull_request"
        assert append.actor == "ada"
        assert append.action == "opened"
        assert append.title == "Say hello"
        assert append.state == "open"
        assert append.labels == ("bug", "greeting")
        assert append.context_url == "https://github.com/octo/hello/pull/42"
        assert append.occurred == datetime(2026, 11, 20, 9, 2, 11, tzinfo=UTC)
        assert append.text.startswith("ada opened pull request 42: Say hello\nFixes #12")
        assert ties(append) == {
            ("head_commit", f"github:octo/hello:commit:{SHA}"),
            ("branch", "github:octo/hello:branch:say-hello"),
            ("fixes", "github:octo/hello:issue:12"),
            ("mentions", "github:octo/other:issue:3"),
            ("mentions", "jira:octo.atlassian.example:issue:OPS-7"),
        }

    @pytest.mark.parametrize(
        ("changes", "state"),
        [
            ({"merged": True, "state": "closed"}, "merged"),
            ({"merged_at": "2026-11-20T09:02:11Z", "state": "closed"}, "merged"),
            ({"draft": True}, "draft"),
            ({"draft": True, "state": "closed"}, "closed"),
            ({}, "open"),
        ],
    )
    def test_states_of_a_pull_request(self, changes: dict[str, Any], state: str) -> None:
        payload = {"action": "closed", "pull_request": pull_request(**changes), "repository": REPOSITORY}
        assert only("github", "pull_request", payload).state == state

    def test_a_merge_says_so(self) -> None:
        merged = pull_request(merged=True, merged_at="2026-11-20T09:02:11Z", merge_commit_sha="f" * 40)
        payload = {"action": "closed", "pull_request": merged, "repository": REPOSITORY}
        append = only("github", "pull_request", payload | {"sender": {"login": "ada"}})
        assert append.text == "ada merged pull request 42: Say hello"
        assert ("merge_commit", f"github:octo/hello:commit:{'f' * 40}") in ties(append)

    def test_a_comment_belongs_to_its_issue_or_its_pull_request(self) -> None:
        issue = {"number": 7, "title": "No hello", "state": "closed"}
        payload = {"action": "created", "comment": {"body": "Same as #9"}, "repository": REPOSITORY}
        on_issue = only("github", "issue_comment", payload | {"issue": issue})
        assert on_issue.context_id == "github:octo/hello:issue:7"
        assert on_issue.state == "closed"
        assert ties(on_issue) == {("mentions", "github:octo/hello:issue:9")}
        on_pull = only("github", "issue_comment", payload | {"issue": issue | {"pull_request": {"url": "x"}}})
        assert on_pull.context_id == "github:octo/hello:pull_request:7"
        assert on_pull.kind == "pull_request"
        assert on_pull.state == "", "whether it was merged is not said here"

    def test_a_push_is_one_event_of_its_branch(self) -> None:
        payload = {
            "ref": "refs/heads/feature/x y",
            "before": NONE,
            "after": SHA,
            "created": True,
            "repository": REPOSITORY,
            "pusher": {"name": "ada"},
            "commits": [
                {"id": "a" * 40, "message": "First\n\nwith details", "author": {"username": "ada"}},
                {"id": SHA, "message": "Second, closes #5", "author": {"name": "Bob"}},
            ],
            "head_commit": {"modified": ["a.py", "b.py"], "added": []},
        }
        append = only("github", "push", payload)
        assert append.context_id == "github:octo/hello:branch:feature/x%20y"
        assert append.kind == "branch"
        assert append.state == "created"
        assert append.text.splitlines() == [
            "ada pushed to feature/x y of octo/hello, commits: 2",
            "aaaaaaa First (ada)",
            "1a95462 Second, closes #5 (Bob)",
            "Changed: a.py, b.py",
        ]
        assert ties(append) == {
            ("head_commit", f"github:octo/hello:commit:{SHA}"),
            ("commit", f"github:octo/hello:commit:{'a' * 40}"),
            ("fixes", "github:octo/hello:issue:5"),
        }
        assert append.occurred == datetime.fromtimestamp(1795165129, UTC)

    def test_a_tag_and_its_end(self) -> None:
        pushed = only("github", "push", {"ref": "refs/tags/v1", "after": SHA, "repository": REPOSITORY})
        assert (pushed.context_id, pushed.kind) == ("github:octo/hello:tag:v1", "tag")
        gone = {"ref": "refs/tags/v1", "after": NONE, "deleted": True, "repository": REPOSITORY}
        deleted = only("github", "push", gone | {"pusher": {"name": "ada"}})
        assert deleted.state == "deleted"
        assert deleted.text == "ada deleted v1 of octo/hello"
        assert deleted.links == ()
        by_name = only("github", "delete", {"ref": "v1", "ref_type": "tag", "repository": REPOSITORY})
        assert by_name.context_id == pushed.context_id

    def test_runs_and_jobs_share_a_context(self) -> None:
        run = {
            "id": 99,
            "name": "Tests",
            "head_branch": "say-hello",
            "head_sha": SHA,
            "conclusion": "failure",
            "run_number": 3,
            "pull_requests": [{"number": 42}],
        }
        of_run = only("github", "workflow_run", {"workflow_run": run, "repository": REPOSITORY})
        assert of_run.context_id == "github:octo/hello:workflow_run:99"
        assert of_run.state == "failure"
        assert ("run_of", "github:octo/hello:pull_request:42") in ties(of_run)
        assert ("head_commit", f"github:octo/hello:commit:{SHA}") in ties(of_run)
        job = {
            "run_id": 99,
            "name": "unit",
            "workflow_name": "Tests",
            "head_branch": "say-hello",
            "conclusion": "failure",
            "steps": [
                {"name": "set up", "conclusion": "success"},
                {"name": "pytest", "conclusion": "failure"},
            ],
        }
        of_job = only("github", "workflow_job", {"workflow_job": job, "repository": REPOSITORY})
        assert of_job.context_id == of_run.context_id
        assert of_job.title == of_run.title
        assert of_job.state == "", "a job's end is not its run's"
        assert of_job.text.splitlines() == ["Job unit ended: failure", "Step pytest: failure"]

    def test_a_sub_issue_concerns_two_contexts(self) -> None:
        payload = {
            "action": "sub_issue_added",
            "parent_issue": {"number": 1, "title": "Parent"},
            "sub_issue": {"number": 2, "title": "Child"},
            "repository": REPOSITORY,
            "sender": {"login": "ada"},
        }
        parent, child = normalize(event("github", "sub_issues", payload))
        assert parent.context_id == "github:octo/hello:issue:1"
        assert ties(parent) == {("has_part", "github:octo/hello:issue:2")}
        assert child.context_id == "github:octo/hello:issue:2"
        assert ties(child) == {("part_of", "github:octo/hello:issue:1")}

    @pytest.mark.parametrize(
        "event_type", ["secret_scanning_alert", "secret_scanning_alert_location", "new_kind"]
    )
    def test_a_leaked_secret_goes_no_further(self, event_type: str) -> None:
        alert = {"number": 4, "secret": "ghp_verysecret", "secret_type": "github_token", "state": "open"}
        payload = {"action": "created", "alert": alert, "repository": REPOSITORY}
        append = only("github", event_type, payload)
        assert "verysecret" not in repr(append)

    def test_an_unknown_event_belongs_to_the_repository_or_the_organisation(self) -> None:
        payload = {"action": "polished", "repository": REPOSITORY, "sender": {"login": "ada"}}
        append = only("github", "gem_stone", payload)
        assert append.context_id == "github:octo/hello:repository"
        assert append.text == "ada polished gem stone"
        payload = {"organization": {"login": "octo"}, "sender": {"login": "ada"}}
        assert only("github", "gem_stone", payload).context_id == "github:octo:organization"

    def test_a_form_is_read_like_json(self) -> None:
        payload = {"action": "opened", "issue": {"number": 1, "title": "A & B"}, "repository": REPOSITORY}
        form = urlencode({"payload": orjson.dumps(payload).decode()}).encode()
        append = only("github", "issues", form, content_type="application/x-www-form-urlencoded")
        assert append == only("github", "issues", payload)

    def test_a_source_of_another_name_keeps_it(self) -> None:
        payload = {"issue": {"number": 1, "title": "T"}, "repository": REPOSITORY}
        append = only("github-eu", "issues", payload, headers={"x-github-event": "issues"})
        assert append.context_id == "github-eu:octo/hello:issue:1"

    def test_bare_ticket_keys_mean_the_site_that_the_operator_named(self) -> None:
        payload = {
            "issue": {"number": 1, "title": "T", "body": "UTF-8 broke in OPS-7"},
            "repository": REPOSITORY,
        }
        assert only("github", "issues", payload).links == ()
        (append,) = Normalizer.load(jira_site="octo.atlassian.example").normalize(
            event("github", "issues", payload)
        )
        assert ties(append) == {("mentions", "jira:octo.atlassian.example:issue:OPS-7")}


class TestGitLab:
    def test_a_merge_request(self) -> None:
        payload = {
            "object_kind": "merge_request",
            "user": {"name": "Ada"},
            "project": PROJECT,
            "labels": [{"title": "infra"}],
            "object_attributes": {
                "iid": 9,
                "action": "open",
                "title": "More memory",
                "state": "opened",
                "description": "Closes #3, like !8 and octo/app#4",
                "source_branch": "more-memory",
                "target_branch": "main",
                "url": "https://gitlab.com/octo/ops/infra/-/merge_requests/9",
                "updated_at": "2026-11-20 09:16:04 UTC",
                "last_commit": {"id": SHA},
            },
        }
        append = only("gitlab", "Merge Request Hook", payload)
        assert append.context_id == "gitlab:octo/ops/infra:merge_request:9"
        assert append.type == "merge_request"
        assert append.actor == "Ada"
        assert append.state == "opened"
        assert append.labels == ("infra",)
        assert append.occurred == datetime(2026, 11, 20, 9, 16, 4, tzinfo=UTC)
        assert append.text.splitlines()[0] == "Ada opened merge request 9: More memory"
        assert ties(append) == {
            ("head_commit", f"gitlab:octo/ops/infra:commit:{SHA}"),
            ("branch", "gitlab:octo/ops/infra:branch:more-memory"),
            ("fixes", "gitlab:octo/ops/infra:issue:3"),
            ("mentions", "gitlab:octo/ops/infra:merge_request:8"),
            ("mentions", "gitlab:octo/app:issue:4"),
        }

    def test_a_push_and_a_tag(self) -> None:
        push = {
            "object_kind": "push",
            "ref": "refs/heads/main",
            "before": SHA,
            "after": "b" * 40,
            "user_name": "Ada",
            "total_commits_count": 1,
            "commits": [{"id": "b" * 40, "message": "Fix #2", "timestamp": "2026-11-20T10:00:00+01:00"}],
        }
        append = only("gitlab", "push", push | {"project": PROJECT})
        assert append.context_id == "gitlab:octo/ops/infra:branch:main"
        assert append.text.splitlines() == [
            "Ada pushed to main of octo/ops/infra, commits: 1",
            "bbbbbbb Fix #2",
        ]
        assert append.occurred == datetime(2026, 11, 20, 9, tzinfo=UTC)
        tag = {"object_kind": "tag_push", "ref": "refs/tags/v2", "after": SHA, "project": PROJECT}
        assert only("gitlab", "tag_push", tag).context_id == "gitlab:octo/ops/infra:tag:v2"

    def test_a_failed_pipeline_names_its_failed_jobs_and_hides_its_variables(self) -> None:
        payload = {
            "object_kind": "pipeline",
            "project": PROJECT,
            "object_attributes": {
                "id": 77,
                "ref": "main",
                "sha": SHA,
                "status": "failed",
                "variables": [{"key": "TOKEN", "value": "s3cr3t"}],
            },
            "merge_request": {"iid": 9},
            "builds": [
                {"stage": "test", "name": "unit", "status": "failed", "failure_reason": "script_failure"},
                {"stage": "test", "name": "lint", "status": "success"},
            ],
        }
        append = only("gitlab", "pipeline", payload)
        assert append.context_id == "gitlab:octo/ops/infra:pipeline:77"
        assert append.state == "failed"
        assert append.text.splitlines()[-1] == "test/unit failed: script failure"
        assert "lint" not in append.text
        assert "s3cr3t" not in repr(append)
        assert ("run_of", "gitlab:octo/ops/infra:merge_request:9") in ties(append)
        job = {"object_kind": "build", "pipeline_id": 77, "build_name": "unit", "build_status": "failed"}
        assert only("gitlab", "build", job | {"project": PROJECT}).context_id == append.context_id

    @pytest.mark.parametrize(
        ("subject", "context_id"),
        [
            ({"merge_request": {"iid": 9, "title": "T"}}, "gitlab:octo/ops/infra:merge_request:9"),
            ({"issue": {"iid": 3, "title": "T"}}, "gitlab:octo/ops/infra:issue:3"),
            ({"snippet": {"id": 5, "title": "T"}}, "gitlab:octo/ops/infra:snippet:5"),
            ({"commit": {"id": SHA, "message": "T\n\nmore"}}, f"gitlab:octo/ops/infra:commit:{SHA}"),
        ],
    )
    def test_a_note_belongs_to_what_it_notes(self, subject: dict[str, Any], context_id: str) -> None:
        payload = {"object_kind": "note", "project": PROJECT, "object_attributes": {"note": "Nice"}}
        append = only("gitlab", "note", payload | subject)
        assert append.context_id == context_id
        assert append.title == "T"
        assert append.text.endswith("\nNice")

    @pytest.mark.parametrize(
        ("payload", "context_id"),
        [
            ({"object_kind": "issue", "object_attributes": {"iid": 3}}, "gitlab:octo/ops/infra:issue:3"),
            ({"object_kind": "deployment", "deployment_id": 6}, "gitlab:octo/ops/infra:deployment:6"),
            ({"object_kind": "release", "tag": "v1"}, "gitlab:octo/ops/infra:release:v1"),
            (
                {"object_kind": "wiki_page", "object_attributes": {"slug": "home"}},
                "gitlab:octo/ops/infra:wiki:home",
            ),
            (
                {"object_kind": "feature_flag", "object_attributes": {"name": "x"}},
                "gitlab:octo/ops/infra:project",
            ),
            ({"event_name": "user_add_to_team"}, "gitlab:octo/ops/infra:project"),
        ],
    )
    def test_keys_of_others(self, payload: dict[str, Any], context_id: str) -> None:
        append = only("gitlab", "System Hook", {"project": PROJECT, **payload})
        assert append.context_id == context_id
        assert append.text


class TestJira:
    def test_a_change_reads_as_text(self) -> None:
        payload = {
            "timestamp": 1795165402907,
            "webhookEvent": "jira:issue_updated",
            "issue_event_type_name": "issue_generic",
            "user": {"displayName": "Ada"},
            "issue": ISSUE,
            "changelog": {
                "items": [
                    {"field": "status", "fromString": "To Do", "toString": "In Review"},
                    {"field": "assignee", "fromString": None, "toString": "Ada"},
                    {"field": "Fix Version", "fromString": "1.0", "toString": None},
                    {"field": "duedate", "fromString": None, "toString": ""},
                ]
            },
        }
        append = only("jira", "jira:issue_updated", payload)
        assert append.context_id == "jira:octo.atlassian.example:issue:OPS-12"
        assert append.context_url == f"{SITE}/browse/OPS-12"
        assert append.state == "In Review"
        assert append.labels == ("web",)
        assert append.action == "issue_generic"
        assert append.occurred == datetime(2026, 11, 20, 9, 3, 22, 907000, tzinfo=UTC)
        assert append.text.splitlines() == [
            "Ada updated OPS-12: No hello",
            "status: To Do -> In Review",
            "assignee: Ada",
            "Fix Version: no longer 1.0",
            "duedate cleared",
        ]
        assert ties(append) == {
            ("part_of", "jira:octo.atlassian.example:issue:OPS-1"),
            ("is_blocked_by", "jira:octo.atlassian.example:issue:OPS-2"),
            ("mentions", "jira:octo.atlassian.example:issue:OPS-3"),
            ("mentions", "github:octo/hello:pull_request:42"),
        }

    def test_a_comment_as_text_and_as_a_document(self) -> None:
        document = {
            "type": "doc",
            "content": [
                {"type": "paragraph", "content": [{"type": "text", "text": "First"}]},
                {"type": "paragraph", "content": [{"type": "text", "text": "Second"}]},
            ],
        }
        for body, told in (("Hi [~accountid:712:ab]", "Hi @712:ab"), (document, "First\nSecond")):
            payload = {
                "webhookEvent": "comment_created",
                "comment": {"id": "5", "body": body, "author": {"displayName": "Bob"}},
                "issue": ISSUE,
            }
            append = only("jira", "comment_created", payload)
            assert append.context_id == "jira:octo.atlassian.example:issue:OPS-12"
            assert append.actor == "Bob"
            assert append.url == f"{SITE}/browse/OPS-12?focusedCommentId=5"
            assert append.text == f"Bob commented on OPS-12: No hello\n{told}"
            assert append.labels == (), "a comment's issue is abridged"

    @pytest.mark.parametrize(
        ("event_type", "payload", "context_id"),
        [
            ("jira:issue_deleted", {"issue": ISSUE}, "jira:octo.atlassian.example:issue:OPS-12"),
            (
                "sprint_started",
                {"sprint": {"id": 4, "self": SITE, "name": "S4"}},
                "jira:octo.atlassian.example:sprint:4",
            ),
            (
                "jira:version_released",
                {"version": {"id": "8", "self": SITE, "name": "1.0"}},
                "jira:octo.atlassian.example:version:8",
            ),
            (
                "worklog_created",
                {"worklog": {"self": SITE, "issueId": "1", "timeSpent": "2h"}},
                "jira:octo.atlassian.example:issue_id:1",
            ),
            (
                "project_created",
                {"project": {"self": SITE, "key": "OPS"}},
                "jira:octo.atlassian.example:project:OPS",
            ),
            (
                "issuelink_created",
                {"issueLink": {"sourceIssueId": 1, "destinationIssueId": 2}},
                "jira:issue_id:1",
            ),
            (
                "board_created",
                {"board": {"id": 2, "self": SITE, "name": "B"}},
                "jira:octo.atlassian.example:board:2",
            ),
        ],
    )
    def test_keys_of_others(self, event_type: str, payload: dict[str, Any], context_id: str) -> None:
        append = only("jira", event_type, {"webhookEvent": event_type, **payload})
        assert append.context_id == context_id
        assert append.text


class TestSlack:
    def test_a_message_opens_its_thread(self) -> None:
        append = only("slack", "message", MESSAGE)
        assert append.context_id == "slack:T1:thread:C1/1795168230.447219"
        assert append.text == "U1: See the fix (https://github.com/octo/hello/pull/42) & tell @U2 in #ops"
        assert append.title.startswith("See the fix")
        assert append.occurred == datetime(2026, 11, 20, 9, 50, 30, 447219, tzinfo=UTC)
        assert ties(append) == {
            ("part_of", "slack:T1:channel:C1"),
            ("mentions", "github:octo/hello:pull_request:42"),
        }
        assert "verysecret" not in repr(append)

    def test_a_reply_joins_it_without_renaming_it(self) -> None:
        reply = MESSAGE | {
            "event": SAID | {"ts": "1795168300.000100", "thread_ts": "1795168230.447219", "text": "ok"}
        }
        append = only("slack", "message", reply)
        assert append.context_id == "slack:T1:thread:C1/1795168230.447219"
        assert append.title == ""
        assert append.text == "U1: ok"

    def test_an_edit_and_a_deletion_find_their_thread(self) -> None:
        message = {"user": "U1", "text": "better", "ts": "1.000001", "thread_ts": "1.000000"}
        edit = {"type": "message", "subtype": "message_changed", "channel": "C1", "message": message}
        append = only("slack", "message", MESSAGE | {"event": edit})
        assert append.context_id == "slack:T1:thread:C1/1.000000"
        assert append.action == "message_changed"
        assert append.text == "U1 edited: better"
        gone = {"type": "message", "subtype": "message_deleted", "channel": "C1", "deleted_ts": "1.000001"}
        assert only("slack", "message", MESSAGE | {"event": gone}).context_id == "slack:T1:thread:C1/1.000001"

    @pytest.mark.parametrize(
        ("happened", "context_id"),
        [
            ({"type": "app_mention", "channel": "C1", "ts": "1.1", "text": "hi"}, "slack:T1:thread:C1/1.1"),
            ({"type": "reaction_added", "item": {"channel": "C1", "ts": "1.1"}}, "slack:T1:thread:C1/1.1"),
            ({"type": "channel_created", "channel": {"id": "C9", "name": "new"}}, "slack:T1:channel:C9"),
            ({"type": "channel_archive", "channel": "C9"}, "slack:T1:channel:C9"),
            ({"type": "team_join", "user": {"id": "U7", "name": "eve"}}, "slack:T1:user:U7"),
            ({"type": "app_uninstalled"}, "slack:T1:team"),
        ],
    )
    def test_keys_of_others(self, happened: dict[str, Any], context_id: str) -> None:
        append = only("slack", "event_callback", MESSAGE | {"event": happened})
        assert append.context_id == context_id
        assert append.type == happened["type"]
        assert append.text

    def test_the_handshake_is_harmless(self) -> None:
        payload = {"type": "url_verification", "token": "verysecret", "challenge": "verysecret"}
        assert "verysecret" not in repr(only("slack", "url_verification", payload))


class TestOthers:
    def test_the_thing_is_found_by_its_familiar_names(self) -> None:
        payload = {
            "event": "deployment.failed",
            "occurred_at": "2026-11-20T13:46:37Z",
            "deployment": {
                "id": "dep-1:2",
                "service": "shop",
                "status": "failed",
                "started_at": "2026-11-20T13:40:02Z",
                "url": "https://deploy.acme.example/1",
            },
            "actor": {"name": "Ada", "email": "ada@acme.example"},
            "message": "Rolled back https://github.com/octo/hello/pull/42",
            "tags": ["production"],
            "api_token": "verysecret",
            "auth": {"password": "verysecret"},
        }
        append = only("acme-deploy", "unknown", payload)
        assert append.context_id == "acme-deploy:deployment:dep-1%3A2"
        assert append.kind == "deployment"
        assert append.type == "deployment.failed"
        assert append.title == "shop deployment dep-1:2"
        assert append.actor == "Ada"
        assert append.state == "failed"
        assert append.labels == ("production",)
        assert append.url == "https://deploy.acme.example/1"
        assert append.occurred == datetime(2026, 11, 20, 13, 46, 37, tzinfo=UTC)
        assert append.text.startswith(
            "deployment.failed\nRolled back https://github.com/octo/hello/pull/42\n"
        )
        assert ties(append) == {("mentions", "github:octo/hello:pull_request:42")}
        assert "verysecret" not in repr(append)

    @pytest.mark.parametrize(
        ("payload", "context_id"),
        [
            ({"type": "x", "data": {"object": {"id": "in_1", "object": "invoice"}}}, "acme:invoice:in_1"),
            ({"id": "evt-1", "type": "x", "data": {"build": {"number": 7}}}, "acme:build:7"),
            ({"specversion": "1.0", "id": "1", "source": "/s", "subject": "blob/a"}, "acme:group:blob/a"),
            ({"alerts": [], "groupKey": "{}/{a=b}"}, "acme:group:%7B%7D/%7Ba=b%7D"),
            ({"incident_id": 4}, "acme:incident:4"),
            ({"id": 4}, "acme:item:4"),
            ({}, "acme:type:thing.done"),
            ([], "acme:type:thing.done"),
            ([{"order": {"id": 1}}, {"order": {"id": 2}}], "acme:order:1"),
            ("just text", "acme:type:thing.done"),
            (17, "acme:type:thing.done"),
            (None, "acme:type:thing.done"),
            (True, "acme:type:thing.done"),
        ],
    )
    def test_keys(self, payload: Any, context_id: str) -> None:
        append = only("acme", "thing.done", payload)
        assert append.context_id == context_id
        assert append.title
        assert append.text.startswith("thing.done")
        assert append.kind

    def test_the_envelope_says_when_where_the_body_does_not(self) -> None:
        said = event("acme", "x", {})
        assert normalize(said)[0].occurred is None
        said.occurred_time.FromSeconds(1795168230)
        assert normalize(said)[0].occurred == datetime(2026, 11, 20, 9, 50, 30, tzinfo=UTC)
        said.occurred_time.seconds = 1 << 60
        assert normalize(said)[0].occurred is None

    def test_a_time_from_the_future_is_not_believed(self) -> None:
        said = event("acme", "x", {"occurred_at": "2026-11-22T00:00:00Z"})
        said.received_time.FromJsonString("2026-11-21T06:00:00Z")
        assert normalize(said)[0].occurred == datetime(2026, 11, 22, tzinfo=UTC), "clocks differ"
        said.received_time.FromJsonString("2026-11-20T06:00:00Z")
        assert normalize(said)[0].occurred is None
        said.occurred_time.FromJsonString("2026-11-20T05:59:58Z")
        assert normalize(said)[0].occurred == datetime(2026, 11, 20, 5, 59, 58, tzinfo=UTC)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b"[" * 5000, "application/json"),
        (b"NaN", "application/json"),
        (b"payload=", "application/x-www-form-urlencoded"),
        (b"other={}", "application/x-www-form-urlencoded"),
        (b"\xff", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
    ],
)
def test_what_cannot_be_parsed_is_refused_without_quoting_it(body: bytes, content_type: str) -> None:
    with pytest.raises(NormalizeError, match="not parsable") as caught:
        normalize(event("github", "push", body, content_type=content_type))
    assert caught.value.__cause__ is None
