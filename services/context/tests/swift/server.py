"""OpenStack Swift with its S3 API, all in one, in processes of its own: account, container, object, proxy."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from conftest import free_port

HOME = Path(__file__).parents[4] / "var" / "swift"
"""Where `make unit-swift` installs it."""
ACCESS_KEY, SECRET = "test:tester", "testing"  # of a server that lives for one test
STARTED_WITHIN_S = 180.0

_STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
devices = {root}/devices
mount_check = false
workers = 0
user = {user}
swift_dir = {root}
disable_fallocate = true
log_level = ERROR
recon_cache_path = {root}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {root}
log_level = ERROR
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
force_swift_request_proxy_log = false
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
_PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo dlo proxy-server"
)
_HASHES = """[swift-hash]
swift_hash_path_prefix = {prefix}
swift_hash_path_suffix = test
[storage-policy:0]
name = one
default = yes
"""


def is_wanted() -> bool:
    """Whether somebody asks for it: it is too slow to start with every change."""
    return bool(os.environ.get("WEBHOOK_TEST_SWIFT"))


@contextmanager
def swift_server(root: Path, user: str) -> Iterator[str]:
    """The URL of its S3 API.

    Args:
        root: An empty directory, on a file system with extended attributes.
        user: Who runs it.
    """
    (root / "devices" / "one").mkdir(parents=True)
    (root / "swift.conf").write_text(_HASHES.format(prefix="test"))
    commands = [_storage(root, user, kind) for kind in ("account", "container", "object")]
    port = free_port()
    (root / "proxy-server.conf").write_text(
        _PROXY.format(port=port, root=root, user=user, pipeline=_PIPELINE)
    )
    commands.append([str(HOME / "bin" / "swift-proxy-server"), str(root / "proxy-server.conf")])
    url = f"http://127.0.0.1:{port}"
    with (root / "log").open("wb") as log:
        running = [subprocess.Popen(command, stdout=log, stderr=log) for command in commands]
        try:
            _wait(url, running[-1], root / "log")
            yield url
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(20)


def _storage(root: Path, user: str, kind: str) -> list[str]:
    """Everything that one of the storage servers needs; how it is started."""
    port = free_port()
    build = [str(HOME / "bin" / "swift-ring-builder"), str(root / f"{kind}.builder")]
    for step in (["create", "2", "1", "1"], ["add", f"r1z1-127.0.0.1:{port}/one", "1"], ["rebalance"]):
        subprocess.run([*build, *step], check=False, stdout=subprocess.DEVNULL)
    path = root / f"{kind}-server.conf"
    path.write_text(_STORAGE.format(port=port, root=root, user=user, kind=kind))
    return [str(HOME / "bin" / f"swift-{kind}-server"), str(path)]


def _wait(url: str, proxy: subprocess.Popen[bytes], log: Path) -> None:
    until = monotonic() + STARTED_WITHIN_S
    while monotonic() < until and proxy.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"{url}/healthcheck", timeout=5) as answer:
            if answer.read() == b"OK":
                return
        with suppress(subprocess.TimeoutExpired):
            proxy.wait(0.1)
    raise RuntimeError(f"Swift does not start:\n{log.read_text()[-2000:]}")
