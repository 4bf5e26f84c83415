"""Certificates: read from files, read again when the files change, and what gRPC makes of them."""

from __future__ import annotations

import datetime as dt
import ipaddress
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from prometheus_client import Gauge

from webhook_shared.settings import TlsSection

log = structlog.get_logger()

# How old what we know of the files may be.
LOOK_AGAIN_S = 1.0

_not_after = Gauge(
    "webhook_tls_certificate_not_after_seconds", "Unix time at which our certificate ends.", ["file"]
)
_problems = Gauge(
    "webhook_tls_certificate_stale", "1 while the files are unusable and the last good ones serve.", ["file"]
)

_Stamp = tuple[tuple[int, int, int], ...]


class TlsProblem(ValueError):
    """Certificates can't be used, or are missing where they are needed; the text says what to do."""


@dataclass(frozen=True)
class Pem:
    """What stands in the files; empty where there is none.

    Attributes:
        certificate: With its chain.
        key: Of the certificate.
        authorities: Whom we believe.
    """

    certificate: bytes
    key: bytes
    authorities: bytes


class CertificateFiles:
    """A certificate, its key, and the authorities that we believe: as the files have them now.

    Files that become unusable (half written, of different pairs, expired) are told once, and the last good
    ones go on.

    Args:
        cert_file: PEM; empty for a client that has none.
        key_file: PEM; its key.
        ca_file: PEM; empty where nobody's certificate is looked at.
        look_again_s: How old what we know of the files may be, seconds.

    Raises:
        TlsProblem: The files can't be used.
    """

    def __init__(
        self, cert_file: str, key_file: str, ca_file: str = "", *, look_again_s: float = LOOK_AGAIN_S
    ) -> None:
        self._files = (cert_file, key_file, ca_file)
        self._label = cert_file or ca_file
        self._look_again_s = look_again_s
        self._stamp = self._look()
        self._looked_at_s = time.monotonic()
        self._pem = self._read()
        _problems.labels(self._label).set(0)

    @classmethod
    def of(cls, tls: TlsSection) -> CertificateFiles:
        """Those of the RPC doors and channels.

        Raises:
            TlsProblem: The files can't be used.
        """
        return cls(tls.cert_file, tls.key_file, tls.ca_file)

    def current(self) -> Pem:
        """What holds now: the same object until the files change."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s < self._look_again_s:
            return self._pem
        self._looked_at_s = now_s
        stamp = self._look()
        if stamp == self._stamp:
            return self._pem
        self._stamp = stamp
        try:
            self._pem = self._read()
        except TlsProblem as error:
            _problems.labels(self._label).set(1)
            log.error("tls.files_unusable", problem=str(error), effect="the last good ones serve")
        else:
            _problems.labels(self._label).set(0)
            log.info("tls.files_read", file=self._label)
        return self._pem

    def _look(self) -> _Stamp:
        return tuple(_stamp(file) for file in self._files if file)

    def _read(self) -> Pem:
        cert_file, key_file, ca_file = self._files
        pem = Pem(*(_content(file) if file else b"" for file in self._files))
        if ca_file:
            _certificates(ca_file, pem.authorities)
        if cert_file:
            own = _certificates(cert_file, pem.certificate)[0]
            _is_of_one_pair(own, pem.key, cert_file, key_file)
            ends = own.not_valid_after_utc
            if ends <= dt.datetime.now(dt.UTC):
                raise TlsProblem(f"{cert_file} has expired ({ends:%Y-%m-%d %H:%M} UTC): renew it")
            _not_after.labels(self._label).set(ends.timestamp())
        return pem


def _stamp(file: str) -> tuple[int, int, int]:
    try:
        found = Path(file).stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise TlsProblem(f"{file} can't be read ({error.strerror})") from None


def _certificates(file: str, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise TlsProblem(f"{file} holds no certificate in PEM") from None


def _is_of_one_pair(certificate: x509.Certificate, key: bytes, cert_file: str, key_file: str) -> None:
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise TlsProblem(f"{key_file} holds no key in PEM without a password") from None
    if private.public_key() != certificate.public_key():
        raise TlsProblem(f"{key_file} is not the key of {cert_file}")


def server_credentials(files: CertificateFiles, *, callers_show_theirs: bool) -> grpc.ServerCredentials:
    """What a gRPC server shows; each handshake sees the files as they are then.

    Args:
        files: Its own, with the authorities of the callers.
        callers_show_theirs: Whether who shows no certificate of these authorities is turned away.
    """
    given = files.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        now = files.current()
        if now is given:
            return None
        given = now
        return _configuration(now)

    fetched: Any = changed  # The stub forgets that None means "as before".
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetched, callers_show_theirs)


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authorities or None)


def channel_credentials(pem: Pem) -> grpc.ChannelCredentials:
    """What a gRPC client shows and believes."""
    return grpc.ssl_channel_credentials(pem.authorities or None, pem.key or None, pem.certificate or None)


def stays_on_this_machine(address: str) -> bool:
    """Whether what is sent to host:port, or heard on it, can't be seen from elsewhere."""
    if address.startswith("unix:"):
        return True
    host = address.removeprefix("dns:///").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refuse_plain_text(address: str, tls: TlsSection) -> None:
    """Allow an address without TLS.

    Raises:
        TlsProblem: It is off this machine, and nobody has said that the network is private.
    """
    if not (tls.allow_plain_text or stays_on_this_machine(address)):
        raise TlsProblem(
            f"{address} is reached over a network and there is no certificate: set WEBHOOK_TLS_CERT_FILE, "
            "WEBHOOK_TLS_KEY_FILE and WEBHOOK_TLS_CA_FILE (`webhook-cli certs dev` makes some), or "
            "WEBHOOK_ALLOW_PLAIN_TEXT=true where the network itself is private"
        )
