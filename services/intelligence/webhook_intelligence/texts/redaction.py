"""Secrets that people paste into issues and commits, blanked before anybody reads on; what is hidden in text.

Only what is unmistakably a credential: a false alarm would blank ordinary text. Every pattern reads its
text once, so no text can make it slow.
"""

from __future__ import annotations

import re

from webhook_intelligence.texts.folding import folded

_GAP = r"(?:\\[nr]|\s){0,4}"  # a line end, also as JSON writes it
_PATTERNS: dict[str, str] = {
    "private-key": (
        rf"-----BEGIN [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----"
        rf"(?:{_GAP}+[A-Za-z0-9+/=]{{16,8192}}+){{0,400}}+"
        rf"(?:{_GAP}[A-Za-z0-9+/=]{{0,16}}{_GAP}-----END [A-Z ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----)?"
    ),
    "github-token": r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})",
    "gitlab-token": r"\bgl(?:pat|ptt|soat|rt|dt|cbt)-[A-Za-z0-9_-]{20,255}",
    "aws-key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "slack-token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,255}|\bxapp-[A-Za-z0-9-]{10,255}",
    "slack-webhook": r"https://hooks\.slack\.com/[A-Za-z0-9/_-]{10,255}",
    "api-key": (
        r"\b(?:sk-[A-Za-z0-9_-]{20,255}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,255}|AIza[0-9A-Za-z_-]{35}"
        r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,255}|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,64}"
        r"|whsec_[A-Za-z0-9+/=]{16,255}|whk_[0-9a-f]{12}_[A-Za-z0-9_-]{20,64})"
    ),
    "jwt": r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,8192}(?:\.[A-Za-z0-9_-]{0,1024})?",
    "bearer": r"\b[Bb](?:earer|EARER)\s{1,4}[A-Za-z0-9._~+/-]{16,4096}={0,2}",
    "password": (
        r"\b(?i:password|passwd|pwd|secret|api[_-]?key|access[_-]?token|auth[_-]?token|client[_-]?secret)"
        r"[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?=[^\s\"',;]{0,64}\d)[^\s\"',;]{8,512}"
    ),
    "url-password": r"(?<=://)[^\s/:@]{1,128}:[^\s/@]{1,256}(?=@)",
}
_SECRET = re.compile(
    "|".join(f"(?P<{kind.replace('-', '_')}>{pattern})" for kind, pattern in _PATTERNS.items())
)

# Every text that holds a secret holds one of these, whatever its case; most texts hold none, and looking for
# them takes a tenth of the time.
_SIGNS = (
    *("-----begin ", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "glptt-", "glsoat-", "glrt-", "gldt-", "glcbt-", "akia", "asia", "xox", "xapp-"),
    *("hooks.slack.com/", "sk-", "k_live_", "k_test_", "aiza", "npm_", "pypi-", "sg.", "whsec_", "whk_"),
    *("eyj", "bearer", "password", "passwd", "pwd", "secret", "key", "token"),
)

# Characters that show nothing (or are none, as halves of a surrogate pair): they hide words from readers
# and secrets from the patterns above, and turn lines round.
_HIDDEN = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
    "\U000e0000-\U000e007f\ud800-\udfff]"
    # Joiners belong to other scripts and to emoji; beside plain letters they only hide something.
    "|(?<=[!-~])[\u200c\u200d]|[\u200c\u200d](?=[!-~])"
)
_MAYBE_HIDDEN = re.compile(
    "[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)

# Longer than what most secrets have: a cut this far behind the end that is wanted leaves none in halves.
MARGIN_CHARS = 512


def visible(text: str) -> str:
    """The text without what nobody sees: zero-width characters, tags, and turns of its direction."""
    return text if text.isascii() or not _MAYBE_HIDDEN.search(text) else _HIDDEN.sub("", text)


def redact(text: str) -> str:
    """The visible text with each secret replaced by `[redacted:<kind>]`."""
    text = visible(text)
    if not may_hold_secret(text):
        return text
    return _SECRET.sub(lambda match: f"[redacted:{(match.lastgroup or 'secret').replace('_', '-')}]", text)


def may_hold_secret(text: str) -> bool:
    """Whether it is worth looking closer."""
    lower = folded(text)
    for sign in _SIGNS:  # `any` takes twice the time
        if sign in lower:
            return True
    return "://" in lower and "@" in lower


def redacted_head(text: str, chars: int) -> str:
    """The first characters of a text, without secrets."""
    return redact(text[: chars + MARGIN_CHARS])[:chars]
