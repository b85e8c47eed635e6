"""Command lines as Go's ``flag`` package reads them (compat §1.1).

Rules of this file
  1. It knows flags by name and kind only, not what they are for.
  2. It accepts what Go accepts and refuses what Go refuses, with Go's words in front and what was expected behind.
  3. No message repeats a value it was not asked to understand: it may be a password in the wrong place.

Why not argparse: it abbreviates, lets ``-x`` take part of a word, and knows nothing of ``-flag=false``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

Value: TypeAlias = bool | int | str
Kind: TypeAlias = type[bool] | type[int] | type[str]

_BOOLEANS: Final = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_INTEGER: Final = re.compile(
    r"[+-]?(?:0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[0-9a-fA-F])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*)"
)
_C_OCTAL: Final = re.compile(r"[+-]?0[0-7]+")


class UsageError(ValueError):
    """The command line cannot be understood; ``flag`` is the one it is about, without its dashes."""

    def __init__(self, flag: str, message: str) -> None:
        """``message`` names the flag too, as Go words it."""
        super().__init__(message)
        self.flag = flag


class HelpRequested(Exception):
    """``-h``, ``-help`` or ``--help`` stood where a flag was expected."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A command line, taken apart."""

    values: Mapping[str, Sequence[Value]]
    """What each given flag was set to, in order, by its name without dashes."""
    rest: Sequence[str] = ()
    """What follows the flags, from the first argument that is none."""
    warning: str | None = None
    """What a person should know who passed positional arguments: every flag among them is ignored."""


def parse(arguments: Sequence[str], kinds: Mapping[str, Kind]) -> Parsed:
    """Take a command line apart, without the program's name; ``UsageError`` or ``HelpRequested`` at the first cause."""
    values: dict[str, list[Value]] = {}
    at, bare = 0, ""
    while at < len(arguments) and _is_flag(arguments[at]):
        name, equals, text = _split(arguments[at])
        kind = _kind(name, kinds)
        at += 1
        bare = "" if equals or kind is not bool else name
        if bare:
            text = "true"
        elif not equals:
            if at == len(arguments):
                raise UsageError(name, f"flag needs an argument: -{name}")
            text = arguments[at]
            at += 1
        values.setdefault(name, []).append(_read(name, kind, text))
    if arguments[at : at + 1] == ["--"]:
        at, bare = at + 1, ""
    rest = arguments[at:]
    return Parsed(values, rest, _ignored(rest, at, bare, kinds) if rest else None)


def _is_flag(argument: str) -> bool:
    """A lone ``-`` is positional, and ``--`` ends the flags."""
    return len(argument) > 1 and argument[0] == "-" and argument != "--"


def _split(argument: str) -> tuple[str, bool, str]:
    body = argument.removeprefix("-").removeprefix("-")
    name, equals, text = body.partition("=")
    if not name or name.startswith("-"):
        raise UsageError(
            name.strip("-"), f"bad flag syntax: {argument.partition('=')[0]}: expected -name or -name=value"
        )
    return name, bool(equals), text


def _kind(name: str, kinds: Mapping[str, Kind]) -> Kind:
    if name in kinds:
        return kinds[name]
    if name in ("h", "help"):
        raise HelpRequested
    raise UsageError(name, f"flag provided but not defined: -{name}")


def _read(name: str, kind: Kind, text: str) -> Value:
    try:
        return read(kind, text)
    except ValueError as error:
        word = "boolean value" if kind is bool else "value"
        preposition = "for" if kind is bool else "for flag"
        raise UsageError(name, f'invalid {word} "{text}" {preposition} -{name}: {error}') from None


def read(kind: Kind, text: str) -> Value:
    """One value from its text; ``ValueError`` says what was expected."""
    if kind is bool:
        if text not in _BOOLEANS:
            raise ValueError("parse error: expected true or false")
        return _BOOLEANS[text]
    return _integer(text) if kind is int else text


def _integer(text: str) -> int:
    """``strconv.ParseInt(text, 0, 64)``: the prefix tells the base, a plain leading 0 means octal."""
    if not _INTEGER.fullmatch(text):
        raise ValueError("parse error: expected a whole number")
    digits = text.replace("_", "")
    number = int(digits, 8 if _C_OCTAL.fullmatch(digits) else 0)
    if not -(2**63) <= number < 2**63:
        raise ValueError("value out of range: expected at most 64 bits")
    return number


def _ignored(rest: Sequence[str], at: int, bare: str, kinds: Mapping[str, Kind]) -> str:
    """What to say of positional arguments: Go ignores them, and all flags after them, without a word."""
    if bare and rest[0] in _BOOLEANS:
        cause = f'"{rest[0]}" does not belong to -{bare}, which is now true: a boolean takes a value only as -{bare}=…'
    else:
        cause = f"argument {at + 1} is not a flag"
    flags = [argument.partition("=")[0] for argument in rest]
    flags = [flag for flag in flags if _is_flag(flag) and flag.lstrip("-") in kinds]
    return f"{cause}; it ends the options" + (f", so these are ignored: {' '.join(flags)}" if flags else "")
