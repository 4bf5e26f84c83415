"""`webhook-cli prewarm` and `webhook-cli intelligence`."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from google.protobuf import field_mask_pb2
from webhook.context.v1 import context_service_pb2, context_service_pb2_grpc
from webhook_ops.cli.door import door

from deploy.ops.tests.harness import Cli, Runner, until


def line(at_s: float, context_id: str) -> str:
    return json.dumps({"time": at_s, "kind": "access", "context_id": context_id}) + "\n"


def pairs() -> str:
    """A pull request and then its issue, every half hour another of two hundred pairs."""
    chance = random.Random(1)
    numbers = [chance.randrange(200) for _ in range(1500)]
    return "".join(
        line(1800.0 * i + 60 * j, f"github:o/h:{kind}:{number}")
        for i, number in enumerate(numbers)
        for j, kind in enumerate(("pull_request", "issue"))
    )


def noise() -> str:
    chance = random.Random(1)
    return "".join(line(600.0 * i, f"acme:o/h:thing:{chance.randrange(200)}") for i in range(600))


def written(path: Path, content: str) -> str:
    path.write_text(content, encoding="utf-8")
    return str(path)


def test_a_trace_with_structure_pays(lonely_cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path / "trace.jsonl", pairs())
    found = lonely_cli("prewarm", "evaluate", file, "--gate", "--json")
    assert found.code == 0, found
    report = found.json
    assert report["on"]
    assert report["together"]["pays"]
    assert report["together"]["lift_low"] > 0
    assert report["together"]["pollution"] < report["together"]["lift"]
    assert {rule["name"] for rule in report["rules"]} == {"links", "association", "succession"}
    shown = lonely_cli("prewarm", "evaluate", file).out
    for line in ("lift over LRU", "precision", "recall", "pollution", "95 %", "pays: the lift is above 0"):
        assert line in shown


def test_chance_is_told_from_structure(lonely_cli: Cli, tmp_path: Path) -> None:
    found = lonely_cli("prewarm", "evaluate", "-", "--gate", stdin=noise().encode())
    assert found.code == 0, found
    assert "off: no rule pays on this trace" in found.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 uses are too few"),
        (b'{"time": 1, "kind": "access"}\n', "line 1: context_id"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "can't be read"),
    ],
)
def test_a_trace_that_is_none_is_one_clear_line(
    lonely_cli: Cli, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "trace.jsonl"
    if content is not None:
        file.write_bytes(content)
    told = lonely_cli("prewarm", "evaluate", str(file))
    assert told.code == 1, told
    assert said in told.err
    assert "Traceback" not in told.err


def test_an_odd_lookback_is_a_wrong_command_line(lonely_cli: Cli, tmp_path: Path) -> None:
    file = written(tmp_path / "trace.jsonl", noise())
    assert lonely_cli("prewarm", "evaluate", file, "--lookback", "often").code == 2


def test_features_are_explained_with_their_weights(cli: Cli) -> None:
    told = cli("intelligence", "explain", "--json")
    assert told.code == 0, told
    assert sum(feature["weight"] for feature in told.json["features"]) == pytest.approx(1)
    assert cli("send", "github", "--sample", "workflow_run_failed").code == 0

    def listed() -> str:
        page = cli("contexts", "list", "--kind", "workflow_run", "--json").json
        return str(page["contexts"][0]["context_id"]) if page["contexts"] else ""

    context_id = until(listed)
    explained = cli("intelligence", "explain", context_id, "--json").json
    outcome = next(feature for feature in explained["features"] if feature["name"] == "outcome")
    assert outcome["value"] == 1
    assert outcome["evidence"] == ["failure"]
    assert "read from" in cli("intelligence", "explain", context_id).out
    assert cli("intelligence", "explain", "github:no/such:issue:1").code == 5


def test_texts_become_vectors_and_summaries(cli: Cli) -> None:
    told = cli("intelligence", "embed", "pod was OOM killed", "out of memory", "invoice paid", "", "--json")
    assert told.code == 0, told
    assert [len(result["vector"]) for result in told.json] == [384, 384, 384, 0]
    assert told.json[3]["status"]["reason"] == "TEXT_EMPTY"
    assert "like the first" in cli("intelligence", "embed", stdin=b"one\ntwo\n").out
    texts = ("The deploy of v2.4.1 failed, see OPS-7.", "It was rolled back after 14 minutes.")
    summary = cli("intelligence", "summarize", *texts, "--style", "bullets", "--json").json
    assert summary["summary"].splitlines() == [f"- {line}" for line in texts]
    assert summary["coverage"]["kept_count"] == summary["coverage"]["fact_count"] == 3
    assert [line["text_indexes"][0] for line in summary["sentences"]] == [0, 1]
    assert "3 of 3 facts kept" in cli("intelligence", "summarize", *texts).out


def test_a_context_is_analysed(cli: Cli) -> None:
    assert cli("send", "github", "--sample", "workflow_run_failed").code == 0

    def listed() -> str:
        page = cli("contexts", "list", "--kind", "workflow_run", "--json").json
        return str(page["contexts"][0]["context_id"]) if page["contexts"] else ""

    context_id = until(listed)
    found = cli("intelligence", "analyze", context_id, "--json").json
    assert found["summary"]
    assert any(line["event_ids"] for line in found["summary_sentences"])
    assert "what is known" in cli("intelligence", "analyze", context_id).out
    assert cli("intelligence", "analyze", "github:no/such:issue:1").code == 5


async def _pretend_another_model_made(var: Path, context_id: str) -> None:
    way_in = door(var=var, api_key="", timeout_s=30)
    async with way_in.open("context") as channel:
        stub = context_service_pb2_grpc.ContextServiceStub(channel)
        found = await stub.GetContext(
            context_service_pb2.GetContextRequest(context_id=context_id, tenant="default")
        )
        context = found.context
        context.enrichment.embedding_model.name, context.enrichment.embedding_model.dimension = "of-old", 2
        context.enrichment.vector.extend([0.6, 0.8])
        await stub.UpdateContext(
            context_service_pb2.UpdateContextRequest(
                context=context, update_mask=field_mask_pb2.FieldMask(paths=["enrichment"])
            )
        )


def test_vectors_of_another_model_are_made_anew(cli: Cli, running: Runner) -> None:
    assert cli("send", "slack", "--sample", "message").code == 0

    def understood() -> str:
        page = cli("contexts", "list", "--tool", "slack", "--json").json
        known = [one for one in page["contexts"] if one["enrichment"] and one["enrichment"]["summary"]]
        return str(known[0]["context_id"]) if known else ""

    context_id = until(understood)
    asyncio.run(_pretend_another_model_made(running.var, context_id))
    counted = cli("intelligence", "reindex", "--dry-run", "--json").json
    assert int(counted["context_count"]) - int(counted["filled_count"]) == 1
    last = cli("intelligence", "reindex", "--json").json
    assert (last["phase"], last["filled_count"]) == ("REINDEX_PHASE_DROPPED", last["context_count"])
    model = cli("contexts", "get", context_id, "--json").json["enrichment"]["embedding_model"]
    assert (model["name"], model["dimension"]) == ("all-MiniLM-L6-v2", 384)
    assert "nothing is left of the old model" in cli("intelligence", "reindex").out


def test_what_calls_cost_and_have_cost(cli: Cli) -> None:
    told = cli("intelligence", "estimate", "hello", "world", "--json")
    assert told.code == 0, told
    assert told.json["costs"][0]["input_tokens"] > 0
    assert told.json["usd"] == 0
    assert "all-MiniLM-L6-v2" in cli("intelligence", "estimate", stdin=b"hello\nworld\n").out
    assert cli("intelligence", "estimate", "--file", "/no/such/file").code == 1
    assert cli("send", "jira").code == 0
    lines = until(lambda: cli("intelligence", "spending", "--json").json["spendings"])
    assert {line["purpose"] for line in lines} <= {"analyze", "embed"}
    assert cli("intelligence", "spending").code == 0


def test_events_are_observed_and_predictions_shown(cli: Cli) -> None:
    assert cli("send", "slack", "--sample", "message").code == 0
    until(lambda: cli("prewarm", "predict", "--json").json["observation_count"])
    found = cli("prewarm", "predict", "--json").json
    assert found["mode"] == "PREDICTION_MODE_SHADOW"
    assert [rule["name"] for rule in found["rules"]] == ["links", "association", "succession"]
    assert "shadow mode" in cli("prewarm", "predict").out


@pytest.mark.parametrize(
    "command",
    [
        ("prewarm", "evaluate"),
        ("prewarm", "predict"),
        ("intelligence", "embed"),
        ("intelligence", "summarize"),
        ("intelligence", "analyze"),
        ("intelligence", "reindex"),
        ("intelligence", "explain"),
        ("intelligence", "estimate"),
        ("intelligence", "spending"),
    ],
)
def test_help_teaches_with_examples(lonely_cli: Cli, command: tuple[str, ...]) -> None:
    told = lonely_cli(*command, "--help")
    assert told.code == 0
    assert "Example" in told.out
    assert "--json" in told.out
