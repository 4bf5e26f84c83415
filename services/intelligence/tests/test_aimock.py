"""The whole service against an OpenAI-compatible server that we did not write (npm @copilotkit/aimock)."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook_shared.rpc.identity import Role

from services.intelligence.tests.conftest import Started, free_port

ROOT = Path(__file__).resolve().parents[3]
ANSWER = {"summary": "octocat opened issue 7 about slow uploads; bob closed it."}
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE.value[0]
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION.value[0]


def binary() -> str:
    for candidate in (
        os.environ.get("AIMOCK_BIN", ""),
        str(ROOT / "node_modules/.bin/llmock"),
        str(ROOT / "tests/node_modules/.bin/llmock"),
    ):
        if candidate and shutil.which(candidate):
            return candidate
    missing = "needs npm: run `npm install --prefix . @copilotkit/aimock@1.43.0`, or set AIMOCK_BIN"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@asynccontextmanager
async def mocking(directory: Path, *flags: str) -> AsyncIterator[str]:
    """The server, answering on the yielded address."""
    fixture = {"match": {"userMessage": "octo/hello"}, "response": {"content": json.dumps(ANSWER)}}
    (directory / "summaries.json").write_text(json.dumps({"fixtures": [fixture]}))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        binary(), "-p", str(port), "-f", str(directory), "--metrics", "--log-level", "silent", *flags,
        env={**os.environ, "AIMOCK_API_KEYS": "sk-good"},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(_answers, address):
                await asyncio.sleep(0.05)
        yield address
    finally:
        process.terminate()
        await process.wait()


def _answers(address: str) -> bool:
    try:
        return bool(_metrics(address))
    except OSError:
        return False


def _metrics(address: str) -> str:
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as page:
        return str(page.read().decode()) or "-"


async def requests(address: str, path: str) -> dict[str, int]:
    """How many requests it has answered, by status."""
    page = await asyncio.to_thread(_metrics, address)
    found = re.findall(rf'aimock_requests_total{{method="POST",path="{path}",status="(\w+)"}} (\d+)', page)
    return {status: int(count) for status, count in found}


async def stub_of(start: Started, address: str, key: str = "sk-good", **environ: str) -> pb.EmbedRequest:
    house = await start(OPENAI_API_KEY=key, OPENAI_BASE_URL=f"{address}/v1", **environ)
    return await house.stub(roles=(Role.READER, Role.WRITER), tenants=("acme",))


async def test_embed_and_analyze(start: Started, tmp_path: Path) -> None:
    async with mocking(tmp_path) as address:
        stub = await stub_of(start, address)
        response = await stub.Embed(pb.EmbedRequest(texts=[f"text {i}" for i in range(250)] + ["text 0"]))
        assert response.model.name == "text-embedding-3-small"
        vectors = np.array([result.vector for result in response.results])
        assert vectors.shape == (251, 1536)
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
        assert (vectors[0] == vectors[250]).all()
        assert len({tuple(vector) for vector in vectors}) == 250
        # 100 texts per call, as webhook.ai.embedding.batch_size says.
        assert await requests(address, "/v1/embeddings") == {"200": 3}

        happening = pb.Happening(kind="issue", action="closed", actor="bob", text="done")
        subject = pb.Subject(context_id="github:octo/hello:issue:7", title="Slow", happenings=[happening])
        analysis = (await stub.Analyze(pb.AnalyzeRequest(subjects=[subject]))).analyses[0]
        assert (analysis.summary, analysis.summary_model) == (ANSWER["summary"], "gpt-4-turbo")


async def test_a_thousand_equal_calls_are_one_request(start: Started, tmp_path: Path) -> None:
    async with mocking(tmp_path) as address:
        stub = await stub_of(start, address)
        request = pb.EmbedRequest(texts=["the same for all"])
        responses = await asyncio.gather(*(stub.Embed(request) for _ in range(1000)))
        assert all(response.results[0].status.code == 0 for response in responses)
        assert await requests(address, "/v1/embeddings") == {"200": 1}


async def test_many_callers_share_requests(start: Started, tmp_path: Path) -> None:
    async with mocking(tmp_path) as address:
        stub = await stub_of(start, address)
        calls = [pb.EmbedRequest(texts=[f"text {i}/{j}" for j in range(10)]) for i in range(60)]
        await asyncio.gather(*(stub.Embed(call) for call in calls))
        assert 6 <= sum((await requests(address, "/v1/embeddings")).values()) <= 30


async def test_a_wrong_key_is_one_clear_error(start: Started, tmp_path: Path) -> None:
    async with mocking(tmp_path) as address:
        stub = await stub_of(start, address, key="sk-wrong")
        for i in range(10):
            (result,) = (await stub.Embed(pb.EmbedRequest(texts=[f"text {i}"]))).results
            assert (result.status.code, result.status.reason) == (FAILED_PRECONDITION, "PROVIDER_REFUSED")
            assert "OPENAI_API_KEY is not valid" in result.status.message
            assert "sk-wrong" not in result.status.message
        assert await requests(address, "/v1/embeddings") == {"401": 1}


async def test_it_gets_through_a_bad_day(start: Started, tmp_path: Path) -> None:
    flags = ["--chaos-ratelimit", "0.15", "--chaos-drop", "0.15", "--chaos-disconnect", "0.1"]
    async with mocking(tmp_path, *flags, "--chaos-malformed", "0.1") as address:
        stub = await stub_of(start, address)
        for i in range(12):
            (result,) = (await stub.Embed(pb.EmbedRequest(texts=[f"text {i}"]), timeout=60)).results
            if result.status.code:
                assert (result.status.code, result.status.reason) == (UNAVAILABLE, "PROVIDER_UNREACHABLE")
            else:
                assert len(result.vector) == 1536


@pytest.mark.parametrize("fault", ["ratelimit", "drop", "disconnect", "malformed"])
async def test_nothing_but_faults(start: Started, tmp_path: Path, fault: str) -> None:
    async with mocking(tmp_path, f"--chaos-{fault}", "1") as address:
        stub = await stub_of(start, address)
        (result,) = (await stub.Embed(pb.EmbedRequest(texts=["text"]), timeout=2.5)).results
        assert (result.status.code, result.status.reason) == (UNAVAILABLE, "PROVIDER_UNREACHABLE")
        assert 1 <= sum((await requests(address, "/v1/embeddings")).values()) <= 6
