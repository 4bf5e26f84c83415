"""`python -m webhook_ops.dev` as a user meets it: start, trouble, end, and starting again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
from webhook_ops.addresses import SERVICES, Addresses

from deploy.ops.tests.harness import Cli, Runner, clean_environment, until


def gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def refused(var: Path, *arguments: str, **environ: str) -> str:
    """What it says where it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "webhook_ops.dev", "--var", str(var), *arguments],
        env=clean_environment(**environ),
        cwd=var.parent,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.decode()
    return done.stdout.decode()


def test_what_is_stored_survives_a_restart_and_everything_ends_in_order(runner: Runner) -> None:
    runner.start().up()
    cli = Cli(clean_environment(WEBHOOK_VAR=str(runner.var)))
    assert cli("send", "github", "--sample", "issues_opened").code == 0
    listed = until(lambda: cli("contexts", "list", "--json").json["contexts"])
    key = (runner.var / "operator.key").read_text()
    pids = [process.pid for process in runner.addresses.processes.values()]

    assert runner.stop(signal.SIGINT) == 0
    screen = runner.screen
    ends = [
        screen.index(f"{service:<12} │", screen.index("SIGINT: draining"))
        for service in ("gateway", "consumer", "context", "security", "redis")
    ]
    assert ends == sorted(ends)
    assert screen.rstrip().endswith("stopped")
    assert all(gone(pid) for pid in pids)
    assert Addresses.read(runner.var) is None

    runner.start().up()
    assert (runner.var / "operator.key").read_text() == key
    again = cli("contexts", "get", listed[0]["context_id"], "--json")
    assert again.code == 0, again
    assert again.json["title"] == listed[0]["title"]


def test_the_state_is_for_its_owner_alone(running: Runner) -> None:
    assert running.var.stat().st_mode & 0o077 == 0
    for file in (running.var / "operator.key", *(running.var / "secrets").iterdir()):
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_crashed_service_is_started_again_and_said_so(running: Runner) -> None:
    first = running.addresses.processes["consumer"].pid
    os.kill(first, signal.SIGKILL)
    until(lambda: running.addresses.processes["consumer"].pid not in {0, first})
    assert "consumer was ended by SIGKILL; starting it again in 0.25 s" in running.screen
    cli = Cli(clean_environment(WEBHOOK_VAR=str(running.var)))
    until(lambda: cli("status").code == 0)


def test_a_killed_runner_takes_every_process_along(runner: Runner) -> None:
    runner.start().up()
    pids = [process.pid for process in runner.addresses.processes.values()]
    assert not any(gone(pid) for pid in pids)
    runner.stop(signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in pids))
    assert Addresses.read(runner.var) is None


def test_addresses_are_written_for_everybody(running: Runner) -> None:
    tree = orjson.loads((running.var / "addresses.json").read_bytes())
    assert set(tree["processes"]) == {*SERVICES, "redis"}
    assert tree["http"].startswith("http://127.0.0.1:")
    assert all(process["pid"] for process in tree["processes"].values())


def test_a_second_system_on_the_same_directory_is_refused(running: Runner) -> None:
    told = refused(running.var, "--free-ports")
    assert "already" in told
    assert "--var" in told
