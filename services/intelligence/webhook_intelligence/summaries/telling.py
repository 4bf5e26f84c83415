"""What happened, told in sentences.

For instance: octocat opened PR #42 'Add retry'. Checks failed on 'build'. Merged by hubot.
The words of strangers stand in quotation marks, on one line and short; the rest is ours, or the line with
which the tool itself begins its text.
"""

from __future__ import annotations

import re
from itertools import groupby

from webhook_intelligence.texts.sentences import clip
from webhook_intelligence.texts.subject import Happening, Subject
from webhook_intelligence.texts.vocabulary import MERE_SAYING, NOUNS, RUN_WORDS, RUNS, SAYING, VERBS

QUOTE_WORDS = 16
HEADLINE_WORDS = 24

_STOP_WITHIN = re.compile(r"[.!?…;。\uff01\uff1f]{1,8}\s+")
_LINE_END = re.compile(r"\s*[\r\n\u2028\u2029]\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SHORT_NAMES = {"pull request": "PR #", "merge request": "MR !", "issue": "issue #"}
_LONG_NAME = re.compile(r"\b(pull request|merge request|issue) (\d{1,9})\b", re.IGNORECASE)
_TICKET = re.compile(r"[A-Z][A-Z0-9]{0,15}-\d{1,9}")


def tell(subject: Subject, *, is_new: bool) -> list[str]:
    """One sentence per happening, oldest first; the same thing several times in a row is told once.

    Args:
        subject: Readable (see `Subject.readable`).
        is_new: Whether nothing has been told yet: then the first sentence names the thing.
    """
    runs = [list(run) for _, run in groupby(subject.happenings, key=lambda h: _sameness(subject, h))]
    return [_told(subject, run, is_first=is_new and i == 0) for i, run in enumerate(runs)]


def quotable(text: str) -> str:
    """On one line, and without anything that would end our sentence or our quotation marks."""
    lines = _LINE_END.sub("; ", text.strip()).replace("'", "\u2019")
    return _STOP_WITHIN.sub("; ", " ".join(_CONTROL.sub(" ", lines).split()).rstrip(".; "))


def _sameness(subject: Subject, happening: Happening) -> tuple[str, ...]:
    headline = happening.headline(subject.title)
    said = headline if _is_of_tool(happening, headline) else ""
    return happening.kind, happening.action, happening.actor, said


def _told(subject: Subject, run: list[Happening], *, is_first: bool) -> str:
    happening = run[-1]
    headline = happening.headline(subject.title)
    if _is_of_tool(happening, headline):
        line, words = _retold(subject, happening, quotable(headline), is_first=is_first)
    else:
        line, words = _composed(subject, happening, is_first=is_first)
    times = f" ({len(run)} times)" if len(run) > 1 else ""
    quote = _quoted(words)
    return f"{line}{times}: {quote}." if quote else f"{line}{times}."


def _is_of_tool(happening: Happening, headline: str) -> bool:
    """Whether the text begins with a sentence about the event, as normalisers make it."""
    line, who = headline.casefold(), happening.actor.casefold()
    if who and line.startswith(who):
        return line[len(who) : len(who) + 1] in {" ", ":"}
    return " " in line and line.partition(" ")[0] in RUN_WORDS


def _retold(subject: Subject, happening: Happening, headline: str, *, is_first: bool) -> tuple[str, str]:
    """The tool's own sentence, shorter: things by their short names, and not the same thing again.

    Returns:
        Our sentence without its end, and what is to be quoted after it.
    """
    body = happening.text.partition("\n")[2]
    who = quotable(happening.actor)
    if who and headline.casefold().startswith(f"{who.casefold()}:"):
        return f"{who} wrote", f"{headline[len(who) + 1 :]}\n{body}"
    line = _LONG_NAME.sub(lambda match: _SHORT_NAMES[match[1].lower()] + match[2], headline)
    own = _number(subject)
    if is_first and own.lstrip("#") in line:
        line = f"{line} {_quoted(subject.title)}".rstrip()
    elif own and not is_first:
        line = re.sub(
            rf" (?:on|to|in|of) (?:PR |MR |issue )?[#!]?{re.escape(own.lstrip('#'))}(?!\w)", "", line
        )
    line = clip(line, HEADLINE_WORDS)
    return line if who and line.startswith(who) else _capital(line), body


def _composed(subject: Subject, happening: Happening, *, is_first: bool) -> tuple[str, str]:
    """A sentence of ours from the structure of the event; returns as `_retold`."""
    words = _unless_title(subject, happening.text, is_first)
    who, verb, thing = quotable(happening.actor), _verb(happening), _noun(happening.kind)
    if happening.kind in SAYING and happening.action in MERE_SAYING:
        return f"{who or 'Somebody'} {SAYING[happening.kind]}", words
    if happening.kind in RUNS:
        # Who runs the checks is of no interest; which of them it was is.
        line = f"{_capital(thing)} {verb}"
        is_name = 0 < len(words.split()) <= 3
        return (f"{line} on {_quoted(words)}", "") if is_name else (line, words)
    by = f" by {who}" if who else ""
    if happening.kind != _own_kind(subject):
        return f"{_capital(thing)} {verb}{by}", words
    if not is_first:
        return f"{_capital(verb if by else f'{thing} {verb}')}{by}", words
    named = " ".join(part for part in (thing, _number(subject), _quoted(subject.title)) if part)
    return f"{who} {verb} {named}" if who else f"{_capital(named)} {verb}", words


def _unless_title(subject: Subject, text: str, is_first: bool) -> str:
    """The text, unless it only repeats the title; at first what follows the title."""
    if subject.title and text.casefold().startswith(subject.title.casefold()):
        return text[len(subject.title) :].lstrip(" \n\r\t:.-\u2013\u2014") if is_first else ""
    return text


def _quoted(text: str) -> str:
    """A sender's words, in quotation marks; nothing where there are none."""
    words = quotable(text)
    return f"'{clip(words, QUOTE_WORDS)}'" if words else ""


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]


def _verb(happening: Happening) -> str:
    return VERBS.get(happening.action) or quotable(happening.action.replace("_", " ")) or "updated"


def _noun(kind: str) -> str:
    return NOUNS.get(kind) or quotable(kind.replace("_", " ").replace(":", " ")) or "event"


def _own_kind(subject: Subject) -> str:
    """What the context itself is: "pull_request" of "github:octo/hello:pull_request:42"."""
    parts = subject.context_id.split(":")
    if len(parts) >= 2 and any(happening.kind == parts[-2] for happening in subject.happenings):
        return parts[-2]
    return subject.happenings[0].kind


def _number(subject: Subject) -> str:
    last = subject.context_id.rpartition(":")[2]
    if last.isascii() and last.isdigit():
        return f"#{last}"
    return last if _TICKET.fullmatch(last) else ""
