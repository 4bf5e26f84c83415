"""`webhook-cli` against a whole running system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from deploy.ops.tests.harness import Cli, Ran, Runner, until

TOOLS = ("github", "gitlab", "jira", "slack", "acme-deploy")


def pasted(screen: str, begins: str) -> str:
    """The command in the banner that begins so, with its continuation lines."""
    lines = screen.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(begins))
    last = next(i for i in range(first, len(lines)) if not lines[i].endswith("\\"))
    return "\n".join(lines[first : last + 1])


def bash(command: str, cwd: Path) -> Ran:
    done = subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def context(cli: Cli, context_id: str) -> Any:
    """The context once it is enriched."""

    def enriched() -> Any:
        found = cli("contexts", "get", context_id, "--json")
        return found.json if found.code == 0 and found.json["enrichment"] else None

    return until(enriched)


def test_the_pasted_curl_becomes_the_context_that_the_pasted_cli_line_shows(
    running: Runner, cli: Cli
) -> None:
    where = running.var.parent
    sent = bash(pasted(running.screen, "curl"), where)
    assert "202" in sent.out.splitlines()[0], sent
    again = bash(pasted(running.screen, "curl"), where)
    assert '"duplicate":true' in again.out, again
    line = next(line for line in running.screen.splitlines() if "webhook-cli" in line)
    until(lambda: bash(line, where).code == 0)
    shown = bash(line, where)
    assert "Checkout fails for baskets above 100 items" in shown.out
    assert context(cli, line.split()[-1])["event_count"] == 1


def test_status_shows_every_process_the_backlog_and_the_contexts(cli: Cli) -> None:
    seen = cli("status", "--json")
    assert seen.code == 0, seen
    assert {process["health"] for process in seen.json["processes"]} == {"serving"}
    assert len(seen.json["processes"]) == 6
    assert [stage["stage"] for stage in seen.json["backlog"]] == ["events", "enrichment"]
    assert seen.json["well"] is True
    assert "serving" in cli("status").out


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_sent_as_a_tool_signs_is_accepted(cli: Cli, tool: str) -> None:
    sent = cli("send", tool, "--json")
    assert sent.code == 0, sent
    (only,) = sent.json["sent"]
    assert only["status"] in {200, 202}
    assert only["event_id"]


def test_many_are_sent_and_become_contexts(cli: Cli) -> None:
    sent = cli("send", "jira", "--count", "30", "--json")
    assert sent.code == 0, sent
    assert len({one["event_id"] for one in sent.json["sent"]}) == 30

    def at_rest() -> bool:
        page = cli("contexts", "list", "--tool", "jira", "--limit", "500", "--json").json
        # Once each is understood, none moves to the front any more.
        understood = [one for one in page["contexts"] if one["enrichment"] and one["enrichment"]["summary"]]
        return len(understood) == len(page["contexts"]) >= 30

    until(at_rest, within_s=60)
    first = cli("contexts", "list", "--tool", "jira", "--limit", "10", "--json").json
    second = cli(
        "contexts",
        "list",
        "--tool",
        "jira",
        "--limit",
        "10",
        "--page-token",
        first["next_page_token"],
        "--json",
    ).json
    ids = [[one["context_id"] for one in page["contexts"]] for page in (first, second)]
    assert [len(page) for page in ids] == [10, 10]
    assert not set(ids[0]) & set(ids[1])


def test_a_payload_of_ones_own_is_read_from_standard_input(cli: Cli) -> None:
    body = b'{"zen":"Keep it simple.","repository":{"full_name":"octo/zen"}}'
    sent = cli("send", "github", "--event", "ping", "--payload", "-", "--json", stdin=body)
    assert sent.code == 0, sent
    assert sent.json["sent"][0]["event_type"] == "ping"


def test_slacks_handshake_is_answered_with_its_challenge(cli: Cli) -> None:
    sent = cli("send", "slack", "--sample", "url_verification", "--json")
    assert sent.code == 0
    assert sent.json["sent"][0]["answer"]


def test_a_forgery_is_refused_with_exit_code_1(cli: Cli) -> None:
    forged = cli("send", "github", "--secret-ref", "env:WRONG", "--json", WRONG="not the secret")
    assert forged.code == 1
    assert forged.json["sent"][0]["status"] == 401


def test_search_finds_by_meaning(cli: Cli) -> None:
    assert cli("send", "github", "--sample", "issues_opened").code == 0
    until(
        lambda: [
            match
            for match in cli("contexts", "search", "passengers received identical places", "--json").json[
                "matches"
            ]
            if match["similarity"] > 0.3 and match["context"]["tool"] == "github"
        ]
    )


def test_a_context_shows_its_summary_and_its_payloads_on_request(cli: Cli) -> None:
    assert cli("send", "gitlab", "--sample", "merge_request_opened").code == 0
    listed = until(lambda: cli("contexts", "list", "--kind", "merge_request", "--json").json["contexts"])
    shown = context(cli, listed[0]["context_id"])
    assert shown["enrichment"]["summary"]
    assert shown["events"]
    assert all(not event["payload"] for event in shown["events"])
    whole = cli("contexts", "get", listed[0]["context_id"], "--payloads", "--json").json
    assert '"object_kind":"merge_request"' in whole["events"][0]["payload"]
    assert "summary" in cli("contexts", "get", listed[0]["context_id"]).out


def test_what_is_not_there_ends_with_5_and_says_where_to_look(cli: Cli) -> None:
    for arguments in (
        ("contexts", "get", "github:no/such:issue:1"),
        ("dlq", "show", "1-0"),
        ("sources", "show", "nobody"),
    ):
        missing = cli(*arguments)
        assert missing.code == 5, missing
        assert "NOT_FOUND" in missing.err
        assert "try: `webhook-cli" in missing.err
    told = cli("contexts", "get", "github:no/such:issue:1", "--json")
    assert told.out == ""
    assert '"reason":"CONTEXT_NOT_FOUND"' in told.err


def test_there_are_no_dead_letters_in_a_well_system(cli: Cli) -> None:
    assert cli("dlq", "list", "--json").json["dead_letters"] == []
    assert "No dead letters" in cli("dlq", "list").out


def test_sources_show_whether_their_secrets_can_be_read(cli: Cli) -> None:
    tools = {source["tool"]: source for source in cli("sources", "list", "--json").json["sources"]}
    assert set(TOOLS) <= set(tools)
    shown = cli("sources", "show", "github", "--json").json
    assert shown["secrets"][0]["usable"] is True
    assert shown["secrets"][0]["reference"] == "env:GITHUB_WEBHOOK_SECRET"
    assert "hmac-sha256" in cli("sources", "show", "github").out


def test_a_key_does_what_its_role_allows(cli: Cli) -> None:
    made = cli(
        "keys", "create", "ci", "--role", "reader", "--tenant", "default", "--expires-in", "1h", "--json"
    )
    assert made.code == 0, made
    key = made.json["secret"]
    assert cli("contexts", "list", WEBHOOK_API_KEY=key).code == 0
    denied = cli("dlq", "list", WEBHOOK_API_KEY=key)
    assert denied.code == 4, denied
    assert "PERMISSION_DENIED" in denied.err


def test_a_revoked_key_is_worth_nothing(cli: Cli) -> None:
    made = cli("keys", "create", "gone", "--role", "operator", "--tenant", "*", "--json").json
    assert cli("keys", "revoke", made["api_key"]["key_id"]).code == 0
    # It was never used, so no service remembers it as good.
    assert cli("contexts", "list", WEBHOOK_API_KEY=made["secret"]).code == 4
    assert cli("keys", "revoke", made["api_key"]["key_id"]).code == 5


def test_a_wrong_key_ends_with_4_and_says_how_to_give_a_good_one(cli: Cli) -> None:
    denied = cli("--api-key", "whk_nobody_nothing", "contexts", "list")
    assert denied.code == 4
    assert "CREDENTIAL_INVALID" in denied.err
    assert "WEBHOOK_API_KEY" in denied.err


@pytest.mark.parametrize(
    "arguments", [("status",), ("contexts", "list"), ("dlq", "list"), ("contexts", "get", "a:b:c:d")]
)
def test_where_nothing_runs_it_says_how_to_start(lonely_cli: Cli, arguments: tuple[str, ...]) -> None:
    told = lonely_cli(*arguments)
    assert told.code == 3, told
    assert "make run" in told.err
    assert "WEBHOOK_CONTEXT_ADDRESS" in told.err
    assert "Traceback" not in told.err


def test_sending_where_nothing_runs_ends_with_3(lonely_cli: Cli) -> None:
    told = lonely_cli("send", "github", GITHUB_WEBHOOK_SECRET="a secret of this test")
    assert told.code == 3, told
    assert "make run" in told.err


def test_every_sender_of_the_catalogue_can_be_sent_for(lonely_cli: Cli) -> None:
    # It got as far as the connection: body and signature were made.
    assert lonely_cli("send", "stripe", "--count", "2", STRIPE_WEBHOOK_SECRET="a secret").code == 3
    told = lonely_cli("send", "standard-webhooks", STANDARD_WEBHOOKS_WEBHOOK_SECRET="no such kind")
    assert told.code == 2
    assert "whsec_, whsk_" in told.err
    assert "no such kind" not in told.err


def test_an_unknown_secret_is_asked_for(lonely_cli: Cli) -> None:
    told = lonely_cli("send", "acme-deploy")
    assert told.code == 2
    assert "ACME_DEPLOY_WEBHOOK_SECRET" in told.err


def test_help_teaches_with_examples(lonely_cli: Cli) -> None:
    assert "Exit codes" in lonely_cli("--help").out
    for command in (
        ("status",),
        ("send",),
        ("contexts", "get"),
        ("contexts", "list"),
        ("contexts", "search"),
        ("dlq", "list"),
        ("dlq", "show"),
        ("sources", "list"),
        ("sources", "show"),
        ("keys", "create"),
        ("keys", "revoke"),
        ("keys", "rotate"),
        ("keys", "status"),
        ("quotas",),
        ("config", "check"),
    ):
        told = lonely_cli(*command, "--help")
        assert told.code == 0
        assert "Example" in told.out, command
        assert "--json" in told.out, command


def test_tail_shows_what_is_accepted(running: Runner, cli: Cli) -> None:
    program = Path(sys.executable).with_name("webhook-cli")
    command = [program, "--var", running.var, "tail", "--tool", "gitlab", "--count", "2", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.environ, text=True
    ) as tail:
        assert tail.stderr is not None
        assert "from here on" in tail.stderr.readline()
        assert cli("send", "github").code == 0
        sent = cli("send", "gitlab", "--count", "2", "--json").json["sent"]
        shown, _ = tail.communicate(timeout=10)
    assert tail.returncode == 0
    rows = [orjson.loads(line) for line in shown.splitlines()]
    # They are sent side by side, so either may be the first.
    assert {row["event_id"] for row in rows} == {one["event_id"] for one in sent}
    assert {row["tool"] for row in rows} == {"gitlab"}


def test_tail_says_what_is_wrong(cli: Cli) -> None:
    refused = cli("tail", "--from", "nonsense")
    assert (refused.code, "resume_token" in refused.err) == (2, True)
    away = cli("tail", WEBHOOK_GATEWAY_ADDRESS="127.0.0.1:9")
    assert away.code == 3
    far = cli("tail", WEBHOOK_GATEWAY_ADDRESS="gateway.example:50050")
    assert (far.code, "WEBHOOK_ALLOW_PLAIN_TEXT" in far.err) == (1, True)
