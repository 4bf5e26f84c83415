"""`Explain`: the same importance as `Analyze` gives, taken apart."""

from __future__ import annotations

import grpc
import pytest
from webhook.intelligence.v1 import intelligence_service_pb2 as pb
from webhook.intelligence.v1.intelligence_service_pb2_grpc import IntelligenceServiceStub
from webhook_shared.errors import from_rpc_error

SUBJECT = pb.Subject(
    context_id="github:octo/hello:pull_request:42",
    title="Add retry",
    event_count=12,
    happenings=[
        pb.Happening(kind="pull_request", action="opened", actor="octocat", text="Fixes #17: outage"),
        pb.Happening(kind="check_run", action="failed", actor="ci", text="build"),
    ],
)


async def test_explain(stub: IntelligenceServiceStub) -> None:
    explained = await stub.Explain(pb.ExplainRequest(subject=SUBJECT))
    (analysis,) = (await stub.Analyze(pb.AnalyzeRequest(subjects=[SUBJECT]))).analyses
    assert explained.importance == pytest.approx(analysis.importance)
    told = {one.name: one.contribution for one in explained.features if one.contribution}
    assert told == {one.name: one.contribution for one in analysis.importance_factors}
    contributions = [one.contribution for one in explained.features]
    assert contributions == sorted(contributions, reverse=True)
    assert sum(one.weight for one in explained.features) == pytest.approx(1)
    assert {one.name for one in explained.features if one.from_text} == {"severity", "references"}
    assert explained.features[0].name == "outcome"
    assert list(explained.features[0].evidence) == ["failed"]
    # Without a subject it says what there is to know of any.
    bare = await stub.Explain(pb.ExplainRequest())
    assert [one.weight for one in bare.features] == sorted((f.weight for f in bare.features), reverse=True)
    assert all(one.description for one in bare.features)
    assert bare.text_share == pytest.approx(0.15)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Explain(pb.ExplainRequest(subject=pb.Subject(context_id="a:b:c")))
    assert from_rpc_error(caught.value).reason == "SUBJECT_EMPTY"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Explain(pb.ExplainRequest(subject=pb.Subject(tenant="globex", title="x")))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
