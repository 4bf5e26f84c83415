"""`webhook-cli dictionaries` against a whole running system."""

from __future__ import annotations

from deploy.ops.tests.harness import Cli


def test_dictionaries_are_listed_shown_and_trained_where_there_are_samples(cli: Cli) -> None:
    listed = cli("dictionaries", "list", "--json")
    assert listed.code == 0, listed
    shipped = [one for one in listed.json["dictionaries"] if not one["tenant"] and one["in_use"]]
    assert {one["name"] for one in shipped} == {"github", "gitlab", "jira", "slack"}
    assert "shipped" in cli("dictionaries", "list").out
    shown = cli("dictionaries", "show", shipped[0]["id"], "--json")
    assert shown.json == shipped[0]
    assert cli("dictionaries", "show", "0000000000000000").code == 5
    for use in ("events", "contexts"):
        refused = cli("dictionaries", "train", "nobody", "--use", use)
        assert refused.code == 1, refused
        assert "SAMPLES_TOO_FEW" in refused.err
