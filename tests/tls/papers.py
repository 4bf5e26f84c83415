"""Certificates in a directory, and a server that says who calls it."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import wrappers_pb2
from pydantic import SecretStr
from webhook_ops.authority import Authority, Pair
from webhook_shared.errors import from_rpc_error
from webhook_shared.redis import Client
from webhook_shared.rpc import tls as tls_files
from webhook_shared.rpc.channel import connected, opened
from webhook_shared.rpc.identity import Authenticator, Certificates, Role, caller
from webhook_shared.rpc.server import Service, serving
from webhook_shared.settings import CertificateSection, IdentitySection, TlsSection

HERE = ("localhost", "127.0.0.1")
NAME = "test.v1.WhoService"
INTERNAL = "spiffe://webhook/internal"
EXPIRED = dt.timedelta(hours=-1)

IDENTITY = IdentitySection(
    certificates=(
        CertificateSection(name="spiffe://acme/reader", tenants=("acme",), roles=("reader",)),
        CertificateSection(name="spiffe://acme/operator", tenants=("acme",), roles=("reader", "operator")),
        CertificateSection(name="ci", tenants=("acme",), roles=("reader",)),
    )
)


class Papers:
    """The certificates of a test.

    Args:
        directory: Where their files are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority.new("test")
        self.authority.pair.write(directory, "ca")

    def keep(self, name: str, pair: Pair) -> TlsSection:
        """Put a pair into files, or others in their place; what a process is told of them."""
        pair.write(self.directory, name)
        return self.section(name)

    def server(self, name: str = "server", **changes: Any) -> TlsSection:
        """What a server on this machine is told; with a new certificate."""
        self.keep(name, self.authority.issue(name, hosts=HERE, uris=(INTERNAL,)))
        return self.section(name, **changes)

    def client(self, uri: str = "", *, name: str = "client", **issue: Any) -> TlsSection:
        """What a caller is told; with a new certificate."""
        return self.keep(name, self.authority.issue(name, uris=(uri,) if uri else (), **issue))

    def section(self, name: str, **changes: Any) -> TlsSection:
        """The settings that name these files."""
        files = {
            "ca_file": str(self.directory / "ca.crt"),
            "cert_file": str(self.directory / f"{name}.crt"),
            "key_file": str(self.directory / f"{name}.key"),
        }
        return TlsSection(**(files | changes))


async def _who(request: wrappers_pb2.StringValue, _: Any) -> wrappers_pb2.StringValue:
    if request.value:
        await asyncio.sleep(float(request.value))
    return wrappers_pb2.StringValue(value=caller().key_id)


async def _tick(_: Any, __: Any) -> AsyncIterator[wrappers_pb2.StringValue]:
    while True:
        yield wrappers_pb2.StringValue(value=caller().key_id)
        await asyncio.sleep(0.01)


def _add(server: grpc.aio.Server) -> None:
    parse, write = wrappers_pb2.StringValue.FromString, wrappers_pb2.StringValue.SerializeToString
    handlers = {
        "Read": grpc.unary_unary_rpc_method_handler(_who, parse, write),
        "Administer": grpc.unary_unary_rpc_method_handler(_who, parse, write),
        "Tick": grpc.unary_stream_rpc_method_handler(_tick, parse, write),
    }
    server.add_registered_method_handlers(NAME, handlers)


@asynccontextmanager
async def who_server(redis: Client, tls: TlsSection, *, internal_key: str = "") -> AsyncIterator[str]:
    """A server that answers with the caller's key id; Administer is for operators."""
    service = Service(NAME, _add, Role.READER, {"Administer": Role.OPERATOR})
    authenticator = Authenticator(redis, SecretStr(internal_key), Certificates(IDENTITY, tls))
    async with serving(
        "127.0.0.1:0", [service], authenticator=authenticator, ready={}, drain_s=1, tls=tls
    ) as port:
        yield f"127.0.0.1:{port}"


async def ask(address: str, tls: TlsSection, *, key: str = "", method: str = "Read") -> str:
    """The caller as the server saw it, or the reason why not."""
    async with connected(address, key=SecretStr(key), deadline_s=3, tls=tls) as channel:
        try:
            return await read(channel, method)
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error).reason


async def is_shut_out(address: str, tls: TlsSection, *, key: str = "") -> bool:
    """Whether there is not even a connection; asks once."""
    async with opened(address, tls) as channel:
        try:
            metadata = (("authorization", f"Bearer {key}"),) if key else ()
            await bound(channel)(wrappers_pb2.StringValue(), metadata=metadata, timeout=3)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


async def read(channel: grpc.aio.Channel, method: str = "Read", value: str = "") -> str:
    """One call."""
    rpc: Any = bound(channel, method)
    reply: wrappers_pb2.StringValue = await rpc(wrappers_pb2.StringValue(value=value))
    return reply.value


def bound(channel: grpc.aio.Channel, method: str = "Read") -> Any:
    """A method as a stub has it."""
    make = channel.unary_stream if method == "Tick" else channel.unary_unary
    return make(
        f"/{NAME}/{method}", wrappers_pb2.StringValue.SerializeToString, wrappers_pb2.StringValue.FromString
    )


def look_at_once(monkeypatch: Any) -> None:
    """Files are looked at whenever they matter, not at most once a second."""
    monkeypatch.setattr(tls_files.CertificateFiles.__init__, "__kwdefaults__", {"look_again_s": 0.0})
