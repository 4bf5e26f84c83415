"""The catalogue as data: complete, and refused whole where anything in it is not understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from webhook_security import catalogue
from webhook_security.catalogue import CatalogueError
from webhook_security.registry.sources import Registry
from webhook_security.settings import DeduplicationSection, SecuritySection

SOURCES = Path(catalogue.__file__).parent / "sources"


def with_change(tmp_path: Path, entry: str, change: Any) -> Path:
    """A copy of the catalogue in which one entry's tree has been changed."""
    for file in SOURCES.glob("*.yaml"):
        (tmp_path / file.name).write_text(file.read_text(), encoding="utf-8")
    file = tmp_path / f"{entry}.yaml"
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(tree)
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return tmp_path


def test_every_entry_loads() -> None:
    found = catalogue.load("X-Webhook-Signature")
    assert set(found) == {
        *(
            "azure-devops",
            "bitbucket",
            "circleci",
            "generic",
            "github",
            "gitlab",
            "grafana",
            "jira",
            "linear",
        ),
        *("microsoft-graph", "pagerduty", "sentry", "shopify", "slack", "sonarqube", "standard-webhooks"),
        *("stripe", "terraform", "twitter"),
    }
    for row in found.values():
        assert row.title
        assert row.documentation_url
        assert row.event.type or row.event.otherwise != "unknown"
    assert found["github"].max_body == 25 * 2**20
    assert [scheme.kind for scheme in found["gitlab"].schemes] == ["hmac", "token"]


def test_the_generic_header_is_the_configured_one() -> None:
    for scheme in catalogue.load("X-Acme-Signature")["generic"].schemes:
        assert scheme.header == "x-acme-signature"


def scheme_0(**changes: Any) -> Any:
    return lambda tree: tree["schemes"][0].update(changes)


@pytest.mark.parametrize(
    ("entry", "change", "told"),
    [
        ("github", lambda tree: tree.update(colour="red"), "colour"),
        ("github", lambda tree: tree.pop("schemes"), "schemes"),
        ("github", lambda tree: tree.update(schemes=[]), "schemes"),
        ("github", scheme_0(kind="noop"), "schemes.0.kind"),
        ("github", scheme_0(algorithm="md5"), "schemes.0.algorithm"),
        ("github", scheme_0(encoding="rot13"), "schemes.0.encoding"),
        ("github", scheme_0(signed="{headers}"), "schemes.0"),
        ("github", scheme_0(signed=""), "schemes.0"),
        ("github", scheme_0(colour="red"), "schemes.0.colour"),
        ("slack", scheme_0(signed="v0:{body}"), "not signed proves nothing"),
        ("standard-webhooks", scheme_0(signed="{timestamp}.{body}"), "not signed proves nothing"),
        ("slack", scheme_0(timestamp={"header": "a", "entry": "t"}), "one of the three"),
        ("slack", scheme_0(timestamp={"entry": "t"}), "needs entries"),
        ("gitlab", lambda tree: tree["schemes"][1].update(encoding="hex"), "a token has no encoding"),
        ("gitlab", lambda tree: tree["keep_headers"].append("X-Gitlab-Token"), "x-gitlab-token"),
        ("gitlab", lambda tree: tree["keep_headers"].append("Authorization"), "authorization"),
        ("jira", lambda tree: tree["event"].update(type=["query:x"]), "header:NAME or body:KEY.KEY"),
        ("jira", lambda tree: tree["dedup"].update(window="soon"), "dedup.window"),
        ("jira", lambda tree: tree["dedup"].update(occurrences=0), "dedup.occurrences"),
        ("jira", lambda tree: tree.update(content_types=["Application/JSON"]), "lower case"),
    ],
)
def test_what_is_not_understood_stops_the_start_in_one_line(
    tmp_path: Path, entry: str, change: Any, told: str
) -> None:
    folder = with_change(tmp_path, entry, change)
    with pytest.raises(CatalogueError) as refused:
        catalogue.load("X-Webhook-Signature", folder)
    line = str(refused.value)
    assert line.startswith(f"sources/{entry}.yaml: ")
    assert told in line
    assert "\n" not in line


def test_a_file_that_is_no_yaml_stops_the_start(tmp_path: Path) -> None:
    folder = with_change(tmp_path, "github", lambda tree: tree.clear())
    (folder / "github.yaml").write_text("title: [", encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"sources/github\.yaml: is not YAML"):
        catalogue.load("X-Webhook-Signature", folder)
    (folder / "github.yaml").write_text("just text", encoding="utf-8")
    with pytest.raises(CatalogueError, match=r"sources/github\.yaml"):
        catalogue.load("X-Webhook-Signature", folder)


def test_there_must_be_a_generic_entry(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="generic"):
        catalogue.load("X-Webhook-Signature", tmp_path)


DOCUMENT = (Path(__file__).resolve().parents[3] / "docs/senders.md").read_text(encoding="utf-8")


def test_the_document_names_every_sender() -> None:
    for entry, row in catalogue.load("X-Webhook-Signature").items():
        if entry != catalogue.GENERIC:
            assert f"| [{row.title}]({row.documentation_url}) | `/webhooks/{entry}` |" in DOCUMENT


def test_the_document_s_example_can_be_configured() -> None:
    example = yaml.safe_load(DOCUMENT.partition("```yaml\n")[2].partition("```")[0])
    security = SecuritySection.model_validate(example["webhook"]["security"])
    registry = Registry(catalogue.load("X-Webhook-Signature"), security, DeduplicationSection(), {})
    source = registry.find("", "acme-ci")
    assert source
    assert [scheme.name for scheme in source.row.schemes] == ["hmac-sha512"]
    assert source.row.event.otherwise == "build"
