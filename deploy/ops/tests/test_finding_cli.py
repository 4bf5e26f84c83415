"""Finding and following contexts from the command line, as docs/contexts.md shows it."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from pydantic import SecretStr
from webhook.context.v1 import context_service_pb2 as pb
from webhook.context.v1.context_service_pb2_grpc import ContextServiceStub
from webhook_ops.dev.secrets import kept_operator_key
from webhook_shared.rpc.channel import connected

from deploy.ops.tests.harness import Cli, Runner, clean_environment, until

ROOT = Path(__file__).parents[3]
ISSUE = "github:harborlane-example/ferry-booking:issue:4117"
PULL_REQUEST = "github:harborlane-example/ferry-booking:pull_request:4118"


def _examples(begins: str) -> list[list[str]]:
    """The command lines of the page that begin so, in words."""
    page = (ROOT / "docs/contexts.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(begins)]
    return [shlex.split(line) for line in lines]


SHOWN = [one[1:] for one in _examples("webhook-cli contexts") if one[2] != "watch"]
WATCHES = [one[1:] for one in _examples("webhook-cli contexts watch")]
CALLS = _examples("grpcurl")


@pytest.fixture(scope="module")
def story(running: Runner) -> None:
    """The webhooks that the page begins with, and what they became."""
    cli = Cli(clean_environment(WEBHOOK_VAR=str(running.var)))
    for words in _examples("webhook-cli send"):
        where = words.index("--payload") + 1
        assert cli(*words[1:where], str(ROOT / words[where])).code == 0

    def enriched() -> bool:
        found = [cli("contexts", "get", one, "--json") for one in (ISSUE, PULL_REQUEST)]
        return all(one.code == 0 and one.json["enrichment"] for one in found)

    until(enriched)


def _call(runner: Runner, words: list[str]) -> list[Any]:
    """What `grpcurl` would do: the first response of the call."""
    data = json.loads(words[words.index("-d") + 1])
    service, method = words[-1].split("/")
    assert (service, "-plaintext" in words) == ("webhook.context.v1.ContextService", True)
    request = json_format.ParseDict(data, getattr(pb, f"{method}Request")())
    key = SecretStr(kept_operator_key(runner.var))

    async def called() -> list[Any]:
        async with connected(runner.addresses.grpc("context"), key=key, deadline_s=20) as channel:
            if not request.tenant:
                request.tenant = "default"
            call = getattr(ContextServiceStub(channel), method)(request)
            if method == "WatchContexts":
                return [await call.read()]
            return [await call]

    return asyncio.run(called())


@pytest.mark.usefixtures("story")
def test_what_the_page_shows(running: Runner, cli: Cli) -> None:
    assert {words[1] for words in SHOWN} >= {"search", "neighbors", "window"}
    for words in SHOWN:
        done = cli(*words)
        assert done.code == 0, (words, done)
        assert ISSUE in done.out or PULL_REQUEST in done.out, (words, done)
    assert len(CALLS) >= 4
    for words in CALLS:
        (response,) = _call(running, words)
        assert response.ByteSize(), words


@pytest.mark.usefixtures("story")
def test_a_watch_goes_on_from_its_token(running: Runner, cli: Cli) -> None:
    (watch,) = (words for words in CALLS if words[-1].endswith("/WatchContexts"))
    token = _call(running, watch)[0].resume_token
    change = ("contexts", "patch", ISSUE, '{"labels": ["bug", "watched"]}')
    assert cli(*change).code == 0
    for words in WATCHES:
        shown = cli(*words, "--from", token)
        assert (shown.code, ISSUE in shown.out) == (0, True), shown
    told = json.loads(cli(*WATCHES[-1], "--from", token).out)
    assert told["kind"] == "CHANGE_KIND_CHANGED"
    assert "watched" in told["context"]["labels"]
    old = cli("contexts", "watch", "--from", "MS0x", "--json")
    assert (old.code, "RESUME_TOKEN_TOO_OLD" in old.err + old.out) == (1, True), old


@pytest.mark.usefixtures("story")
def test_a_window_is_cut_to_its_budget(cli: Cli) -> None:
    made = cli("contexts", "window", ISSUE, "--budget", "300", "--json").json
    assert 0 < made["token_count"] <= 300
    shown = cli("contexts", "window", ISSUE, "--budget", "300")
    assert shown.out == made["text"]
    assert f"{made['token_count']} of 300 tokens" in shown.err
    for wrong in ("--floor=recent", "--floor=other=5", "--ceiling=recent=x"):
        assert cli("contexts", "window", ISSUE, wrong).code == 2
    assert cli("contexts", "neighbors", ISSUE, "--direction", "up").code == 2
