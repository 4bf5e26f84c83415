"""What others' code signs is let in, what it refuses is refused, and what we call right it calls right too.

The others: Octokit and gidgethub for GitHub, Stripe's, Slack's and Standard Webhooks' own libraries.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import gidgethub
import pytest
import standardwebhooks
import stripe
from gidgethub.sansio import validate_event
from slack_sdk.signature import SignatureVerifier
from webhook_security import catalogue
from webhook_security.verification.verify import Proof, verify

from services.security.tests.proofs import SECRET, WHSEC, checks_of, signed

ROOT = Path(__file__).resolve().parents[3]
CATALOGUE = catalogue.load("X-Webhook-Signature")
BODIES = [
    b"{}",
    b'{"action":"opened","issue":{"title":"tab\\there"}}',
    '{"text":"grüße, 日本 🚢"}'.encode(),
    json.dumps({"long": "x" * 30_000}).encode(),
]
OCTOKIT = """
import { Webhooks } from "@octokit/webhooks";
let given = "";
for await (const part of process.stdin) given += part;
const { secret, signed, shown } = JSON.parse(given);
const webhooks = new Webhooks({ secret });
const told = async ([body, signature]) => {
  try { return await webhooks.verify(body, signature) } catch { return false }
};
console.log(JSON.stringify({
  signatures: await Promise.all(signed.map((body) => webhooks.sign(body))),
  verdicts: await Promise.all(shown.map(told)),
}));
"""


def octokit(signed_bodies: list[str], shown: list[tuple[str, str]]) -> Any:
    node = shutil.which("node")
    if not node or not (ROOT / "node_modules/@octokit/webhooks").is_dir():
        missing = "needs npm @octokit/webhooks: run `make node`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    given = json.dumps({"secret": SECRET, "signed": signed_bodies, "shown": shown})
    done = subprocess.run(
        [node, "--input-type=module", "--eval", OCTOKIT],
        input=given, capture_output=True, text=True, cwd=ROOT, timeout=60, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def accepts(entry: str, headers: dict[str, bytes], body: bytes, secret: str = SECRET) -> bool:
    found = verify(checks_of(CATALOGUE[entry].schemes[0], secret=secret), headers, body, int(time.time()))
    return isinstance(found, Proof)


def near_misses(signature: str) -> list[str]:
    """The signature with one thing wrong, in ways that have fooled verifiers."""
    head, last = signature[:-1], signature[-1]
    other = "0" if last != "0" else "1"
    digits = signature.partition("=")[2]
    return [
        head,
        head + other,
        signature + "0",
        signature.replace(digits, digits.upper()),
        digits,
        f"{signature} ",
    ]


def test_octokit() -> None:
    texts = [body.decode() for body in BODIES]
    ours = [
        signed(CATALOGUE["github"].schemes[0], body).headers["x-hub-signature-256"].decode()
        for body in BODIES
    ]
    wrong = [(texts[0], miss) for miss in near_misses(ours[0])]
    told = octokit(texts, [*zip(texts, ours, strict=True), (texts[1], ours[0]), *wrong])
    assert told["signatures"] == ours
    for body, signature in zip(BODIES, told["signatures"], strict=True):
        assert accepts("github", {"x-hub-signature-256": signature.encode()}, body)
    right, others = told["verdicts"][: len(ours)], told["verdicts"][len(ours) :]
    assert all(right)
    assert not any(others)
    for _, miss in wrong:
        assert not accepts("github", {"x-hub-signature-256": miss.encode()}, BODIES[0])


def test_gidgethub() -> None:
    scheme = CATALOGUE["github"].schemes[0]
    for body in BODIES:
        signature = signed(scheme, body).headers["x-hub-signature-256"].decode()
        validate_event(body, signature=signature, secret=SECRET)
        for miss in near_misses(signature):
            with pytest.raises(gidgethub.ValidationFailure):
                validate_event(body, signature=miss, secret=SECRET)
            assert not accepts("github", {"x-hub-signature-256": miss.encode()}, body)


class Library(NamedTuple):
    """A sender's own code.

    Attributes:
        sign: Headers by body and time.
        refuses: Whether it refuses headers, by lower-case name, on a body.
    """

    entry: str
    secret: str
    signature: str
    sign: Callable[[str, int], dict[str, str]]
    refuses: Callable[[dict[str, str], str], bool]


def stripe_refuses(headers: dict[str, str], body: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], SECRET, 300)
    except stripe.SignatureVerificationError:
        return True
    return False


SLACK = SignatureVerifier(SECRET)
STANDARD = standardwebhooks.Webhook(WHSEC)


def standard_refuses(headers: dict[str, str], body: str) -> bool:
    try:
        STANDARD.verify(body, headers)
    # It raises what base64 and unpacking raise, too.
    except (standardwebhooks.WebhookVerificationError, ValueError):
        return True
    return False


LIBRARIES = [
    Library(
        "stripe",
        SECRET,
        "stripe-signature",
        lambda body, at: {
            "stripe-signature": stripe.WebhookSignature.generate_signature_header(body, SECRET, timestamp=at)
        },
        stripe_refuses,
    ),
    Library(
        "slack",
        SECRET,
        "x-slack-signature",
        lambda body, at: {
            "x-slack-request-timestamp": str(at),
            "x-slack-signature": SLACK.generate_signature(timestamp=str(at), body=body) or "",
        },
        lambda headers, body: not SLACK.is_valid_request(body, headers),
    ),
    Library(
        "standard-webhooks",
        WHSEC,
        "webhook-signature",
        lambda body, at: {
            "webhook-id": "msg-1",
            "webhook-timestamp": str(at),
            "webhook-signature": STANDARD.sign("msg-1", datetime.fromtimestamp(at, UTC), body),
        },
        standard_refuses,
    ),
]


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.entry)
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_a_sender_s_own_library(library: Library, body: bytes) -> None:
    def ours(headers: dict[str, str], content: bytes = body) -> bool:
        encoded = {name: value.encode() for name, value in headers.items()}
        return accepts(library.entry, encoded, content, library.secret)

    now = int(time.time())
    headers = library.sign(body.decode(), now)
    assert ours(headers)
    assert not library.refuses(headers, body.decode())
    mine = signed(CATALOGUE[library.entry].schemes[0], body, library.secret, now).headers
    assert {name: value.decode() for name, value in mine.items()} == headers

    signature = headers[library.signature]
    cut = {**headers, library.signature: signature[:-2]}
    other = {
        **headers,
        library.signature: signature[:-3] + ("AA" if "AA" not in signature[-3:] else "BB") + signature[-1],
    }
    old = library.sign(body.decode(), now - 400)
    for wrong in (cut, other, old):
        assert library.refuses(wrong, body.decode())
        assert not ours(wrong)
    assert library.refuses(headers, body.decode() + " ")
    assert not ours(headers, body + b" ")
