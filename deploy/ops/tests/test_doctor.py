"""`webhook-cli doctor`: a healthy system passes, and each sickness is found and named."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from webhook.security.v1 import source_pb2
from webhook_ops.authority import Authority
from webhook_ops.doctor import edge as edges
from webhook_ops.doctor import services, store
from webhook_ops.doctor.abuse import Forger, cases
from webhook_ops.doctor.finding import Finding, Verdict
from webhook_ops.doctor.raw_http import Edge
from webhook_ops.samples.senders import sender, senders
from webhook_ops.samples.signing import sign
from webhook_ops.trust import trust
from webhook_shared.redis import Client
from webhook_shared.settings import RedisSection, TlsSection

from deploy.ops.tests.harness import Cli

Session = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KNOWN_AT = 1_795_000_000


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def saying(answer: bytes) -> Session:
    """A server with one answer to everything."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    return session


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that takes everything and says nothing."""
    while await reader.read(2**16):
        pass
    writer.close()


@asynccontextmanager
async def edge(session: Session) -> AsyncIterator[Edge]:
    server = await asyncio.start_server(session, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield Edge(f"http://127.0.0.1:{port}", trust(TlsSection()))


async def examined(session: Session) -> dict[str, Finding]:
    async with edge(session) as found:
        return by_name(await edges.examine(found, Forger("github", found.authority), quick=False))


def response(status: int, *, length: bool = True) -> bytes:
    return b"HTTP/1.1 %d X\r\n%s\r\n" % (status, b"content-length: 0\r\n" if length else b"")


def test_a_healthy_system_passes(cli: Cli) -> None:
    done = cli("doctor", "--quick", "--json")
    findings = done.json["findings"]
    assert [one for one in findings if one["verdict"] == "fail"] == []
    assert done.code == 0
    assert done.json["well"] is True
    passed = {one["name"] for one in findings if one["verdict"] == "pass"}
    assert {"forged signature", "endless body in chunks", "append-only file"} <= passed
    assert not [one for one in findings if one["area"] == "edge" and one["verdict"] != "pass"]
    shown = cli("doctor", "--quick", "--problems", "--tool", "slack")
    assert shown.code == 0, shown.out
    assert "pass  " not in shown.out


def test_a_source_that_is_not_there_is_found_out(cli: Cli) -> None:
    done = cli("doctor", "--quick", "--json", "--tool", "nobody")
    [found] = [one for one in done.json["findings"] if one["name"] == "source"]
    assert (found["verdict"], found["seen"][:3], done.code) == ("fail", "404", 1)


def test_nothing_that_runs_is_said_in_one_line(cli: Cli, tmp_path: Path) -> None:
    nowhere = {f"WEBHOOK_{name.upper()}_ADDRESS": "127.0.0.1:9" for name in services.SERVICES}
    done = cli(
        "doctor", "--quick", WEBHOOK_VAR=str(tmp_path), WEBHOOK_HTTP_URL="http://127.0.0.1:9", **nowhere
    )
    assert done.code == 3
    assert "nothing answers" in done.err


async def test_an_edge_that_takes_everything_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "TRICKLE_S", 0.01)
    found = await examined(saying(response(202)))
    assert found["forged signature"].verdict is Verdict.FAIL
    assert "ACCEPTED" in found["forged signature"].seen
    assert found["slow head"].verdict is Verdict.FAIL
    assert found["endless body in chunks"].verdict is Verdict.FAIL


async def test_an_edge_that_stumbles_fails() -> None:
    found = await examined(saying(response(500)))
    assert {finding.verdict for name, finding in found.items() if name.startswith("signature")} == {
        Verdict.FAIL
    }


async def test_a_proxy_in_front_is_a_warning_and_a_limit_is_none() -> None:
    found = await examined(saying(response(403)))
    assert found["forged signature"].verdict is Verdict.WARN
    assert "proxy" in found["forged signature"].remedy
    found = await examined(saying(response(429)))
    assert found["forged signature"].verdict is Verdict.SKIP


@pytest.mark.parametrize("session", [silent, saying(b""), saying(b"SSH-2.0-OpenSSH\r\n\r\n")])
async def test_silence_and_nonsense_fail_in_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "ANSWER_WITHIN_S", 0.1)
    monkeypatch.setattr(edges, "SLOW_WITHIN_S", 0.3)
    found = await examined(session)
    assert found["answers"].verdict is Verdict.FAIL


async def test_an_edge_without_patience_limits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "ANSWER_WITHIN_S", 0.2)
    monkeypatch.setattr(edges, "SLOW_WITHIN_S", 0.3)

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers a whole request with 401, and waits for the rest of others for ever."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: 1")),
            0,
        )
        await reader.readexactly(length)
        writer.write(response(401))
        writer.close()

    found = await examined(waits)
    assert found["forged signature"].verdict is Verdict.GOOD
    assert (found["slow head"].verdict, found["slow body"].verdict) == (Verdict.FAIL, Verdict.FAIL)


async def test_a_clock_that_is_wrong_is_found() -> None:
    late = dt.datetime(2020, 1, 1, tzinfo=dt.UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").encode()
    async with edge(saying(b"HTTP/1.1 200 OK\r\ndate: %s\r\ncontent-length: 0\r\n\r\n" % late)) as found:
        assert (await edges.clock(found)).verdict is Verdict.FAIL
    async with edge(saying(response(200))) as found:
        assert (await edges.clock(found)).verdict is Verdict.SKIP


@pytest.mark.parametrize("tool", sorted(senders()))
def test_no_request_is_a_good_one(tool: str) -> None:
    """Whatever is known of the secret, no body goes out with the signature that it would need."""
    secret = f"{sender(tool).proofs[0].begins}c2VjcmV0LW9mLXRoZS10ZXN0cy1pcy1sb25nZXI="
    forger = Forger(tool, "hooks.example", secret=secret)
    for case in cases(forger):
        head, _, body = case.request.partition(b"\r\n\r\n")
        lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        stamp = lines.get(forger.timestamp.encode() or b"-", b"0")
        now = float(stamp) if stamp.isdigit() and len(stamp) < 12 else KNOWN_AT
        identity = lines.get(b"webhook-id", b"x").decode()
        due = dict(sign(tool, body, secret, event_type="examined", delivery_id=identity, now=now))
        if not forger.signature:
            # A sender that shows its secret: not even that.
            assert secret.encode() not in case.request
        elif lines.get(forger.signature.encode()) == str(due[forger.signature]).encode():
            # Right, but of another decade, or of nothing at all.
            assert case.name.startswith(("signed ", "empty body")), case.name


async def test_an_unsafe_redis_is_found(valkey: RedisSection, redis: Client) -> None:
    good = by_name(await store.examine(valkey))
    assert good["round trip"].verdict is not Verdict.FAIL
    assert good["redis"].verdict is Verdict.GOOD
    before = {
        name: next(iter((await redis.config_get(name)).values()))
        for name in ("maxmemory-policy", "appendonly")
    }
    try:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
        await redis.config_set("appendonly", "no")
        bad = by_name(await store.examine(valkey))
    finally:
        for name, value in before.items():
            await redis.config_set(name, value)
    assert bad["maxmemory-policy"].verdict is Verdict.FAIL
    assert "noeviction" in bad["maxmemory-policy"].remedy
    assert bad["append-only file"].verdict is Verdict.FAIL


async def test_a_redis_that_is_not_there_is_not_judged() -> None:
    (found,) = await store.examine(RedisSection(addresses=("127.0.0.1:9",)))
    assert found.verdict is Verdict.SKIP


def test_secrets_that_are_missing_are_named() -> None:
    def source(*usable: bool) -> source_pb2.Source:
        infos = [source_pb2.SecretInfo(reference=f"env:S{n}", usable=good) for n, good in enumerate(usable)]
        return source_pb2.Source(tool="github", enabled=True, secrets=infos)

    assert services.secrets_of(source(True, True)).verdict is Verdict.GOOD
    half = services.secrets_of(source(True, False))
    assert (half.verdict, "env:S1" in half.seen) == (Verdict.WARN, True)
    none = services.secrets_of(source(False))
    assert (none.verdict, "503" in none.seen) == (Verdict.WARN, True)


def test_certificates_that_end_and_plain_text_are_told(tmp_path: Path) -> None:
    authority = Authority.new("test")
    authority.pair.write(tmp_path, "ca")
    here = {"security": "127.0.0.1:1"}

    def verdict(life: dt.timedelta) -> Verdict:
        authority.issue("x", life=life).write(tmp_path, "x")
        tls = TlsSection(
            ca_file=str(tmp_path / "ca.crt"),
            cert_file=str(tmp_path / "x.crt"),
            key_file=str(tmp_path / "x.key"),
        )
        return services.certificates(tls, here)[-1].verdict

    assert verdict(dt.timedelta(days=30)) is Verdict.GOOD
    assert verdict(dt.timedelta(days=3)) is Verdict.WARN
    assert verdict(dt.timedelta(days=-1)) is Verdict.FAIL
    (told,) = services.certificates(TlsSection(), {"security": "security.example:1"})
    assert (told.verdict, "security" in told.seen) == (Verdict.WARN, True)
    (told,) = services.certificates(TlsSection(), here)
    assert told.verdict is Verdict.GOOD
