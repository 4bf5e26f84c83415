"""`webhook-cli rejected`, `quarantine` and `audit` against a whole running system."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
from pydantic import SecretStr
from webhook.security.v1.security_admin_service_pb2 import RotateSecretRequest
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_ops.addresses import Addresses
from webhook_ops.dev.secrets import kept_operator_key
from webhook_shared.redis import connect
from webhook_shared.rpc.channel import connected
from webhook_shared.settings import RedisSection

from deploy.ops.tests.harness import Cli, Ran, Runner, until

NEW_SECRET = "what the sender has been given today"


def rejected(cli: Cli, *arguments: str) -> list[Any]:
    listed = cli("rejected", "list", *arguments, "--json")
    assert listed.code == 0, listed
    return listed.json["rejections"]


def forged(cli: Cli, *arguments: str) -> Any:
    """A delivery signed with a secret that we do not have; how it is listed."""
    before = {each["rejection_id"] for each in rejected(cli)}
    sent = cli("send", *arguments, "--secret-ref", "env:NEW", NEW=NEW_SECRET)
    assert sent.code == 1, sent

    def kept() -> Any:
        return [each for each in rejected(cli) if each["rejection_id"] not in before]

    [found] = until(kept)
    return found


def rotate(addresses: Addresses, var: Path, tool: str) -> None:
    """Have security take the sender's new secret."""

    async def call() -> None:
        key = SecretStr(kept_operator_key(var))
        async with connected(addresses.grpc("security"), key=key, deadline_s=10) as channel:
            request = RotateSecretRequest(tenant="default", tool=tool, secret=NEW_SECRET)
            await SecurityAdminServiceStub(channel).RotateSecret(request)

    asyncio.run(call())


def test_what_was_refused_comes_in_once_the_secret_is_right(running: Runner, cli: Cli) -> None:
    rejection = forged(cli, "gitlab", "--sample", "pipeline_failed")
    assert (rejection["tool"], rejection["cause"]) == ("gitlab", "REFUSAL_SIGNATURE_INVALID")
    assert rejection["retryable"] is True
    rejection_id = rejection["rejection_id"]
    others = rejected(cli, "--tool", "jira", "--cause", "signature_invalid", "--since", "1h")
    assert {each["tool"] for each in others} <= {"jira"}
    shown = cli("rejected", "show", rejection_id, "--payload", "--json")
    assert '"object_kind":"pipeline"' in shown.json["payload"]
    assert NEW_SECRET not in shown.out
    too_early = cli("rejected", "retry", rejection_id, "--json")
    assert (too_early.code, too_early.json["results"][0]["cause"]) == (1, "SIGNATURE_INVALID")

    rotate(running.addresses, running.var, "gitlab")
    retried = cli("rejected", "retry", "--tool", "gitlab", "--since", "1h", "--json")
    assert retried.code == 0, retried
    [result] = retried.json["results"]
    assert (result["event_id"], result["duplicate"]) == (rejection_id, False)
    until(
        lambda: cli("contexts", "list", "--tool", "gitlab", "--kind", "pipeline", "--json").json["contexts"]
    )
    again = cli("rejected", "retry", rejection_id, "--json")
    assert (again.code, again.json["results"][0]["event_id"]) == (0, rejection_id)
    assert again.json["results"][0]["duplicate"] is True
    assert "accepted" in cli("rejected", "list", "--tool", "gitlab").out
    assert "nothing to try" in cli("rejected", "retry", "--tool", "gitlab").out


def test_a_retry_says_which(cli: Cli) -> None:
    assert cli("rejected", "retry").code == 2
    assert cli("rejected", "show", "nothing").code == 5
    assert cli("rejected", "list", "--cause", "BAD_MOOD").code == 2
    assert cli("rejected", "list", "--since", "yesterday-ish").code == 2
    missing = cli("rejected", "retry", "nothing", "--json")
    assert (missing.code, missing.json["results"][0]["status"]["reason"]) == (1, "REJECTION_NOT_FOUND")


def test_what_can_not_be_read_is_in_quarantine(cli: Cli) -> None:
    body = b'{"half a document'
    sent = cli("send", "github", "--event", "ping", "--payload", "-", "--json", stdin=body)
    assert sent.code == 0, sent
    event_id = sent.json["sent"][0]["event_id"]
    listed = cli("quarantine", "list", "--tool", "github", "--since", "1h", "--json").json["quarantined"]
    [found] = [each for each in listed if each["event_id"] == event_id]
    others = cli("quarantine", "list", "--tool", "jira", "--json").json["quarantined"]
    assert {each["tool"] for each in others} <= {"jira"}
    shown = cli("quarantine", "show", found["quarantined_id"], "--payload", "--json").json
    assert shown["event"]["payload"].encode() == body
    assert body.decode() not in cli("quarantine", "show", found["quarantined_id"]).out
    assert cli("quarantine", "show", "1-0").code == 5
    pages, token = [], ""
    assert cli("send", "github", "--event", "ping", "--payload", "-", stdin=b"{not either").code == 0
    while not pages or token:
        page = cli("quarantine", "list", "--limit", "1", "--page-token", token, "--json").json
        pages += page["quarantined"]
        token = page["next_page_token"]
    assert len({each["quarantined_id"] for each in pages}) == len(pages) >= 2


