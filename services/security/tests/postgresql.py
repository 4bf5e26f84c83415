"""A real PostgreSQL for tests: Debian's, in a directory of its own, as a user that is not root."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import asyncpg

NEEDS = "needs postgresql: apt-get install postgresql"
STARTED_WITHIN_S = 20.0
USER = "postgres"

#: The table as the system before us made it (its migration 000001).
TABLE = """
CREATE SCHEMA mcp;
CREATE TABLE mcp.webhook_configs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id UUID NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001',
    organization_name VARCHAR(255) UNIQUE,
    integration_id UUID,
    url TEXT NOT NULL DEFAULT '',
    webhook_secret TEXT,
    enabled BOOLEAN DEFAULT true,
    allowed_events TEXT[] DEFAULT ARRAY['issues', 'issue_comment', 'pull_request', 'push', 'release'],
    is_active BOOLEAN DEFAULT true,
    retry_config JSONB DEFAULT '{"max_retries": 3, "retry_delay_ms": 1000}',
    metadata JSONB DEFAULT '{}',
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)
"""

#: Nothing of it outlives the tests, so nothing has to reach a disk.
_OPTIONS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "8MB",
    "max_connections": "20",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "jit": "off",
}


def binary(name: str) -> str | None:
    """A program of PostgreSQL's server, the newest that is installed."""
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3])
    )
    return str(installed[-1]) if installed else shutil.which(name)


class PostgresServer:
    """One server process; what it holds survives `stop`.

    Attributes:
        port: On 127.0.0.1.
    """

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            # It refuses to run as root, and so to live in a directory that is root's.
            directory.chmod(0o711)
            self._data.mkdir(mode=0o700)
            shutil.chown(self._data, USER)
        self._run("initdb", "-D", str(self._data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")

    def url(self, user: str = USER, database: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def start(self, **settings: str) -> None:
        given = _OPTIONS | settings
        options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
        command = [*self._as_user(), binary("postgres") or "", "-D", str(self._data), "-p", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """At once, whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    async def answering(self) -> None:
        async with asyncio.timeout(STARTED_WITHIN_S):
            while True:
                try:
                    await self.execute("SELECT 1")
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.02)
                else:
                    return

    async def execute(self, statement: str, *arguments: object) -> None:
        connection = await asyncpg.connect(self.url())
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user(), binary(name) or "", *arguments], check=True, capture_output=True, cwd="/"
        )

    @staticmethod
    def _as_user() -> list[str]:
        return (
            ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"] if os.geteuid() == 0 else []
        )
