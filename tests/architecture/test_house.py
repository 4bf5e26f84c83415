"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import gc
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Package to its folder and to the contract that it serves.
SERVICES = {
    "webhook_gateway": ("gateway", "webhook.ingest.v1"),
    "webhook_security": ("services/security", "webhook.security.v1"),
    "webhook_consumer": ("services/consumer", "webhook.consumer.v1"),
    "webhook_intelligence": ("services/intelligence", "webhook.intelligence.v1"),
    "webhook_context": ("services/context", "webhook.context.v1"),
}
ROOMS = ("__init__.py", "__main__.py", "settings.py", "wiring.py", "servicer.py", "metrics.py", "py.typed")
MOST_LINES = 650
OURS = ("shared", "gateway", "services", "deploy", "tests", "proto/webhook", "conftest.py")
SUFFIXES = {".py", ".lua", ".proto", ".yaml", ".sh"}
#: Written by others, or by a machine.
NOT_OURS = {"node_modules", "__pycache__", "gen", "build"}
#: Tables of data, as long as there are facts.
DATA = {"normalizers"}


def _package(name: str) -> Path:
    return ROOT / SERVICES[name][0] / name


def _own_files() -> Iterator[Path]:
    for name in OURS:
        top = ROOT / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.suffix in SUFFIXES and not NOT_OURS & set(file.parts):
                yield file


def _parsed(file: Path) -> ast.Module:
    # What the collector finalises meanwhile may parse as well (pytest does, to show a leak), and CPython 3.11
    # then takes its own count for damaged: https://github.com/python/cpython/issues/106905
    gc.disable()
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def _imports(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, with the names taken from it."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("service", SERVICES)
class TestService:
    def test_has_the_same_rooms_as_the_others(self, service: str) -> None:
        missing = [room for room in ROOMS if not (_package(service) / room).is_file()]
        assert not missing

    def test_has_a_readme_and_tests_beside_it(self, service: str) -> None:
        folder = ROOT / SERVICES[service][0]
        readme = (folder / "README.md").read_text(encoding="utf-8").lower()
        for topic in ("owner", "slo", "runbook"):
            assert topic in readme, f"README.md says nothing about: {topic}"
        assert list((folder / "tests").glob("test_*.py"))

    def test_says_what_it_owns_and_what_it_never_does(self, service: str) -> None:
        text = ast.get_docstring(_parsed(_package(service) / "__init__.py"))
        assert text is not None
        assert "own" in text.lower()
        assert "never" in text.lower()

    def test_starts_in_one_line(self, service: str) -> None:
        tree = _parsed(_package(service) / "__main__.py")
        assert "process.run(" in ast.unparse(tree)
        assert len(tree.body) <= 5

    def test_calls_another_service_in_one_file_per_service(self, service: str) -> None:
        own = SERVICES[service][1]
        for file in _package(service).rglob("*.py"):
            stubs = {name for name in _imports(file) if re.match(r"webhook\.\w+\.v1\b.*_pb2_grpc", name)}
            foreign = {name for name in stubs if not name.startswith(own)}
            if foreign:
                (other,) = {name.split(".")[1] for name in foreign}
                assert file.name == f"{other}_client.py", f"{file.relative_to(ROOT)} imports {foreign}"

    def test_serves_through_what_is_shared(self, service: str) -> None:
        # `server.serving` is what brings health, reflection and the guard.
        wiring = (_package(service) / "wiring.py").read_text(encoding="utf-8")
        assert "serving(" in wiring
        servers = [
            file.relative_to(ROOT)
            for file in _package(service).rglob("*.py")
            if "grpc.aio.server(" in file.read_text(encoding="utf-8")
        ]
        assert not servers

    def test_names_adapters_only_where_it_is_wired(self, service: str) -> None:
        adapters = {
            "webhook_intelligence.providers.local",
            "webhook_intelligence.providers.openai",
            "webhook_shared.objects.directory",
            "webhook_shared.objects.s3",
        }
        for file in _package(service).rglob("*.py"):
            if file.name == "wiring.py":
                continue
            named = {name for name in _imports(file) if adapters & {name, name.rpartition(".")[0]}}
            assert not named, f"{file.relative_to(ROOT)} imports {named}"


def test_no_file_is_too_long() -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines())
        for file in _own_files()
        if not DATA & set(file.parts)
    }
    assert len(lengths) > 100
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_files_have_names_that_say_something() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base", "core"}
    assert [str(file) for file in _own_files() if file.stem in empty] == []


def test_doubles_are_not_used_anywhere() -> None:
    mocks = [str(file) for file in _own_files() if file.suffix == ".py" and set(_imports(file)) & _MOCKS]
    assert mocks == []


_MOCKS = {"unittest.mock", "unittest.mock.Mock", "unittest.mock.patch", "fakeredis", "moto"}


def test_every_service_has_a_contract_and_every_contract_a_service() -> None:
    served = {contract for _, contract in SERVICES.values()}
    protos = (ROOT / "proto/webhook").rglob("*_service.proto")
    contracts = {
        match[1]
        for file in protos
        if (match := re.search(r"^package ([\w.]+);", file.read_text(encoding="utf-8"), re.MULTILINE))
    }
    assert contracts == served


def test_no_two_services_count_under_one_name() -> None:
    # Prometheus would add them up; and one process, such as this one, can't hold both.
    for service in SERVICES:
        importlib.import_module(f"{service}.metrics")


def test_generated_code_runs_on_the_versions_that_its_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "proto/pyproject.toml").read_text(encoding="utf-8"))["project"]
    floors = dict(dependency.split(">=") for dependency in project["dependencies"])
    generated: dict[str, set[str]] = {"grpcio": set(), "protobuf": set()}
    for file in (ROOT / "proto/gen").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        generated["grpcio"] |= set(re.findall(r"^GRPC_GENERATED_VERSION = '([\d.]+)'", text, re.MULTILINE))
        generated["protobuf"] |= set(re.findall(r"^# Protobuf Python Version: ([\d.]+)", text, re.MULTILINE))
    assert generated == {name: {floors[name]} for name in generated}
