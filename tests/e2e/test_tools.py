"""Tools that know nothing of us but reflection, and our own samples."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from webhook_ops.dev.secrets import secret_variable
from webhook_ops.samples import catalogue, signing

from tests import payloads
from tests.senders import Delivery
from tests.system import House

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUF = Path(sys.executable).with_name("buf")


async def _buf_curl(
    house: House, service: str, method: str, request: Any, *, key: str = ""
) -> tuple[int, Any]:
    """Call an RPC with `buf curl`, which finds out by reflection what its messages are."""
    address = house.system.plan.grpc[service]
    process = await asyncio.create_subprocess_exec(
        BUF,
        *("curl", "--protocol", "grpc", "--http2-prior-knowledge"),
        *(("-H", f"authorization: Bearer {key}") if key else ()),
        *("-d", json.dumps(request), f"http://{address}/{method}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    code = process.returncode
    assert code is not None
    return code, json.loads(output or errors)


async def test_a_context_can_be_read_with_reflection_alone(house: House) -> None:
    issue = payloads.github_issue("octo/reflected", 9, "Seen in a mirror", "By a tool without our files.")
    delivery = house.senders.github.deliver("issues", issue)
    event_id = await house.accepted(delivery)
    await house.operator.grown("github:octo/reflected:issue:9", 1)
    method = "webhook.context.v1.ContextService/GetContext"
    request = {"tenant": "default", "contextId": "github:octo/reflected:issue:9", "includePayloads": True}
    code, found = await _buf_curl(house, "context", method, request, key=house.system.operator_key)
    assert code == 0
    assert found["context"]["title"] == "Seen in a mirror"
    (event,) = found["context"]["events"]
    assert event["eventId"] == event_id
    assert base64.b64decode(event["payload"]) == delivery.body


async def test_an_error_is_one_that_a_program_can_read(house: House) -> None:
    method = "webhook.context.v1.ContextService/GetContext"
    request = {"tenant": "default", "contextId": "github:octo/nowhere:issue:404"}
    code, failure = await _buf_curl(house, "context", method, request, key=house.system.operator_key)
    assert code != 0
    assert failure["code"] == "not_found"
    (detail,) = (each for each in failure["details"] if each["type"] == "google.rpc.ErrorInfo")
    # Unpadded base64.
    info = ErrorInfo.FromString(base64.b64decode(detail["value"] + "=="))
    assert (info.reason, info.domain) == ("CONTEXT_NOT_FOUND", "webhook")


async def test_without_a_credential_the_same_call_is_refused(house: House) -> None:
    method = "webhook.consumer.v1.ConsumerAdminService/GetBacklog"
    code, failure = await _buf_curl(house, "consumer", method, {})
    assert code != 0
    assert failure["code"] == "unauthenticated"


async def test_every_sample_of_ours_is_let_in(house: House) -> None:
    for number, sample in enumerate(catalogue.SAMPLES):
        body = catalogue.vary(sample, number)
        secret = {**house.system.secrets, "GITLAB_WEBHOOK_SECRET": house.senders.gitlab.token}[
            secret_variable(sample.tool)
        ]
        headers = signing.sign(
            sample.tool,
            body,
            secret,
            event_type=sample.type,
            delivery_id=sample.delivery_id(number),
            now=time.time(),
        )
        answer = await house.post(Delivery(f"/webhooks/{sample.tool}", tuple(headers), body))
        assert answer.status in {200, 202}, f"{sample.file}: {answer}"
