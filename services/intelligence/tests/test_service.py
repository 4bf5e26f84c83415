"""The RPCs on a real socket, with the local model and a real cache."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_intelligence.embeddings import single_flight as embeddings
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import Role

from services.intelligence.tests.conftest import House, Started, counted

OK = 0
INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT.value[0]
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED.value[0]


async def reason(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), from_rpc_error(caught.value).reason


def happening(kind: str, action: str, actor: str, text: str) -> pb.Happening:
    return pb.Happening(event_id="e", kind=kind, action=action, actor=actor, text=text)


async def test_embed(stub: IntelligenceServiceStub) -> None:
    texts = ["pod crashed with out of memory", "container was OOM killed", "invoice paid", "invoice paid"]
    response = await stub.Embed(pb.EmbedRequest(texts=texts))
    assert (response.model.provider, response.model.name, response.model.dimension) == (
        "local",
        "all-MiniLM-L6-v2",
        384,
    )
    a, b, c, d = (np.array(result.vector) for result in response.results)
    assert a @ b > a @ c + 0.3
    assert (c == d).all()
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)


async def test_one_bad_text_does_not_fail_its_neighbours(stub: IntelligenceServiceStub) -> None:
    texts = ["good", "", "  \n", "x" * (2**20 + 1), "\x00\x01\x02", "é" * 600_000, "long " * 20_000, "last"]
    response = await stub.Embed(pb.EmbedRequest(texts=texts))
    statuses = [(result.status.code, result.status.reason, len(result.vector)) for result in response.results]
    assert statuses == [
        (OK, "", 384),
        (INVALID_ARGUMENT, "TEXT_EMPTY", 0),
        (INVALID_ARGUMENT, "TEXT_EMPTY", 0),
        (INVALID_ARGUMENT, "TEXT_TOO_LONG", 0),
        (OK, "", 384),
        (INVALID_ARGUMENT, "TEXT_TOO_LONG", 0),
        (OK, "", 384),
        (OK, "", 384),
    ]
    assert [result.truncated for result in response.results] == [False] * 6 + [True, False]


async def test_bounds(stub: IntelligenceServiceStub) -> None:
    for call in (
        stub.Embed(pb.EmbedRequest()),
        stub.Embed(pb.EmbedRequest(texts=["x"] * 2049)),
        stub.Summarize(pb.SummarizeRequest()),
        stub.Summarize(pb.SummarizeRequest(texts=["x"], max_words=-1)),
        stub.Analyze(pb.AnalyzeRequest()),
        stub.Analyze(pb.AnalyzeRequest(subjects=[pb.Subject()] * 257)),
    ):
        assert await reason(call) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    empty = stub.Summarize(pb.SummarizeRequest(texts=["", " "]))
    assert await reason(empty) == (grpc.StatusCode.INVALID_ARGUMENT, "TEXT_EMPTY")


async def test_equal_concurrent_calls_cost_one(house: House, stub: IntelligenceServiceStub) -> None:
    before = counted("webhook_ai_provider_calls_total", provider="local", operation="embed", outcome="ok")
    request = pb.EmbedRequest(texts=["the same text for everybody"])
    responses = await asyncio.gather(*(stub.Embed(request) for _ in range(1000)))
    after = counted("webhook_ai_provider_calls_total", provider="local", operation="embed", outcome="ok")
    assert after - before == 1
    assert len({tuple(response.results[0].vector) for response in responses}) <= 2  # computed, and from cache


async def test_a_second_call_is_answered_from_the_cache(
    stub: IntelligenceServiceStub, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "REMEMBERED_S", 0)
    request = pb.EmbedRequest(texts=[f"text {i}" for i in range(20)])
    first = await stub.Embed(request)
    keys = await redis.keys("emb:*")
    assert len(keys) == 20
    assert 0 < await redis.pttl(keys[0]) <= 86_400_000
    assert await redis.strlen(keys[0]) == 6 + 2 * 384
    before = counted("webhook_ai_embedding_cache_total", result="hit")
    second = await stub.Embed(request)
    assert counted("webhook_ai_embedding_cache_total", result="hit") - before == 20
    for one, two in zip(first.results, second.results, strict=True):
        assert np.abs(np.array(one.vector) - np.array(two.vector)).max() < 1e-3


async def test_tenants_do_not_share_vectors(house: House, redis: Client) -> None:
    for tenant in ("acme", "globex"):
        stub = await house.stub(roles=(Role.READER,), tenants=(tenant,))
        await stub.Embed(pb.EmbedRequest(texts=["who was here before me?"]))
    assert len(await redis.keys("emb:*")) == 2


async def test_rubbish_in_the_cache_is_a_miss(
    stub: IntelligenceServiceStub, redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "REMEMBERED_S", 0)
    request = pb.EmbedRequest(texts=["hello"])
    await stub.Embed(request)
    (key,) = await redis.keys("emb:*")
    for rubbish in (b"", b"\x02\x00\x01\x00\x80\x01", b"\x09" * 774):
        await redis.set(key, rubbish)
        response = await stub.Embed(request)
        assert len(response.results[0].vector) == 384


async def test_without_redis_it_only_costs_more(
    start: Started, redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "REMEMBERED_S", 0)
    house = await start(redis_server.settings)
    stub = await house.stub_with("an internal key of the tests, long enough")
    request = pb.EmbedRequest(texts=["hello"], tenant="acme")
    assert (await stub.Embed(request)).results[0].status.code == OK
    redis_server.kill()
    for _ in range(3):
        assert (await stub.Embed(request)).results[0].status.code == OK


async def test_summarize(stub: IntelligenceServiceStub) -> None:
    key = "ghp_" + "A1b2" * 9
    response = await stub.Summarize(
        pb.SummarizeRequest(texts=[f"The deploy of v2.4.1 failed. The token was {key}.", "Rolled back."])
    )
    assert response.model == "extractive"
    assert response.summary.startswith("The deploy of v2.4.1 failed.")
    assert key not in response.summary


async def test_analyze(stub: IntelligenceServiceStub) -> None:
    secret = "AKIA" + "ABCDEFGH12345678"
    subject = pb.Subject(
        context_id="github:octo/hello:pull_request:42",
        title="Add retry",
        event_count=5,
        happenings=[
            happening("pull_request", "opened", "octocat", "Add retry\nFixes #17 in src/upload.py"),
            happening("issue_comment", "created", "alice", f"the key {secret} is in the log"),
            happening("check_run", "failed", "ci", "build"),
            happening("pull_request", "merged", "hubot", "Add retry"),
        ],
    )
    response = await stub.Analyze(pb.AnalyzeRequest(subjects=[subject]))
    (analysis,) = response.analyses
    assert analysis.status.code == OK
    assert len(analysis.vector) == 384
    assert analysis.summary == (
        "octocat opened PR #42 'Add retry': 'Fixes #17 in src/upload.py'. "
        "alice commented: 'the key [redacted:aws-key] is in the log'. "
        "Checks failed on 'build'. Merged by hubot."
    )
    assert analysis.summary_model == "extractive"
    assert 0 < analysis.importance < 1
    parts = sum(factor.contribution for factor in analysis.importance_factors)
    assert analysis.importance == pytest.approx(parts, abs=1e-6)
    named = {(entity.kind, entity.value) for entity in analysis.entities}
    assert {
        ("repository", "octo/hello"),
        ("person", "hubot"),
        ("issue", "#17"),
        ("path", "src/upload.py"),
    } <= named


async def test_analyses_can_be_searched(stub: IntelligenceServiceStub) -> None:
    subjects = [
        pb.Subject(context_id="a:issue:1", title="Upload fails with a timeout", happenings=[
            happening("issue", "opened", "ann", "Large files never finish uploading")]),
        pb.Subject(context_id="a:issue:2", title="New logo", happenings=[
            happening("issue", "opened", "bo", "The marketing team has a new logo for the site")]),
    ]  # fmt: skip
    response = await stub.Analyze(pb.AnalyzeRequest(subjects=subjects))
    query = np.array((await stub.Embed(pb.EmbedRequest(texts=["slow uploads"]))).results[0].vector)
    upload, logo = (np.array(analysis.vector) for analysis in response.analyses)
    assert query @ upload > query @ logo + 0.2


async def test_subjects_fail_one_by_one(house: House) -> None:
    stub = await house.stub(roles=(Role.WRITER,), tenants=("acme", "globex"))
    subjects = [
        pb.Subject(tenant="acme", title="fine"),
        pb.Subject(tenant="initech", title="not mine"),
        pb.Subject(tenant="globex"),
        pb.Subject(title="whose?"),
        pb.Subject(tenant="globex", happenings=[happening("", "", "", "\x00")]),
    ]
    response = await stub.Analyze(pb.AnalyzeRequest(subjects=subjects))
    assert [analysis.status.reason for analysis in response.analyses] == [
        "",
        "TENANT_NOT_ALLOWED",
        "SUBJECT_EMPTY",
        "FIELD_INVALID",
        "",
    ]


async def test_roles(house: House) -> None:
    reader = await house.stub(roles=(Role.READER,), tenants=("acme",))
    denied = reader.Analyze(pb.AnalyzeRequest(subjects=[pb.Subject(title="x")]))
    assert (await reason(denied))[0] is grpc.StatusCode.PERMISSION_DENIED
    stranger = await house.stub_with("whk_nobody_nothing")
    assert (await reason(stranger.Embed(pb.EmbedRequest(texts=["x"]))))[0] is grpc.StatusCode.UNAUTHENTICATED


async def test_a_large_call_does_not_hold_up_small_ones(stub: IntelligenceServiceStub) -> None:
    large = asyncio.ensure_future(
        stub.Embed(pb.EmbedRequest(texts=[f"an event of no interest, number {i}" for i in range(600)]))
    )
    await asyncio.sleep(0.05)
    for _ in range(5):
        await stub.Summarize(pb.SummarizeRequest(texts=["hello"]))
    assert not large.done()
    assert len((await large).results) == 600


async def test_a_caller_who_leaves_takes_nothing_along(stub: IntelligenceServiceStub) -> None:
    texts = [f"patience {i}" for i in range(200)]
    hasty = stub.Embed(pb.EmbedRequest(texts=texts), timeout=0.15)
    patient = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=texts)))
    assert (await reason(hasty))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert all(result.status.code == OK for result in (await patient).results)


async def test_streams_answer_in_portions_with_their_places(stub: IntelligenceServiceStub) -> None:
    texts = [f"event number {i % 40}" for i in range(300)]
    texts[7] = ""
    found: dict[int, pb.EmbedResult] = {}
    parts = 0
    async for part in stub.StreamEmbed(pb.StreamEmbedRequest(texts=texts, priority=pb.PRIORITY_BACKFILL)):
        parts += 1
        assert part.model.revision
        found.update(zip(part.indexes, part.results, strict=True))
    assert parts == 3
    assert sorted(found) == list(range(300))
    assert found[7].status.reason == "TEXT_EMPTY"
    one = await stub.Embed(pb.EmbedRequest(texts=[texts[250]]))
    assert np.abs(np.array(one.results[0].vector) - np.array(found[250].vector)).max() < 1e-3


async def test_analyses_are_streamed(stub: IntelligenceServiceStub) -> None:
    subjects = [pb.Subject(context_id=f"a:issue:{i}", title=f"Title {i}") for i in range(65)] + [pb.Subject()]
    found: dict[int, pb.Analysis] = {}
    async for part in stub.StreamAnalyze(pb.StreamAnalyzeRequest(subjects=subjects)):
        found.update(zip(part.indexes, part.analyses, strict=True))
    assert [found[i].status.reason for i in range(66)] == [""] * 65 + ["SUBJECT_EMPTY"]
    assert found[64].summary == "Title 64."


async def test_odd_enums_are_refused(stub: IntelligenceServiceStub) -> None:
    for call in (
        stub.Embed(pb.EmbedRequest(texts=["x"], priority=9)),  # type: ignore[arg-type]  # as others may send it
        stub.Summarize(pb.SummarizeRequest(texts=["x"], style=9)),  # type: ignore[arg-type]  # the same
    ):
        assert await reason(call) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


async def test_sentences_name_their_events(stub: IntelligenceServiceStub) -> None:
    subject = pb.Subject(context_id="a:issue:7", title="Slow uploads", event_count=2, happenings=[
        happening("issue", "opened", "ann", "Slow uploads of 2 GB files"),
        happening("issue", "closed", "bo", "fixed in v1.2.3"),
    ])  # fmt: skip
    for number, one in enumerate(subject.happenings):
        one.event_id = f"e{number + 1}"
    (analysis,) = (await stub.Analyze(pb.AnalyzeRequest(subjects=[subject]))).analyses
    assert [list(line.event_ids) for line in analysis.summary_sentences] == [["e1"], ["e2"]]
    assert analysis.summary_coverage.kept_count == analysis.summary_coverage.fact_count > 0
    assert analysis.deferred_count == 0
