"""A JSON object, read the way Go's decoder fills a struct from it (compat §2.1).

Rules of this file
  1. Keys match in any case; of several spellings of one key the last in the text counts.
  2. ``null`` means "not given", for numbers, switches and texts alike.
  3. An integer has neither fraction nor exponent; ``1`` is no switch and ``true`` no number.
  4. A message repeats the wrong value it found, but neither an object nor a list, nor what stands where a text is
     expected: there may be a secret in it.
  5. Whoever wrote the text may mean harm: there are bounds to how much of it is repeated or complained about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, NoReturn, TypeAlias

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

_KINDS: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction or an exponent",
    str: "a text",
    list: "a list",
    dict: "an object",
}
_SHOWN: Final = 60
"""How many characters of a wrong value a message repeats."""
_COMPLAINTS: Final = 20
"""How many unknown keys are complained about one by one."""
DEEPEST: Final = 64
"""How many objects and lists may lie in one another.  Python's own bound depends on who calls, and on the version: a
record near it could be read today and not tomorrow."""
_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


class ConfigError(ValueError):
    """The configuration cannot be used; the message says which key, what it holds and what was expected."""


def read_object(text: str) -> dict[str, JSON]:
    """The JSON object that ``text`` is, members in the order of the text.

    ``ValueError`` with a reason for anything else, whatever ``text`` may be.
    """
    refuse_deep(text)
    value: JSON = json.loads(text, object_pairs_hook=_last_wins, parse_constant=refuse_constant)
    if not isinstance(value, dict):
        raise ValueError(f"{kind(value)} instead of an object")
    return value


def refuse_deep(text: str) -> None:
    """``ValueError`` if more than ``DEEPEST`` objects and lists lie in one another in what may be JSON."""
    if text.count("{") + text.count("[") <= DEEPEST:
        return
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if depth > DEEPEST:
            raise ValueError(f"nested too deeply: expected at most {DEEPEST} objects and lists in one another")


def refuse_constant(name: str) -> NoReturn:
    """``ValueError``: for Python's decoder, which otherwise reads NaN and Infinity."""
    raise ValueError(f"{name} is not JSON")


def kind(value: JSON) -> str:
    """What sort of JSON value this is, for messages."""
    return _KINDS[type(value)]


class Fields:
    """The members of one JSON object, with typed readers which remember what was asked for."""

    def __init__(self, values: Mapping[str, JSON], prefix: str = "") -> None:
        """Read ``values``; messages put ``prefix`` before each key, as in ``Backend.VNI``."""
        self._prefix = prefix
        self._spelling = {name.casefold(): name for name in values}
        self._values = {name.casefold(): value for name, value in values.items()}
        self._known: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        """Whether the key is there, be it with ``null``.  Does not count as reading it."""
        return name.casefold() in self._values

    def get(self, name: str) -> JSON:
        """The value as it stands, None where there is none."""
        self.ignore(name)
        return self._values.get(name.casefold())

    def ignore(self, name: str) -> None:
        """Count ``name`` as a key that may be there, without reading it."""
        self._known[name.casefold()] = name

    def integer(self, name: str, default: int, low: int, high: int | None = None) -> int:
        """An integer from ``low`` to ``high``; ``ConfigError`` for any other value."""
        value = self.get(name)
        if value is None:
            return default
        expected = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, expected)
        if value < low or (high is not None and value > high):
            raise ConfigError(f"{self._prefix}{name} {shown(value)} is out of range: expected {expected}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """``true`` or ``false``; ``ConfigError`` for any other value."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def text(self, name: str, default: str) -> str:
        """A text; ``ConfigError`` for any other value, which the message does not repeat."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ConfigError(f"{self._prefix}{name} holds {kind(value)}: expected a text")
        return value

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the ``ConfigError`` for a key whose value is not what it should be."""
        value = self._values.get(name.casefold())
        repeated = f" ({shown(value)})" if isinstance(value, int | float | str) else ""
        raise ConfigError(f"{self._prefix}{name} holds {kind(value)}{repeated}: expected {expected}")

    def unread(self) -> tuple[str, ...]:
        """The keys nobody asked for, as they are spelled."""
        return tuple(self._spelling[name] for name in self._values if name not in self._known)

    def complaints(self) -> tuple[str, ...]:
        """After all reading is done: a warning for each of the ``unread`` keys, with the known key it resembles.

        Where there are very many, one warning speaks of the rest.
        """
        unread = self.unread()
        each = [self._complaint(name) for name in unread[:_COMPLAINTS]]
        if len(unread) > _COMPLAINTS:
            where = self._prefix.rstrip(".") or "the configuration"
            each.append(f"{len(unread) - _COMPLAINTS} more keys of {where} are not known, and have no effect")
        return tuple(each)

    def _complaint(self, name: str) -> str:
        near = get_close_matches(name.casefold(), self._known, n=1)
        hint = f": did you mean {self._prefix}{self._known[near[0]]}?" if near else ""
        shown = name if name.isprintable() else ascii(name)
        return f"{self._prefix}{shown:.{_SHOWN}} is not a key we know, and has no effect{hint}"


def _last_wins(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members: dict[str, JSON] = {}
    for name, value in pairs:
        # A dict would leave the key where it stood first, before another spelling that it is to overrule.
        members.pop(name, None)
        members[name] = value
    return members


def shown(value: float | str) -> str:
    """A value as JSON spells it, cut short where it is long: for messages."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
