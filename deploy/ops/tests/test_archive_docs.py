"""Every command of docs/archive.md does what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from deploy.ops.tests.harness import Cli, until

DOCUMENT = Path(__file__).parents[3] / "docs/archive.md"


def _commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def test_every_command_works_as_written(cli: Cli) -> None:
    event_id = cli("send", "github", "--sample", "issues_opened", "--json").json["sent"][0]["event_id"]
    until(lambda: cli("archive", "list", "--id", event_id, "--json").json["events"])
    commands = _commands()
    assert len(commands) > 5
    for command in commands:
        program, *arguments = shlex.split(command.replace("$EVENT", event_id))
        assert program == "webhook-cli"
        done = cli(*arguments)
        assert done.code == 0, f"{command}: {done.err}"
        assert done.out.strip(), command
