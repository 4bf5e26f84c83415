"""A server over a real socket: who may call, how errors travel, health, drain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr
from redis.exceptions import ConnectionError as StoreConnectionError
from webhook_shared.errors import InvalidArgument, NotFound, ServiceError, Unavailable, from_rpc_error
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Authenticator, Role, caller
from webhook_shared.rpc.server import Service, serving

INTERNAL = SecretStr("i" * 40)
NAME = "test.v1.EchoService"


async def echo(request: wrappers_pb2.StringValue, context: Any) -> wrappers_pb2.StringValue:
    match request.value:
        case "missing":
            raise NotFound("THING_NOT_FOUND", "there is no such thing", thing="x")
        case "field":
            raise InvalidArgument("look at the fields", fields={"value": "is no good"})
        case "busy":
            raise Unavailable("BUSY", "come again", retry_after_s=1.5)
        case "redis":
            raise StoreConnectionError("Error 111 connecting to secret-host:6379")
        case "bug":
            raise KeyError("the payload of a customer")
        case "slow":
            await asyncio.sleep(0.3)
    return wrappers_pb2.StringValue(value=f"{caller().key_id}:{request.value}")


def add(server: grpc.aio.Server) -> None:
    handler = grpc.unary_unary_rpc_method_handler(
        echo, wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString
    )
    handlers = {"Echo": handler, "Admin": handler}
    server.add_registered_method_handlers(NAME, handlers)


@asynccontextmanager
async def echo_server(redis: Client, *, broken: asyncio.Event | None = None) -> AsyncIterator[str]:
    async def probe() -> None:
        if broken is not None and broken.is_set():
            raise OSError

    service = Service(NAME, add, Role.READER, {"Admin": Role.OPERATOR})
    authenticator = Authenticator(redis, INTERNAL)
    async with serving(
        "127.0.0.1:0", [service], authenticator=authenticator, ready={"probe": probe}, drain_s=2
    ) as port:
        yield f"127.0.0.1:{port}"


async def call(address: str, key: str, value: str, method: str = "Echo") -> str:
    async with connected(address, key=SecretStr(key), deadline_s=2) as channel:
        rpc = channel.unary_unary(
            f"/{NAME}/{method}",
            wrappers_pb2.StringValue.SerializeToString,
            wrappers_pb2.StringValue.FromString,
        )
        try:
            reply: wrappers_pb2.StringValue = await rpc(wrappers_pb2.StringValue(value=value))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        return reply.value


async def failure(address: str, key: str, value: str, method: str = "Echo") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await call(address, key, value, method)
    return caught.value


async def test_only_good_credentials_get_in(redis: Client) -> None:
    keys = ApiKeys(redis)
    record, secret = await keys.mint("reader", ["acme"], [Role.READER])
    _, expired = await keys.mint("old", ["acme"], [Role.READER], expire_time=1.0)
    async with echo_server(redis) as address:
        assert await call(address, secret, "hi") == f"{record.key_id}:hi"
        assert await call(address, INTERNAL.get_secret_value(), "hi", "Admin") == "internal:hi"
        for bad in ("", "nonsense", "whk_a_b", secret[:-1], secret + "x", expired):
            assert (await failure(address, bad, "hi")).code is grpc.StatusCode.UNAUTHENTICATED
        denied = await failure(address, secret, "hi", "Admin")
        assert (denied.code, denied.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")


async def test_a_revoked_key_is_worth_nothing_to_a_new_server(redis: Client) -> None:
    keys = ApiKeys(redis)
    record, secret = await keys.mint("reader", ["acme"], [Role.READER])
    assert await keys.revoke(record.key_id)
    async with echo_server(redis) as address:
        assert (await failure(address, secret, "hi")).reason == "CREDENTIAL_INVALID"


async def test_minting_twice_with_one_request_id_makes_one_key(redis: Client) -> None:
    keys = ApiKeys(redis)
    first, secret = await keys.mint("ci", ["acme"], [Role.WRITER], request_id="r-1")
    second, nothing = await keys.mint("ci", ["acme"], [Role.WRITER], request_id="r-1")
    assert first == second
    assert secret
    assert nothing == ""
    assert secret.encode() not in str(await redis.hvals("apikeys")).encode()


async def test_errors_arrive_as_they_left(redis: Client) -> None:
    async with echo_server(redis) as address:
        key = INTERNAL.get_secret_value()
        missing = await failure(address, key, "missing")
        assert (missing.code, missing.reason, missing.metadata) == (
            grpc.StatusCode.NOT_FOUND,
            "THING_NOT_FOUND",
            {"thing": "x"},
        )
        assert (await failure(address, key, "field")).fields == {"value": "is no good"}
        assert (await failure(address, key, "busy")).retry_after_s == 1.5


async def test_neither_driver_text_nor_payload_leaves_with_an_error(redis: Client) -> None:
    async with echo_server(redis) as address:
        key = INTERNAL.get_secret_value()
        away = await failure(address, key, "redis")
        assert (away.code, away.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNREACHABLE")
        assert "secret-host" not in str(away)
        bug = await failure(address, key, "bug")
        assert (bug.code, bug.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "customer" not in str(bug)


async def test_health_follows_its_dependencies_and_needs_no_credential(redis: Client) -> None:
    broken = asyncio.Event()
    async with echo_server(redis, broken=broken) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)

        async def becomes(status: int) -> None:
            async with asyncio.timeout(5):
                while (await stub.Check(health_pb2.HealthCheckRequest(service=NAME))).status != status:
                    await asyncio.sleep(0.05)

        await becomes(health_pb2.HealthCheckResponse.SERVING)
        broken.set()
        await becomes(health_pb2.HealthCheckResponse.NOT_SERVING)
        broken.clear()
        await becomes(health_pb2.HealthCheckResponse.SERVING)


async def test_a_call_in_flight_is_finished_on_the_way_out(redis: Client) -> None:
    async with echo_server(redis) as address:
        slow = asyncio.create_task(call(address, INTERNAL.get_secret_value(), "slow"))
        await asyncio.sleep(0.1)
    assert await slow == "internal:slow"


async def test_the_deadline_of_the_channel_holds(redis: Client) -> None:
    async with echo_server(redis) as address, connected(address, key=INTERNAL, deadline_s=0.05) as channel:
        rpc = channel.unary_unary(
            f"/{NAME}/Echo", wrappers_pb2.StringValue.SerializeToString, wrappers_pb2.StringValue.FromString
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await rpc(wrappers_pb2.StringValue(value="slow"))
        assert from_rpc_error(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_service_that_is_not_there_is_unreachable_not_a_riddle(redis: Client) -> None:
    error = await failure("127.0.0.1:9", INTERNAL.get_secret_value(), "hi")
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "PEER_UNREACHABLE")


@pytest.mark.parametrize("weak", ["", "short"])
async def test_a_short_internal_key_is_refused(redis: Client, weak: str) -> None:
    with pytest.raises(ValueError, match="WEBHOOK_INTERNAL_KEY"):
        Authenticator(redis, SecretStr(weak))


async def test_a_crowd_of_calls_waits_for_the_event_loop(redis: Client) -> None:
    """By default gRPC drops some of them, as if their callers had hung up."""
    async with echo_server(redis) as address, connected(address, key=INTERNAL, deadline_s=60) as channel:
        rpc = channel.unary_unary(
            f"/{NAME}/Echo", wrappers_pb2.StringValue.SerializeToString, wrappers_pb2.StringValue.FromString
        )
        calls = [rpc(wrappers_pb2.StringValue(value="a")) for _ in range(4000)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {getattr(answer, "value", answer) for answer in answers} == {"internal:a"}
