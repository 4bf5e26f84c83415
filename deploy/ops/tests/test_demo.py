"""The demo, as `make demo` runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from webhook_ops.demo import _PROBLEM, QUESTION, new_story
from webhook_ops.samples.catalogue import SAMPLES, body, sample, vary

from deploy.ops.tests.harness import Runner, clean_environment


def test_no_word_of_the_question_stands_in_a_payload() -> None:
    told = b" ".join(body(each) for each in SAMPLES).decode().lower()
    words = set(re.findall(r"[a-z]+", told))
    assert not words & set(QUESTION.split())


def test_every_story_of_the_demo_has_the_same_problem() -> None:
    for start in (1, 100, 86_399):
        assert _PROBLEM in vary(sample("github", "issues_opened"), new_story(start))


def test_the_demo_passes_beside_a_running_system_and_again(running: Runner) -> None:
    for _ in range(2):
        done = demo(clean_environment(WEBHOOK_VAR=str(running.var)), running.var.parent)
        assert done.returncode == 0, done.stdout.decode()
        told = done.stdout.decode()
        assert "All as it should be" in told
        assert "401" in told
        assert '"duplicate":true' in told


def test_the_demo_starts_a_system_where_none_runs(tmp_path: Path) -> None:
    done = demo(clean_environment(WEBHOOK_VAR=str(tmp_path / "none")), tmp_path)
    assert done.returncode == 0, done.stdout.decode()
    assert not (tmp_path / "none").exists()


def demo(environ: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "webhook_ops.demo"], env=environ, cwd=cwd, capture_output=True, check=False
    )
