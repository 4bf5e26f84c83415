"""The certificate of the HTTP edge, renewed while it serves."""

from __future__ import annotations

import asyncio
import ssl

import structlog
from webhook_shared.rpc.tls import LOOK_AGAIN_S, CertificateFiles, TlsProblem, stays_on_this_machine

log = structlog.get_logger()


class HttpTls:
    """TLS 1.2 and up, HTTP/1.1. Connections made after the files have changed see the new ones.

    Args:
        cert_file: Certificate and chain, PEM.
        key_file: Its key, PEM.
        look_again_s: How often the files are looked at, seconds.

    Raises:
        TlsProblem: The files can't be used.
    """

    def __init__(self, cert_file: str, key_file: str, *, look_again_s: float = LOOK_AGAIN_S) -> None:
        self._paths = (cert_file, key_file)
        self._look_again_s = look_again_s
        self._files = CertificateFiles(cert_file, key_file, look_again_s=0)
        self._shown = self._files.current()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        # A sender has no reason to ask for either.
        self.context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        self.context.load_cert_chain(*self._paths)

    async def keep(self) -> None:
        """Take up new files, for ever."""
        while True:
            await asyncio.sleep(self._look_again_s)
            self._renew()

    def _renew(self) -> None:
        found = self._files.current()
        if found is self._shown:
            return
        try:
            self.context.load_cert_chain(*self._paths)
        except (OSError, ssl.SSLError) as error:
            # They changed again since they were read; the next look tells.
            log.warning("tls.files_moving", error=type(error).__name__)
        else:
            self._shown = found


def refuse_plain_http(address: str, *, allowed: bool) -> None:
    """Allow host:port without TLS.

    Raises:
        TlsProblem: It is off this machine, and nobody has said that a proxy in front ends TLS.
    """
    if stays_on_this_machine(address):
        return
    if not allowed:
        raise TlsProblem(
            f"{address} takes webhooks from a network and there is no certificate: set "
            "WEBHOOK_HTTP_TLS_CERT_FILE and WEBHOOK_HTTP_TLS_KEY_FILE, or WEBHOOK_HTTP_ALLOW_PLAIN_TEXT=true "
            "where a proxy in front of it ends TLS"
        )
    log.warning("http.plain_text", address=address, key="webhook.gateway.http_allow_plain_text")
