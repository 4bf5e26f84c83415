"""Every command block of the README does what it says, on a system that `make run` started."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from webhook_ops.addresses import Addresses

ROOT = Path(__file__).parents[2]
UP_WITHIN_S = 90.0
DEFAULT_CONTEXT_ADDRESS = "127.0.0.1:50054"


def blocks() -> list[str]:
    """The shell blocks, in order."""
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def commands(block: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]


@dataclass
class Running:
    var: Path
    banner: str
    environ: dict[str, str]

    def address(self, service: str) -> str:
        addresses = Addresses.read(self.var)
        assert addresses is not None
        return addresses.grpc(service)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """What `make run` starts, on free ports and in a directory of its own."""
    var = tmp_path_factory.mktemp("readme") / "var"
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "WEBHOOK_VAR": str(var), "PATH": path, "COLUMNS": "200"}
    log = var.parent / "make-run.log"
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            ["make", "run", "ARGS=--free-ports"],
            cwd=ROOT,
            env=environ,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            give_up = time.monotonic() + UP_WITHIN_S
            while "Ctrl-C drains" not in log.read_text(encoding="utf-8"):
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < give_up, log.read_text(encoding="utf-8")
                # The process is another one: there is nothing here to await.
                time.sleep(0.2)  # noqa: TID251
            yield Running(var, log.read_text(encoding="utf-8"), environ)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)


def pasted(banner: str, program: str) -> str:
    """The command of the banner that begins with this program."""
    found = re.search(rf"^{re.escape(program)} .*?(?<!\\)$", banner, re.MULTILINE | re.DOTALL)
    assert found, banner
    return found[0]


def test_the_gate_is_the_second_command() -> None:
    assert commands(blocks()[0]) == ["make run"]
    assert commands(blocks()[1]) == ["make test"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "make test"


def test_the_pasted_curl_is_accepted_and_becomes_a_context(running: Running) -> None:
    sent = running.shell(pasted(running.banner, "curl"))
    assert " 202 " in sent.stdout, sent
    looked_at = ""
    for _ in range(50):
        looked_at = running.shell(pasted(running.banner, "grpcurl")).stdout
        if '"summary":' in looked_at:
            break
        time.sleep(0.2)  # noqa: TID251  # enrichment comes a moment later
    found = json.loads(looked_at)["context"]
    assert found["context_id"] == "github:octo/hello:issue:7"
    assert found["enrichment"]["summary"]


def test_the_first_five_minutes(running: Running) -> None:
    lines = commands(blocks()[2])
    assert len(lines) >= 7
    for line in lines:
        done = running.shell(line)
        assert done.returncode == 0, (line, done.stdout, done.stderr)
    assert "serving" in running.shell(lines[0]).stdout


def test_grpcurl_needs_no_files(running: Running) -> None:
    [line] = commands(blocks()[3])
    done = running.shell(line.replace(DEFAULT_CONTEXT_ADDRESS, running.address("context")))
    assert "webhook.context.v1.ContextService" in done.stdout, done


def test_every_block_is_run_by_a_test() -> None:
    assert len(blocks()) == 4


def test_the_demo_passes(running: Running) -> None:
    done = running.shell("make demo")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("github", "gitlab", "jira", "slack", "401", "duplicate"):
        assert word in done.stdout.lower(), (word, done.stdout)
