"""The samples tell one story, and are signed as their senders sign."""

import base64
import hashlib
import hmac
from collections import Counter
from importlib.resources import files

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from webhook.event.v1.event_pb2 import WebhookEvent
from webhook_consumer.normalize import Append, normalize
from webhook_ops.samples.catalogue import SAMPLES, Sample, body, sample, vary
from webhook_ops.samples.senders import senders
from webhook_ops.samples.signing import example_body, freshened, sign
from webhook_security import catalogue
from webhook_security.refusals import Refusal
from webhook_security.verification.verify import Check, Key, Proof, Verifier, verify

NOW = 1_795_168_230.9
# Senders' published secret; one comma tells GitHub's example from Atlassian's.
PUBLISHED_SECRET = "It's a Secret to Everybody"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def signed(
    tool: str, content: bytes, secret: str, *, delivery_id: str = "d-1", now: float = NOW
) -> dict[str, str]:
    headers = sign(tool, content, secret, event_type="push", delivery_id=delivery_id, now=now)
    assert len({name.lower() for name, _ in headers}) == len(headers), "a sender sends each header once"
    return dict(headers)


def by_openssl(secret: str, content: bytes) -> str:
    """The HMAC-SHA256 as somebody else computes it."""
    code = HMAC(secret.encode(), SHA256())
    code.update(content)
    return code.finalize().hex()


class TestPublishedVectors:
    def test_github(self) -> None:
        headers = signed("github", b"Hello, World!", PUBLISHED_SECRET)
        assert headers["X-Hub-Signature-256"] == (
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        )

    def test_jira(self) -> None:
        headers = signed("jira", b"Hello World!", PUBLISHED_SECRET)
        assert headers["X-Hub-Signature"] == (
            "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
        )

    def test_slack(self) -> None:
        content = (
            b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
            b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
            b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
            b"%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
        )
        headers = signed("slack", content, "8f742231b10e8888abcd99yyyzzz85a5", now=1531420618)
        assert headers["X-Slack-Request-Timestamp"] == "1531420618"
        assert headers["X-Slack-Signature"] == (
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
        )

    @pytest.mark.parametrize("tool", ["standard-webhooks", "gitlab"])
    def test_standard_webhooks(self, tool: str) -> None:
        headers = signed(
            tool,
            b'{"test": 2432232314}',
            STANDARD_SECRET,
            delivery_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
            now=1614265330,
        )
        assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
        assert headers["webhook-timestamp"] == "1614265330"
        assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        assert "X-Gitlab-Token" not in headers


class TestHeaders:
    def test_github_names_event_delivery_and_hook(self) -> None:
        headers = signed("github", b"{}", "s")
        assert headers["X-GitHub-Event"] == "push"
        assert headers["X-GitHub-Delivery"] == "d-1"
        assert headers["X-GitHub-Hook-ID"].isdigit()
        assert headers["User-Agent"].startswith("GitHub-Hookshot/")
        assert headers["Content-Type"] == "application/json"

    def test_gitlab_sends_a_plain_token_as_it_is(self) -> None:
        headers = signed("gitlab", b"{}", "plain")
        assert headers["X-Gitlab-Token"] == "plain"
        assert headers["X-Gitlab-Event"] == "Push Hook"
        assert headers["Idempotency-Key"] == "d-1"
        assert "webhook-signature" not in headers

    def test_jira_names_the_delivery(self) -> None:
        assert signed("jira", b"{}", "s")["X-Atlassian-Webhook-Identifier"] == "d-1"

    def test_any_other_tool_signs_the_time_and_the_body(self) -> None:
        headers = signed("acme-deploy", b'{"a":1}', "s", now=1_700_000_000.9)
        assert headers["X-Webhook-Timestamp"] == "1700000000"
        assert headers["X-Webhook-Id"] == "d-1"
        assert headers["X-Webhook-Event"] == "push"
        assert headers["X-Webhook-Signature"] == by_openssl("s", b'1700000000.{"a":1}')

    @pytest.mark.parametrize("content", [b"", b"{}", '{"é": "✓"}'.encode(), bytes(range(256))])
    def test_another_implementation_agrees(self, content: bytes) -> None:
        secret = "sécret ✓"
        assert (
            signed("github", content, secret)["X-Hub-Signature-256"]
            == f"sha256={by_openssl(secret, content)}"
        )
        assert signed("jira", content, secret)["X-Hub-Signature"] == f"sha256={by_openssl(secret, content)}"
        slack = signed("slack", content, secret)["X-Slack-Signature"]
        assert slack == f"v0={by_openssl(secret, b'v0:1795168230:' + content)}"
        key = base64.b64decode(STANDARD_SECRET.removeprefix("whsec_"))
        digest = hmac.digest(key, b"d-1.1795168230." + content, hashlib.sha256)
        standard = signed("gitlab", content, STANDARD_SECRET)["webhook-signature"]
        assert standard == f"v1,{base64.b64encode(digest).decode()}"

    def test_a_broken_signing_secret_is_refused_unquoted(self) -> None:
        with pytest.raises(ValueError, match="not base64") as caught:
            signed("gitlab", b"{}", "whsec_!!!")
        assert "!!!" not in str(caught.value)


CATALOGUE = catalogue.load("X-Webhook-Signature")
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = "whpk_" + base64.b64encode(PRIVATE.public_key().public_bytes_raw()).decode()
# What the sender holds, what we hold.
PAIRS = [
    *(
        (tool, PUBLISHED_SECRET, PUBLISHED_SECRET)
        for tool in sorted(senders())
        if tool != "standard-webhooks"
    ),
    ("gitlab", STANDARD_SECRET, STANDARD_SECRET),
    ("standard-webhooks", STANDARD_SECRET, STANDARD_SECRET),
    ("standard-webhooks", "whsk_" + base64.b64encode(bytes(range(32))).decode(), PUBLIC),
]


