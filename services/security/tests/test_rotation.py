"""Rotations over real sockets, at two replicas: nothing valid is refused on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from prometheus_client import REGISTRY
from webhook.security.v1.admission_pb2 import OUTCOME_ADMITTED, Verdict
from webhook.security.v1.admission_service_pb2 import AdmitRequest
from webhook.security.v1.admission_service_pb2_grpc import AdmissionServiceStub
from webhook.security.v1.security_admin_service_pb2 import (
    GetSourceRequest,
    ListSecretsRequest,
    RetireSecretRequest,
    RotateSecretRequest,
    RotateSecretResponse,
    SecretStatus,
)
from webhook.security.v1.security_admin_service_pb2_grpc import SecurityAdminServiceStub
from webhook_security.admission import tenants
from webhook_security.secrets import stored, uses
from webhook_shared.errors import ServiceError, from_rpc_error
from webhook_shared.rpc.identity import ApiKeys, Role
from webhook_shared.sealing import envelope
from webhook_shared.settings import RedisSection

ISSUE = b'{"action":"opened"}'
OLD = "the secret of github"
OLD_ID = "env:GITHUB_WEBHOOK_SECRET"
#: Long enough to look at it on a machine that has other work.
OVERLAP_S = 2.0


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SYNC_S", 0.02)
    monkeypatch.setattr(uses, "SAVE_S", 0.02)


class Replica:
    """One process of the service, as the gateway and an operator see it."""

    def __init__(self, channel: grpc.aio.Channel, sign: Any, deliver: Any) -> None:
        self.admission = AdmissionServiceStub(channel)
        self.administration = SecurityAdminServiceStub(channel)
        self._sign, self._deliver = sign, deliver

    async def send(self, secret: str, tool: str = "github") -> Verdict:
        headers = (
            self._sign.github(ISSUE, secret=secret) if tool == "github" else self._sign.generic(ISSUE, secret)
        )
        reply = await self.admission.Admit(AdmitRequest(deliveries=[self._deliver(tool, ISSUE, headers)]))
        return reply.verdicts[0]

    async def takes(self, secret: str, tool: str = "github") -> bool:
        return (await self.send(secret, tool)).outcome == OUTCOME_ADMITTED

    async def rotate(
        self, tool: str = "github", overlap_s: float | None = None, **more: Any
    ) -> RotateSecretResponse:
        request = RotateSecretRequest(tenant="default", tool=tool, **more)
        if overlap_s is not None:
            request.overlap.FromMilliseconds(round(overlap_s * 1000))
        return await self.administration.RotateSecret(request)

    async def retire(self, key_id: str, tool: str = "github") -> Any:
        request = RetireSecretRequest(tenant="default", tool=tool, key_id=key_id)
        return await self.administration.RetireSecret(request)

    async def secrets(self, tool: str = "github") -> dict[str, SecretStatus]:
        request = ListSecretsRequest(tenant="default", tool=tool)
        listed = await self.administration.ListSecrets(request)
        return {status.secret.key_id: status for status in listed.secrets}


@pytest.fixture
def replicas(service: Any, sign: Any, deliver: Any) -> Callable[..., Any]:
    """`async with replicas(redis) as (first, second)`: two processes of one system."""

    @asynccontextmanager
    async def start(redis: RedisSection, number: int = 2, **more: Any) -> AsyncIterator[list[Replica]]:
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(service(redis, **more)) for _ in range(number)]
            yield [Replica(channel, sign, deliver) for channel in channels]

    return start


async def refusal(call: Any) -> ServiceError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_rpc_error(refused.value)


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_no_valid_delivery_is_refused_while_a_secret_is_rotated(
    replicas: Any, valkey: RedisSection
) -> None:
    async with replicas(valkey) as (first, second):
        sender_uses, sent, refused = OLD, 0, []
        stop = asyncio.Event()

        async def stream(replica: Replica) -> None:
            nonlocal sent
            while not stop.is_set():
                verdict = await replica.send(sender_uses)
                sent += 1
                if verdict.outcome != OUTCOME_ADMITTED:
                    refused.append(verdict.refusal)

        streams = [asyncio.create_task(stream(replica)) for replica in (first, second) for _ in range(3)]
        await eventually(lambda: asyncio.sleep(0, sent > 50))
        made = await first.rotate(overlap_s=3600)
        assert made.replicas_behind == 0
        # The operator gives it to the sender at once; what is on its way was signed with the old one.
        sender_uses, until = made.secret, sent + 100
        await eventually(lambda: asyncio.sleep(0, sent > until))
        await second.retire(OLD_ID)
        until = sent + 100
        await eventually(lambda: asyncio.sleep(0, sent > until))
        stop.set()
        await asyncio.gather(*streams)
        assert refused == []
        assert not await first.takes(OLD)
        assert not await second.takes(OLD)


async def test_the_old_one_ends_with_the_overlap_everywhere(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey) as (first, second):
        began = time.time()
        made = await first.rotate(overlap_s=OVERLAP_S)
        (ending,) = made.ending
        assert (ending.secret.key_id, ending.live) == (OLD_ID, True)
        ends = ending.secret.not_after_time.ToMicroseconds() / 1e6
        assert began - 0.1 <= ends - OVERLAP_S <= time.time() + 0.1
        assert await first.takes(OLD)
        assert await second.takes(OLD)
        for replica in (first, second):
            await eventually(lambda replica=replica: _not(replica.takes(OLD)))
            assert await replica.takes(made.secret)
        shown = await second.secrets()
        assert [(key_id, status.live) for key_id, status in shown.items()] == [
            (made.added.secret.key_id, True),
            (OLD_ID, False),
        ]


async def _not(call: Any) -> bool:
    return not await call


async def test_a_secret_is_shown_once_and_stored_sealed(
    replicas: Any, valkey: RedisSection, redis: Any
) -> None:
    async with replicas(valkey) as (first, second):
        made = await first.rotate(request_id="r-1")
        assert len(made.secret) == 64
        again = await second.rotate(request_id="r-1")
        assert again.added.secret.key_id == made.added.secret.key_id
        assert again.secret == ""
        assert len(await first.secrets()) == 2
        other = await first.rotate(request_id="r-2")
        assert other.added.secret.key_id != made.added.secret.key_id
        assert await second.takes(made.secret)
        assert await second.takes(other.secret)
        source = await second.administration.GetSource(GetSourceRequest(tenant="default", tool="github"))
        assert made.secret.encode() not in source.SerializeToString()
        assert [one.reference for one in source.source.secrets] == ["stored", "stored", OLD_ID]
        assert await redis.hlen("secrets:{default}") == 4  # two added, one ended, the revision
        for key in await redis.keys("*"):
            if await redis.type(key) == b"hash":
                assert made.secret.encode() not in b"".join((await redis.hgetall(key)).values())


async def test_a_given_secret_is_not_shown_again(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey) as (first, second):
        given = await first.rotate(secret="what GitHub was told")
        assert given.secret == ""
        assert await second.takes("what GitHub was told")


async def test_a_minted_secret_fits_its_source(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey, 1) as (only,):
        assert (await only.rotate("standard-webhooks")).secret.startswith("whsec_")
        acme = (await only.rotate("acme-ci")).secret
        assert await only.takes(acme, "acme-ci")
        assert not await only.takes(acme, "github")


async def test_rotations_that_can_not_be(replicas: Any, valkey: RedisSection) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"secret": OLD}, "secret"),
        ({"secret": " \n"}, "secret"),
        ({"secret": "x" * 8193}, "secret"),
        ({"tool": "standard-webhooks", "secret": "not a whsec"}, "secret"),
        ({"overlap_s": -1}, "overlap"),
        ({"overlap_s": 91 * 24 * 3600}, "overlap"),
        ({"request_id": "x" * 129}, "request_id"),
    ]
    async with replicas(valkey, 1) as (only,):
        for request, field in wrong:
            error = await refusal(only.rotate(**request))
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
            assert list(error.fields) == [field]
            assert request.get("secret", "nothing secret") not in f"{error} {error.fields}"
        assert len(await only.secrets()) == len(await only.secrets("standard-webhooks")) == 1


async def test_what_is_not_there_is_not_found(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey, 1) as (only,):
        for call in (
            only.rotate("nobody"),
            only.retire(OLD_ID, "nobody"),
            only.secrets("nobody"),
        ):
            error = await refusal(call)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "SOURCE_NOT_FOUND")
        assert (await refusal(only.retire("no such"))).reason == "SECRET_NOT_FOUND"


async def test_the_last_secret_is_not_retired(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey, 1) as (only,):
        error = await refusal(only.retire(OLD_ID))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_SECRET")
        made = await only.rotate()
        retired = (await only.retire(OLD_ID)).retired
        assert (retired.secret.key_id, retired.live) == (OLD_ID, False)
        # Once more changes nothing, and is no mistake.
        assert (await only.retire(OLD_ID)).retired == retired
        assert (await refusal(only.retire(made.added.secret.key_id))).reason == "LAST_SECRET"


async def test_what_can_not_be_read_can_not_be_retired(replicas: Any, valkey: RedisSection) -> None:
    both = {"signature_secrets": {"github": [OLD_ID, "env:NOBODY_SET_THIS"]}}
    async with replicas(valkey, 1, security=both) as (only,):
        error = await refusal(only.retire("env:NOBODY_SET_THIS"))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SECRET_UNUSABLE")


async def test_one_secret_under_two_names_is_one(
    replicas: Any, valkey: RedisSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOTHER_NAME", OLD)
    both = {"signature_secrets": {"github": [OLD_ID, "env:ANOTHER_NAME"]}}
    async with replicas(valkey, 1, security=both) as (only,):
        assert (await refusal(only.retire(OLD_ID))).reason == "LAST_SECRET"
        made = await only.rotate()
        await only.retire(OLD_ID)
        assert not await only.takes(OLD)
        assert await only.takes(made.secret)
        assert not (await only.secrets())["env:ANOTHER_NAME"].live


async def test_only_operators_of_the_tenant_may(replicas: Any, valkey: RedisSection, redis: Any) -> None:
    _, writer = await ApiKeys(redis).mint("w", ["*"], [Role.WRITER])
    _, theirs = await ApiKeys(redis).mint("o", ["beta"], [Role.OPERATOR])
    async with replicas(valkey, 1, key=writer) as (only,):
        for call in (only.rotate(), only.retire(OLD_ID), only.secrets()):
            assert (await refusal(call)).reason == "ROLE_MISSING"
    async with replicas(valkey, 1, key=theirs) as (only,):
        for call in (only.rotate(), only.retire(OLD_ID), only.secrets()):
            assert (await refusal(call)).reason == "TENANT_NOT_ALLOWED"
        everything = await only.administration.ListSecrets(ListSecretsRequest())
        assert list(everything.secrets) == []


async def test_uses_tell_when_the_old_one_can_go(replicas: Any, valkey: RedisSection) -> None:
    labels = {"tenant": "default", "tool": "github", "key_id": OLD_ID}
    name = "webhook_security_secret_last_use_timestamp_seconds"
    async with replicas(valkey) as (first, second):
        made = await first.rotate()
        new_id = made.added.secret.key_id
        began = time.time()
        assert await first.takes(OLD)
        assert await second.takes(OLD)
        assert await second.takes(made.secret)
        assert not await second.takes("wrong")

        async def saved() -> bool:
            shown = await first.secrets()
            return (shown[OLD_ID].use_count, shown[new_id].use_count) == (2, 1)

        await eventually(saved)
        shown = (await first.secrets())[OLD_ID]
        assert began - 1 <= shown.last_use_time.ToMicroseconds() / 1e6 <= time.time() + 1
        last = REGISTRY.get_sample_value(name, labels)
        assert last is not None
        assert began - 1 <= last <= time.time() + 1
        unused = (await first.rotate()).added
        assert not unused.HasField("last_use_time")
        assert REGISTRY.get_sample_value(name, {**labels, "key_id": unused.secret.key_id}) is None


async def test_rotations_outlive_every_process(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey, 1) as (only,):
        made = await only.rotate()
        await only.retire(OLD_ID)
    async with replicas(valkey, 1) as (only,):
        assert await only.takes(made.secret)
        assert not await only.takes(OLD)


async def test_a_redis_that_lost_everything_learns_it_again(
    replicas: Any, valkey: RedisSection, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envelope, "KEY_TABLE_AGE_S", 0.2)
    monkeypatch.setattr(tenants, "RENEW_S", 0.2)
    async with replicas(valkey, 1) as (first,):
        made = await first.rotate(overlap_s=0)
        await redis.flushall()
        assert await first.takes(made.secret)
        await eventually(lambda: redis.exists("secrets:{default}"))
        async with replicas(valkey, 1) as (second,):
            # The key that it is sealed with may come back a little later than the secret itself.
            await eventually(lambda: second.takes(made.secret))
            await eventually(lambda: _not(second.takes(OLD)))
            later = await second.rotate()
            assert later.replicas_behind == 0
            assert await first.takes(later.secret)


async def test_it_goes_on_without_redis_and_follows_again(replicas: Any, redis_server: Any) -> None:
    async with replicas(redis_server.settings) as (first, second):
        made = await first.rotate()
        redis_server.kill()
        assert await second.takes(made.secret)
        assert (await refusal(first.rotate())).code == grpc.StatusCode.UNAVAILABLE
        redis_server.start()
        await redis_server.answering()

        async def rotated() -> bool:
            try:
                later = await first.rotate()
            except grpc.aio.AioRpcError:
                return False
            return later.replicas_behind == 0 and await second.takes(later.secret)

        await eventually(rotated)


async def test_a_record_that_was_tampered_with_is_no_secret(
    replicas: Any, valkey: RedisSection, redis: Any
) -> None:
    async with replicas(valkey, 1) as (only,):
        made = await only.rotate()
        acme = await only.rotate("acme-ci")
    # Somebody who can write to Redis, but holds no key, moves a secret to another source.
    sealed = await redis.hget("secrets:{default}", f"acme-ci/{acme.added.secret.key_id}")
    await redis.hset("secrets:{default}", f"github/{made.added.secret.key_id}", sealed)
    async with replicas(valkey, 1) as (only,):
        assert not await only.takes(acme.secret)
        assert not await only.takes(made.secret)
        assert await only.takes(OLD)


async def test_an_end_belongs_to_a_value_and_not_to_a_name(
    replicas: Any, valkey: RedisSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(valkey, 1) as (only,):
        await only.rotate(overlap_s=0)
        assert not await only.takes(OLD)
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "what the operator put there since")
    async with replicas(valkey, 1) as (only,):
        assert await only.takes("what the operator put there since")
        assert not await only.takes(OLD)
        await only.rotate(overlap_s=0)
        assert not await only.takes("what the operator put there since")
    # What was ended before stays ended, also after the one that came after it, and under another name.
    monkeypatch.setenv("ANOTHER_NAME", OLD)
    both = {"signature_secrets": {"github": ["env:GITHUB_WEBHOOK_SECRET", "env:ANOTHER_NAME"]}}
    async with replicas(valkey, 1, security=both) as (only,):
        assert not await only.takes(OLD)
        assert not await only.takes("what the operator put there since")


async def test_a_secret_that_moved_into_the_configuration_outlives_the_stored_one(
    replicas: Any, valkey: RedisSection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(valkey, 1) as (only,):
        made = await only.rotate(overlap_s=0)
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", made.secret)
    async with replicas(valkey, 1) as (only,):
        await only.retire(made.added.secret.key_id)
        assert await only.takes(made.secret)
        assert {key_id: status.live for key_id, status in (await only.secrets()).items()} == {
            made.added.secret.key_id: False,
            OLD_ID: True,
        }


async def test_a_replica_that_is_behind_is_told_of(
    replicas: Any, valkey: RedisSection, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "SPREAD_WITHIN_S", 0.1)
    async with replicas(valkey, 1) as (only,):
        assert (await only.rotate()).replicas_behind == 0
        (now, _) = await redis.time()
        await redis.hset("secrets:replicas", "cut off", f"0 {now}")
        assert (await only.rotate()).replicas_behind == 1
        # One that has said nothing for long is gone.
        await redis.hset("secrets:replicas", "cut off", f"0 {now - 60}")
        assert (await only.rotate()).replicas_behind == 0
    assert await redis.hgetall("secrets:replicas") == {}


async def test_rotations_at_once_all_count(replicas: Any, valkey: RedisSection) -> None:
    async with replicas(valkey) as both:
        made = await asyncio.gather(*[replica.rotate() for replica in both for _ in range(2)])
        for replica in both:
            for one in made:
                assert await replica.takes(one.secret)
        assert len(await both[0].secrets()) == 5
