"""Names are found where they stand, however they are escaped, and nowhere else."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest
from webhook_shared.mentions import Digests, Name, texts, words

KEY = b"k" * 32


def name(text: str) -> Name:
    found = Name.of(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("who", "text"),
    [
        ("mona", "@Mona, look at this"),
        ("mona", "https://example.com/users/mona/orgs"),
        ("MONA", "(mona's)"),
        ("mona@example.com", "write to <mailto:Mona@Example.com>."),
        ("Mona Lisa", "it was mona  LISA."),
        ("dependabot[bot]", "by dependabot[bot]"),
        ("Straße", "in der STRASSE"),
        ("U123", "<@U123> said"),
    ],
)
def test_a_name_is_found(who: str, text: str) -> None:
    assert name(who).is_in_text(text)
    assert name(who).is_in(text.encode())
    assert Digests(KEY, "acme", [name(who).digest(KEY, "acme")]).found_in([text.encode()])


@pytest.mark.parametrize(
    ("who", "text"),
    [
        ("mona", "monatomic, ramona, mona-lisa"),
        ("mona lisa", "lisa mona, mona. And lisa"),
        ("mona", ""),
        ("a.b", "a b"),
    ],
)
def test_what_only_looks_like_it_is_not(who: str, text: str) -> None:
    assert not name(who).is_in_text(text)
    assert not name(who).is_in(json.dumps({"text": text}).encode())
    assert not Digests(KEY, "acme", [name(who).digest(KEY, "acme")]).found_in([text.encode()])


@pytest.mark.parametrize("who", ["mona", "Zoë Ωmega", "mona@example.com", "12345"])
def test_no_escape_hides_a_name(who: str) -> None:
    said = json.dumps({"a": [{"text": f"line\n{who}\tagain"}]})
    bodies = [
        said.encode(),
        said.replace("mona", "\\u006d\\u006fna").encode(),
        json.dumps({who: 1}).encode(),
        json.dumps([[said]]).encode(),
        json.dumps(said).encode(),
        urlencode({"payload": said, "n": "1"}).encode(),
        urlencode({"by": who}).encode(),
        f"<xml>{who}</xml>".encode(),
    ]
    for body in bodies:
        assert name(who).is_in(body), body
        assert Digests(KEY, "acme", [name(who).digest(KEY, "acme")]).found_in([body]), body


def test_numbers_count_as_words() -> None:
    assert name("583231").is_in(b'{"user": {"id": 583231}}')
    assert not name("583231").is_in(b'{"user": {"id": 5832310}}')


@pytest.mark.parametrize("nothing", ["", "...", "@ - +", "\n"])
def test_what_has_no_word_is_no_name(nothing: str) -> None:
    assert Name.of(nothing) is None


@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe\x00mona\x00",
        b'{"n": ' + b"9" * 10_000 + b"}",
        b"%" * 10_000,
        b"a=b&" * 10_000 + b"%zz",
    ],
)
def test_whatever_strangers_send_is_read(hostile: bytes) -> None:
    assert name("mona").is_in(hostile) == (b"mona" in hostile)
    assert list(texts(hostile))


def test_digests_tell_owners_and_keys_apart() -> None:
    mona = name("mona")
    told = {mona.digest(KEY, "acme"), mona.digest(KEY, "rival"), mona.digest(b"x" * 32, "acme")}
    assert len(told) == 3
    assert Digests(KEY, "rival", [mona.digest(KEY, "acme")]).found_in([b"mona"]) == set()
    assert all("mona" not in digest for digest in told)
    assert words("Mona's e-mail: a.b+c@d.e!") == ["mona", "s", "e-mail", "a.b+c@d.e"]