class TestSenders:
    def test_every_entry_of_the_catalogue_can_be_signed_for(self) -> None:
        assert set(senders()) == set(CATALOGUE)

    @pytest.mark.parametrize(("tool", "secret", "kept"), PAIRS)
    def test_the_verifier_takes_what_is_signed_here(self, tool: str, secret: str, kept: str) -> None:
        if tool == "azure-devops":
            secret = kept = f"hook:{secret}"
        example = senders()[tool].example
        content = b'{"a":1}'
        if example:
            content = example_body(example, event_type=example.type, delivery_id="d-1", now=NOW)
        content = freshened(tool, content, secret, now=NOW)
        made = {name.lower(): value.encode() for name, value in signed(tool, content, secret).items()}
        verifiers = [Verifier(scheme, 300.0) for scheme in CATALOGUE[tool].schemes]
        checks = [
            Check.of(verifier, [Key("it", key, float("-inf"), float("inf"))])
            for verifier in verifiers
            if (key := verifier.scheme.key_of(kept))
        ]
        assert isinstance(verify(checks, made, content, NOW), Proof)
        if tool in {"azure-devops", "microsoft-graph"} or (tool == "gitlab" and secret == PUBLISHED_SECRET):
            return
        assert verify(checks, made, content + b" ", NOW) is Refusal.SIGNATURE_INVALID

    def test_an_example_is_another_event_each_time(self) -> None:
        for tool, known in senders().items():
            if known.example and tool not in {"bitbucket", "shopify", "sentry"}:
                bodies = {
                    example_body(known.example, event_type="e", delivery_id=delivery_id, now=NOW)
                    for delivery_id in ("d-1", "d-2")
                }
                assert len(bodies) == 2, tool

    def test_a_secret_of_another_kind_is_refused_unquoted(self) -> None:
        for secret in ("plain", "whsk_c2hvcnQ="):
            with pytest.raises(ValueError, match=r"secret|private key") as caught:
                signed("standard-webhooks", b"{}", secret)
            assert secret not in str(caught.value)

    def test_a_body_that_is_no_json_stays_as_it_is(self) -> None:
        assert freshened("linear", b"not json", "s", now=NOW) == b"not json"
        assert freshened("linear", b"[1]", "s", now=NOW) == b"[1]"
        assert freshened("github", b"{ }", "s", now=NOW) == b"{ }"


def told(each: Sample, content: bytes) -> Append:
    event = WebhookEvent(tool=each.tool, type=each.type, payload=content, content_type="application/json")
    (append,) = normalize(event)
    return append


class TestStory:
    @pytest.mark.parametrize("each", SAMPLES, ids=lambda each: each.file)
    def test_every_sample_is_what_the_catalogue_says(self, each: Sample) -> None:
        append = told(each, body(each))
        assert append.type == each.type
        assert append.text
        assert each.description
        assert sample(each.tool, each.name) is each
        assert orjson.loads(body(each)) == orjson.loads(
            (files("webhook_ops.samples") / each.file).read_bytes()
        )

    def test_every_data_file_is_listed(self) -> None:
        folder = files("webhook_ops.samples")
        there = {
            f"{tool.name}/{file.name}"
            for tool in folder.iterdir()
            if tool.is_dir()
            for file in tool.iterdir()
            if file.name.endswith(".json")
        }
        assert there == {each.file for each in SAMPLES}

    def test_an_unknown_sample_is_an_error_that_helps(self) -> None:
        with pytest.raises(KeyError, match=r"github/push\.json"):
            sample("github", "nothing")

    @pytest.mark.parametrize("n", [0, 1, 7, 500])
    def test_the_contexts_link_up(self, n: int) -> None:
        contexts: dict[str, set[str]] = {}
        for each in SAMPLES:
            append = told(each, vary(each, n))
            contexts.setdefault(append.context_id, set()).update(link.context_id for link in append.links)
        pull_request = f"github:harborlane-example/ferry-booking:pull_request:{4118 + 2 * n}"
        issue = f"github:harborlane-example/ferry-booking:issue:{4117 + 2 * n}"
        ticket = f"jira:jira.harborlane.example:issue:FERRY-{642 + 200 * n}"
        assert {issue, ticket} <= contexts[pull_request]
        assert ticket in contexts[issue]
        assert pull_request in contexts[ticket]
        tools = Counter(own.partition(":")[0] for own, others in contexts.items() if pull_request in others)
        assert set(tools) == {"github", "gitlab", "jira", "slack", "acme-deploy"}

    def test_variations_are_distinct_and_keep_the_shape(self) -> None:
        for each in SAMPLES[:-1]:
            bodies = [vary(each, n) for n in range(200)]
            assert bodies[0] == body(each)
            assert len(set(bodies)) == len(bodies), each.file
            assert len({told(each, content).context_id for content in bodies}) == len(bodies), each.file
            for content in bodies[::50]:
                assert shape(orjson.loads(content)) == shape(orjson.loads(bodies[0]))
            assert vary(each, 5) == bodies[5], "the same again"
            assert len({each.delivery_id(n) for n in range(200)}) == 200

    def test_variations_count_from_zero(self) -> None:
        with pytest.raises(ValueError, match="count from 0"):
            vary(SAMPLES[0], -1)

    def test_github_samples_have_real_sizes(self) -> None:
        sizes = {each.file: len(body(each)) for each in SAMPLES if each.tool == "github"}
        assert all(6_000 <= size <= 17_000 for size in sizes.values()), sizes


def shape(value: object) -> object:
    """The value's keys and types without its contents."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return type(value)
