"""Whom the tools believe when they speak https to the edge."""

from __future__ import annotations

import ssl

from webhook_shared.rpc.tls import TlsProblem
from webhook_shared.settings import TlsSection


def trust(tls: TlsSection) -> ssl.SSLContext:
    """The authorities of this machine, and ours.

    Raises:
        TlsProblem: `tls.ca_file` can't be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    if tls.ca_file:
        try:
            context.load_verify_locations(tls.ca_file)
        except OSError as error:
            raise TlsProblem(f"{tls.ca_file} can't be used ({type(error).__name__})") from None
    return context