def test_the_record_is_shown_exported_and_checked(cli: Cli, tmp_path: Path) -> None:
    made = cli("keys", "create", "evidence", "--role", "reader", "--tenant", "default", "--json")
    assert made.code == 0, made
    until(lambda: any(display_name(line) == "evidence" for line in tail(cli, "CreateApiKey")))
    assert "admin_call" in cli("audit", "tail", "--last", "500").out
    verified = cli("audit", "verify", "--json")
    assert (verified.code, verified.json["intact"]) == (0, True)

    file = tmp_path / "audit.jsonl"
    exported = cli("audit", "export", str(file), "--json")
    assert exported.code == 0, exported
    assert exported.json["exported"] == len(file.read_bytes().splitlines())
    assert cli("audit", "verify", "--file", str(file), "--live").code == 0
    assert cli("audit", "export", str(file)).code == 1
    lines = file.read_text().splitlines()
    touched = [line.replace("evidence", "somebody") for line in lines]
    assert "does not say what was hashed" in checked(cli, file, touched).out
    assert "should stand where" in checked(cli, file, [lines[0], *lines[2:]]).out


def test_what_is_done_to_queues_and_contexts_is_on_record_too(cli: Cli) -> None:
    before = cli("keys", "status", "--json").json["master_keys"]
    assert [(one["sealing"], one["configured"], one["needed"]) for one in before] == [(True, True, True)]
    would = cli("keys", "rotate", "--dry-run", "--json")
    assert (would.code, would.json["rewrapped_count"]) == (0, 0)
    assert "would be wrapped" in cli("keys", "rotate", "--dry-run").out
    assert before[0]["master_key_id"] in cli("keys", "status").out
    assert cli("tools", "pause", "evidence-of-pausing").code == 0
    assert cli("tools", "resume", "evidence-of-pausing").code == 0
    assert cli(
        "force-transition", "--id", "github:no/such:issue:1", "--tier", "warm", "--tenant", "default"
    ).code

    def called(method: str) -> list[Any]:
        return [line["record"]["admin_call"] for line in tail(cli, method)]

    until(lambda: len(called("/RotateKeys")) >= 2 and len(called("/ResumeTool")) >= 1)
    assert called("ContextAdminService/RotateKeys")[0]["subject"] == {"dry_run": "True"}
    assert called("ConsumerAdminService/PauseTool")[0]["subject"] == {"tool": "evidence-of-pausing"}

    def refused() -> list[Any]:
        moves = called("ContextAdminService/ForceTransition")
        return [one for one in moves if one["outcome"] == "CONTEXT_NOT_FOUND"]

    assert until(refused)[0]["subject"]["context_id"].startswith("fingerprint ")
    assert called("/GetKeys") == []
    assert cli("audit", "verify", "--json").json["intact"]


def test_quotas_are_shown(cli: Cli) -> None:
    shown = cli("quotas", "--json")
    assert shown.code == 0, shown
    assert all(one["max_context_count"] == one["max_bytes"] == 0 for one in shown.json["tenants"])
    assert "contexts" in cli("quotas").out


def display_name(line: Any) -> str:
    return str(line["record"]["admin_call"]["subject"]["display_name"])


def checked(cli: Cli, file: Path, lines: list[str]) -> Ran:
    file.write_text("\n".join(lines))
    done = cli("audit", "verify", "--file", str(file))
    assert done.code == 1, done
    return done


def tail(cli: Cli, method: str) -> list[Any]:
    lines = [orjson.loads(line) for line in cli("audit", "tail", "--last", "500", "--json").out.splitlines()]
    return [line for line in lines if method in str(line["record"].get("admin_call", {}).get("method"))]


def test_an_export_can_let_go_and_a_touched_record_is_found(
    running: Runner, cli: Cli, tmp_path: Path
) -> None:
    exported = cli("audit", "export", str(tmp_path / "all.jsonl"), "--trim", "--json")
    assert exported.json["trimmed"] > 0
    verified = cli("audit", "verify", "--json").json
    assert verified["intact"]
    assert verified["first_sequence"] > 1
    victim = verified["first_sequence"]

    async def touch() -> None:
        client = connect(RedisSection(addresses=(running.addresses.redis,)))
        try:
            await client.xdel("webhook-audit", f"{victim}-0")
        finally:
            await client.aclose()

    asyncio.run(touch())
    found = cli("audit", "verify", "--json")
    assert found.code == 1
    other = cli("audit", "verify", "--file", str(tmp_path / "all.jsonl"), "--live")
    assert (other.code, "does not have" in other.out) == (1, True), other
    assert str(victim) in found.json["findings"][0]["message"]
