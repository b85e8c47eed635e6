"""Taking secrets out of text that a person will hand to strangers.

Rules of this file
  1. Rather too much than too little: what looks like a secret is one.
  2. What stays is still of use: names of settings, users' hosts, public keys and addresses are kept.
  3. No text takes it long: whatever is repeated in a pattern is bounded, or begins where nothing else can.
  4. It knows no format for certain.  Text comes from logs, JSON, environment files, command lines and other programs,
     and one line may be several of these at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "***"
SHORTEST: Final = 4
"""Characters of a known secret that is looked for in all text: shorter ones are in half the words there are."""
_NAMES: Final = (
    r"(?:passw(?:or)?d|passphrase|secret|token|psk|pre-?shared[_ -]?key|private[_ -]?key|api[_-]?key|"
    r"access[_-]?key|client-key-data|credential|authorization|cookie)[\w.-]{0,64}"
)
"""Words in the name of a setting whose value nobody should see."""
_PEM: Final = re.compile(
    r"(-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----).*?(?:(-----END [A-Z0-9 ]*PRIVATE KEY-----)|\Z)", re.S
)
_WORD: Final = re.compile(r"[^\s\"'<>]+")
_NEXT_URL: Final = re.compile(r",(?=[a-zA-Z][a-zA-Z0-9+.-]{0,31}://)")
_ESCAPED: Final = re.compile(rf"""(?i)({_NAMES}\\"\s*:\s*\\")(?:(?!\\").)*(\\")""")
"""JSON within JSON."""
_QUOTED: Final = re.compile(rf"""(?i)({_NAMES}["']?\s*[:=]\s*)(["'])(?:(?!\2|\\).|\\.)*(\2)""")
_HEADER: Final = re.compile(r"(?i)\b(authorization|proxy-authorization|cookie|set-cookie)(\s*:\s*)[^\r\n\"']+")
_BARE: Final = re.compile(rf"""(?i)({_NAMES}["']?\s*[:=]\s*)(?!["'\\\[{{(])([^\s,;"'&}}\])]+)""")
_FLAG: Final = re.compile(rf"(?i)(?<!\S)(--?[\w-]{{0,64}}{_NAMES}\s+)(?!-)(\S+)")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}")
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_KEY: Final = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=(?![A-Za-z0-9+/=])")
"""32 bytes in base64, as WireGuard's keys are; only what stands before it tells a public one from a private one."""
_PUBLIC: Final = re.compile(r"(?i)(?:public[_ -]?key|peer|endpoint)\W{0,8}$")


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without secrets: those that are known, wherever they stand, and whatever looks like one."""
    # Before the known ones, among which there may be the line by which such a key is told.
    text = _PEM.sub(rf"\1{HIDDEN}\2", text)
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    text = _WORD.sub(lambda found: _without_userinfo(found[0]), text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _JWT.sub(HIDDEN, text)
    text = _ESCAPED.sub(rf"\1{HIDDEN}\2", text)
    text = _QUOTED.sub(rf"\1\2{HIDDEN}\3", text)
    text = _BARE.sub(rf"\1{HIDDEN}", text)
    text = _FLAG.sub(rf"\1{HIDDEN}", text)
    return _KEY.sub(lambda found: found[0] if _PUBLIC.search(text, 0, found.start()) else HIDDEN, text)


def _without_userinfo(word: str) -> str:
    """URLs, separated by commas, without what stands before the last ``@`` of each."""
    return word if "@" not in word or "://" not in word else ",".join(map(_public, _NEXT_URL.split(word)))


def _public(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"{scheme}{mark}{HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest else url
