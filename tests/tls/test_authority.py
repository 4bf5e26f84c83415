"""The certificates that the tools make are good for what they are made for."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner
from webhook_ops.cli import app
from webhook_ops.configuration import examine
from webhook_shared.redis import Client
from webhook_shared.rpc.identity import Certificates
from webhook_shared.settings import IdentitySection, TlsSection

from tests.tls.papers import INTERNAL, ask, who_server

SCRIPT = Path(__file__).parents[2] / "deploy" / "scripts" / "generate-redis-certs.sh"


def certs(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["certs", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def section(directory: Path, name: str) -> TlsSection:
    return TlsSection(
        ca_file=str(directory / "ca.crt"),
        cert_file=str(directory / f"{name}.crt"),
        key_file=str(directory / f"{name}.key"),
    )


def shake_hands(server: tuple[Path, Path], client: tuple[Path, Path], ca: Path, host: str) -> str:
    """The common name that the server sees, after a handshake that both sides verify."""
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca)
    accepting.verify_mode = ssl.CERT_REQUIRED
    accepting.load_cert_chain(*server)
    calling = ssl.create_default_context(cafile=ca)
    calling.load_cert_chain(*client)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asked = accepting.wrap_bio(up, down, server_side=True)
    asks = calling.wrap_bio(down, up, server_hostname=host)
    done: set[ssl.SSLObject] = set()
    while len(done) < 2:
        for side in (asks, asked):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
    certificate = asked.getpeercert()
    assert certificate is not None
    subject: dict[str, str] = dict(part[0] for part in certificate["subject"])  # type: ignore[misc]  # typeshed's shape is too wide
    return subject["commonName"]


async def test_the_development_certificates_carry_a_call(redis: Client, tmp_path: Path) -> None:
    told = certs("dev", "--out", str(tmp_path), "--host", "hooks.example")
    assert f"WEBHOOK_TLS_CA_FILE={tmp_path}/ca.crt" in told
    assert oct((tmp_path / "ca.key").stat().st_mode & 0o777) == "0o600"
    certs("issue", "spiffe://acme/reader", "--out", str(tmp_path))
    async with who_server(redis, section(tmp_path, "internal")) as address:
        assert await ask(address, section(tmp_path, "internal")) == f"cert:{INTERNAL}"
        assert await ask(address, section(tmp_path, "reader")) == "cert:spiffe://acme/reader"
        assert await ask(address, section(tmp_path, "operator")) == "CERTIFICATE_UNKNOWN"


def test_an_authority_stays_and_its_certificates_are_renewed(tmp_path: Path) -> None:
    certs("dev", "--out", str(tmp_path))
    authority, first = (tmp_path / "ca.crt").read_bytes(), (tmp_path / "internal.crt").read_bytes()
    certs("dev", "--out", str(tmp_path))
    assert (tmp_path / "ca.crt").read_bytes() == authority
    assert (tmp_path / "internal.crt").read_bytes() != first


def test_settings_that_are_half_done_stand_in_nobodys_way(tmp_path: Path) -> None:
    half = {"WEBHOOK_TLS_CERT_FILE": str(tmp_path / "internal.crt")}
    made = CliRunner().invoke(app, ["certs", "dev", "--out", str(tmp_path)], env=half)
    assert made.exit_code == 0, made.output
    told = CliRunner().invoke(app, ["config", "check"], env=half)
    assert "webhook.tls: cert_file (WEBHOOK_TLS_CERT_FILE) and key_file" in told.output + told.stderr


def test_a_certificate_that_would_be_another_file_is_refused(tmp_path: Path) -> None:
    for name in ("ca", "spiffe://acme/ca", "x/..", "spiffe://acme/..", "a b"):
        done = CliRunner().invoke(app, ["certs", "issue", name, "--out", str(tmp_path)])
        assert done.exit_code == 2, name
    assert not list(tmp_path.iterdir())


def test_with_certificates_no_common_key_is_needed(tmp_path: Path) -> None:
    certs("dev", "--out", str(tmp_path))
    files = {name: str(tmp_path / f"internal.{end}") for name, end in (("CERT", "crt"), ("KEY", "key"))}
    tls = {f"WEBHOOK_TLS_{name}_FILE": file for name, file in files.items()}
    tls["WEBHOOK_TLS_CA_FILE"] = str(tmp_path / "ca.crt")
    master = {"ENCRYPTION_MASTER_KEY": "m" * 40}
    assert examine(master | tls).problems == []
    (missing,) = examine(master).problems
    assert "WEBHOOK_INTERNAL_KEY" in missing
    (missing,) = examine(master | tls | {"WEBHOOK_TLS_CLIENT_CERTIFICATES": "none"}).problems
    assert "WEBHOOK_INTERNAL_KEY" in missing
    nobody = IdentitySection(internal_certificate="", internal_key=SecretStr(""))
    assert not Certificates(nobody, section(tmp_path, "internal")).know_ours


def test_the_guides_script_makes_certificates_for_redis(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: apt-get install openssl")

    def made(*hosts: str) -> bytes:
        subprocess.run([SCRIPT, "-o", tmp_path, *hosts], check=True, capture_output=True)
        return (tmp_path / "redis.crt").read_bytes()

    first, authority = made("redis-node1", "10.0.0.3"), (tmp_path / "ca.crt").read_bytes()
    pairs = [(tmp_path / f"{name}.crt", tmp_path / f"{name}.key") for name in ("redis", "client")]
    for host in ("redis-node1", "10.0.0.3"):
        assert shake_hands(pairs[0], pairs[1], tmp_path / "ca.crt", host) == "client"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(pairs[0], pairs[1], tmp_path / "ca.crt", "redis-node2")
    assert made("redis-node2") != first
    assert (tmp_path / "ca.crt").read_bytes() == authority
