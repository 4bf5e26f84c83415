"""`webhook-cli secrets` against a whole running system."""

from __future__ import annotations

from pathlib import Path

from deploy.ops.tests.harness import Cli, until

CONFIGURED = "env:JIRA_WEBHOOK_SECRET"


def send(cli: Cli, secret: str) -> int:
    return cli("send", "jira", "--secret-ref", "env:NEW_SECRET", "--json", NEW_SECRET=secret).code


def test_a_rotated_secret_verifies_beside_the_old_one_until_it_is_retired(cli: Cli) -> None:
    made = cli("secrets", "rotate", "jira", "--overlap", "30d", "--json")
    assert made.code == 0, made
    secret, added = made.json["secret"], made.json["added"]
    key_id = added["secret"]["key_id"]
    assert (added["live"], added["secret"]["reference"]) == (True, "stored")
    assert [one["secret"]["key_id"] for one in made.json["ending"]] == [CONFIGURED]
    assert send(cli, secret) == 0
    assert cli("send", "jira").code == 0

    def used() -> bool:
        listed = cli("secrets", "list", "jira", "--json").json["secrets"]
        return all(one["use_count"] and one["last_use_time"] for one in listed)

    until(used)
    listed = cli("secrets", "list", "jira")
    assert key_id in listed.out
    assert secret not in listed.out
    assert "live" in listed.out
    retired = cli("secrets", "retire", "jira", key_id, "--json")
    assert (retired.code, retired.json["retired"]["live"]) == (0, False)
    assert send(cli, secret) == 1
    assert cli("send", "jira").code == 0
    assert "ended" in cli("secrets", "list", "jira").out


def test_a_secret_is_shown_once_and_told_what_to_do_with(cli: Cli) -> None:
    made = cli("secrets", "rotate", "acme-deploy", "--request-id", "cli-1")
    assert made.code == 0, made
    assert "not shown again" in made.out
    assert "24h" in made.out or "1d" in made.out
    assert "rotate anew" in cli("secrets", "rotate", "acme-deploy", "--request-id", "cli-1").out
    again = cli("secrets", "rotate", "acme-deploy", "--request-id", "cli-1", "--json")
    assert again.json["secret"] == ""
    assert again.json["added"]["secret"]["key_id"] in made.out


def test_a_secret_of_the_senders_comes_by_reference_or_by_a_pipe(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("what slack has made\n", encoding="utf-8")
    given = cli("secrets", "rotate", "slack", "--secret-ref", f"file:{tmp_path / 'secret'}", "--json")
    assert (given.code, given.json["secret"]) == (0, "")
    piped = cli("secrets", "rotate", "slack", "--secret-ref", "-", "--json", stdin=b"and another one\n")
    assert piped.code == 0
    sent = cli("send", "slack", "--secret-ref", "env:NEW", "--json", NEW="and another one")
    assert sent.code == 0, sent
    assert cli("secrets", "rotate", "slack", "--secret-ref", "-", stdin=b"\n").code == 2
    assert cli("secrets", "rotate", "slack", "--secret-ref", "env:NOBODY_SET_THIS").code == 2
    known = cli("secrets", "rotate", "slack", "--secret-ref", "-", stdin=b"and another one\n")
    assert known.code == 2
    assert "is live already" in known.err
    assert "and another one" not in known.err


def test_what_is_not_there_or_must_stay_is_told(cli: Cli) -> None:
    assert cli("secrets", "rotate", "nobody").code == 5
    missing = cli("secrets", "retire", "gitlab", "no-such-key")
    assert (missing.code, "webhook-cli secrets list" in missing.err) == (5, True)
    last = cli("secrets", "retire", "gitlab", "env:GITLAB_WEBHOOK_SECRET")
    assert (last.code, "rotate first" in last.err) == (1, True)
    assert cli("secrets", "rotate", "gitlab", "--overlap", "soon").code == 2


def test_help_teaches_with_examples(lonely_cli: Cli) -> None:
    for command in ("list", "rotate", "retire"):
        told = lonely_cli("secrets", command, "--help")
        assert told.code == 0
        assert "Example" in told.out, command
        assert "--json" in told.out, command
