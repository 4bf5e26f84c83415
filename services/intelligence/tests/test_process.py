"""The process: what it says where it can't start."""

from __future__ import annotations

import os
import subprocess
import sys


def test_openai_without_a_key_does_not_start() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "AI_"))}
    ended = subprocess.run(
        [sys.executable, "-m", "webhook_intelligence"],
        env={**environ, "AI_EMBEDDING_PROVIDER": "openai", "WEBHOOK_INTERNAL_KEY": "k" * 32},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "embedding.provider openai needs OPENAI_API_KEY" in ended.stderr
    assert "Traceback" not in ended.stderr
