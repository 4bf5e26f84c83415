"""Mutual TLS between processes: real handshakes, and who the certificate says is calling."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf import wrappers_pb2
from pydantic import SecretStr, ValidationError
from webhook_ops.authority import Authority
from webhook_shared.redis import Client
from webhook_shared.rpc.channel import connected
from webhook_shared.rpc.identity import ApiKeys, Authenticator, Certificates, Role
from webhook_shared.rpc.server import serving
from webhook_shared.rpc.tls import CertificateFiles, TlsProblem, stays_on_this_machine
from webhook_shared.settings import CertificateSection, IdentitySection, TlsSection

from tests.tls.papers import (
    EXPIRED,
    HERE,
    INTERNAL,
    Papers,
    ask,
    bound,
    is_shut_out,
    look_at_once,
    read,
    who_server,
)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers(tmp_path)


async def test_a_certificate_is_a_credential(redis: Client, papers: Papers) -> None:
    async with who_server(redis, papers.server()) as address:
        ours = papers.client(INTERNAL, name="ours")
        assert await ask(address, ours, method="Administer") == f"cert:{INTERNAL}"
        reader = papers.client("spiffe://acme/reader")
        assert await ask(address, reader) == "cert:spiffe://acme/reader"
        assert await ask(address, reader, method="Administer") == "ROLE_MISSING"
        operator = papers.client("spiffe://acme/operator", name="operator")
        assert await ask(address, operator, method="Administer") == "cert:spiffe://acme/operator"
        assert await ask(address, papers.client(name="ci")) == "cert:ci"


async def test_a_name_that_nobody_knows_needs_a_key(redis: Client, papers: Papers) -> None:
    record, secret = await ApiKeys(redis).mint("ci", ["acme"], [Role.READER])
    async with who_server(redis, papers.server()) as address:
        stranger = papers.client("spiffe://acme/stranger")
        assert await ask(address, stranger) == "CERTIFICATE_UNKNOWN"
        assert await ask(address, stranger, key=secret) == record.key_id
        # A key that is sent decides, good or bad: a certificate does not stand in for a revoked one.
        assert await ask(address, papers.client(INTERNAL, name="ours"), key=secret) == record.key_id
        assert await ask(address, papers.client(INTERNAL, name="ours"), key="x") == "CREDENTIAL_INVALID"


async def test_a_common_name_is_not_taken_for_a_uri_nor_the_other_way_round(
    redis: Client, papers: Papers
) -> None:
    async with who_server(redis, papers.server()) as address:
        posing = papers.keep("posing", papers.authority.issue(INTERNAL))
        assert await ask(address, posing) == "CERTIFICATE_UNKNOWN"
        # With a URI the common name is for people only.
        both = papers.keep("both", papers.authority.issue("ci", uris=("spiffe://acme/other",)))
        assert await ask(address, both) == "CERTIFICATE_UNKNOWN"


async def test_who_shows_no_good_certificate_gets_no_connection(redis: Client, papers: Papers) -> None:
    key = "k" * 40
    async with who_server(redis, papers.server(), internal_key=key) as address:
        good = papers.client("spiffe://acme/reader")
        assert await ask(address, good) == "cert:spiffe://acme/reader"

        assert not await is_shut_out(address, good, key=key)

        assert await is_shut_out(address, TlsSection(ca_file=good.ca_file), key=key)
        assert await is_shut_out(address, TlsSection(), key=key)
        forged = papers.keep("forged", Authority.new("test").issue("forged", uris=(INTERNAL,)))
        assert await is_shut_out(address, forged, key=key)
        soon_old = papers.client(INTERNAL, name="old")
        async with connected(address, key=SecretStr(key), deadline_s=3, tls=soon_old) as channel:
            assert await read(channel)
        with pytest.raises(TlsProblem, match="has expired"):
            await ask(address, papers.client(INTERNAL, name="old", life=EXPIRED))


async def test_an_expired_certificate_is_refused_by_the_server_too(redis: Client, papers: Papers) -> None:
    async with who_server(redis, papers.server()) as address:
        old = papers.authority.issue("old", uris=(INTERNAL,), life=EXPIRED)
        shown = grpc.ssl_channel_credentials(papers.authority.pair.certificate, old.key, old.certificate)
        async with grpc.aio.secure_channel(address, shown) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bound(channel)(wrappers_pb2.StringValue(), timeout=3)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_client_believes_only_its_authorities_and_the_name_it_called(
    redis: Client, papers: Papers, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Papers(tmp_path / "other")
    async with who_server(redis, papers.server()) as address:
        deceived = papers.client(INTERNAL).model_copy(update={"ca_file": other.client().ca_file})
        assert await is_shut_out(address, deceived)
    elsewhere = papers.keep("elsewhere", papers.authority.issue("elsewhere", hosts=("other.example",)))
    async with who_server(redis, elsewhere) as address:
        assert await is_shut_out(address, papers.client(INTERNAL))


async def test_keys_alone_do_where_certificates_are_not_asked_for(redis: Client, papers: Papers) -> None:
    record, secret = await ApiKeys(redis).mint("ci", ["acme"], [Role.READER])
    tls = papers.server(client_certificates="none")
    async with who_server(redis, tls, internal_key="k" * 40) as address:
        believing = TlsSection(ca_file=tls.ca_file)
        assert await ask(address, believing, key=secret) == record.key_id
        # Nobody has looked at this one, so it says nothing.
        assert await ask(address, papers.client(INTERNAL)) == "CREDENTIAL_INVALID"
    with pytest.raises(ValueError, match="WEBHOOK_INTERNAL_KEY"):
        Authenticator(redis, SecretStr(""), Certificates(IdentitySection(), tls))


async def test_certificates_and_authority_change_under_calls(
    redis: Client, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_at_once(monkeypatch)
    async with who_server(redis, papers.server()) as address:
        client = papers.client("spiffe://acme/reader")
        async with connected(address, key=SecretStr(""), deadline_s=5, tls=client) as channel:
            method = bound(channel)
            assert (await method(wrappers_pb2.StringValue())).value == "cert:spiffe://acme/reader"
            ticks = bound(channel, "Tick")(wrappers_pb2.StringValue(), timeout=5)
            assert (await ticks.read()).value == "cert:spiffe://acme/reader"
            slow = asyncio.ensure_future(read(channel, value="0.3"))
            await asyncio.sleep(0.05)

            # Everything anew: another authority, another server certificate, another name for the client.
            papers.authority = Authority.new("next")
            papers.authority.pair.write(papers.directory, "ca")
            papers.server()
            papers.client("spiffe://acme/operator")

            assert (await method(wrappers_pb2.StringValue())).value == "cert:spiffe://acme/operator"
            assert await ask(address, papers.client(INTERNAL, name="ours")) == f"cert:{INTERNAL}"
            assert await slow == "cert:spiffe://acme/reader"
            assert (await ticks.read()).value == "cert:spiffe://acme/reader"
            ticks.cancel()


def test_files_that_become_unusable_leave_the_last_good_ones(papers: Papers) -> None:
    section = papers.client(INTERNAL)
    files = CertificateFiles(section.cert_file, section.key_file, section.ca_file, look_again_s=0)
    good = files.current()
    cert, key = Path(section.cert_file), Path(section.key_file)

    cert.write_bytes(b"half of a certifi")
    assert files.current() is good
    other = papers.authority.issue("other")
    cert.write_bytes(other.certificate)
    assert files.current() is good, "another pair's certificate"
    key.write_bytes(other.key)
    assert files.current().certificate == other.certificate
    newest = files.current()
    papers.client(INTERNAL, life=EXPIRED)
    assert files.current() is newest
    cert.unlink()
    assert files.current() is newest


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cert_file": "missing.crt"}, "missing.crt can't be read"),
        ({"key_file": "ca.crt"}, "holds no key"),
        ({"key_file": "other.key"}, "is not the key of"),
        ({"ca_file": "client.key"}, "holds no certificate"),
    ],
)
def test_unusable_files_are_named(papers: Papers, changes: dict[str, str], told: str) -> None:
    section = papers.client(INTERNAL)
    papers.client(name="other")
    given = {key: str(papers.directory / file) for key, file in changes.items()}
    with pytest.raises(TlsProblem, match=told):
        CertificateFiles.of(section.model_copy(update=given))


@pytest.mark.parametrize(
    "half", [{"cert_file": "a"}, {"key_file": "a", "ca_file": "c"}, {"cert_file": "a", "key_file": "b"}]
)
def test_half_a_setting_is_a_mistake(half: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_TLS"):
        TlsSection(**half)


def test_a_name_may_stand_once(papers: Papers) -> None:
    entry = CertificateSection(name=INTERNAL, tenants=("*",), roles=("reader",))
    with pytest.raises(ValueError, match="stands twice"):
        Certificates(IdentitySection(certificates=(entry,)), papers.client())


async def test_plain_text_stays_on_this_machine_unless_said_so(redis: Client) -> None:
    authenticator = Authenticator(redis, SecretStr("k" * 40))
    with pytest.raises(TlsProblem, match="WEBHOOK_ALLOW_PLAIN_TEXT"):
        async with serving("0.0.0.0:0", [], authenticator=authenticator, ready={}, drain_s=0):
            pass
    with pytest.raises(TlsProblem, match="WEBHOOK_TLS_CERT_FILE"):
        async with connected("security.example:50051", key=SecretStr("secret"), deadline_s=1):
            pass
    said = TlsSection(allow_plain_text=True)
    async with serving("0.0.0.0:0", [], authenticator=authenticator, ready={}, drain_s=0, tls=said) as port:
        assert port


@pytest.mark.parametrize(
    ("address", "here"),
    [
        *((f"{host}:1", True) for host in (*HERE, "127.9.9.9", "[::1]")),
        ("dns:///127.0.0.1:1", True),
        ("unix:/run/webhook.sock", True),
        *((f"{host}:1", False) for host in ("", "0.0.0.0", "[::]", "10.0.0.1", "localhost.example")),
        ("127.0.0.1.example:1", False),
    ],
)
def test_which_addresses_stay_here(address: str, *, here: bool) -> None:
    assert stays_on_this_machine(address) is here
