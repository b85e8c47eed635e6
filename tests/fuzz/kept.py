"""The corpus: inputs worth keeping, as small files that read well.

corpus/records/*   what one attacker writes, or one honest host; the words that begin a line are below
corpus/configs/*   network configurations as they are; those named ``bad-*`` are refused
corpus/<kind>/*    input of the other readers, as it is

# a remark
world roomy        the world of ``tests.support.hostile`` the records are let loose in; plain where none is named
record NAME VALUE  a byte that is not printable ASCII, and a backslash, are spelled as in Python: ``\\x00``, ``\\\\``
older NAME VALUE   the same, created before all others
then counts        what becomes of the last record: this, or ``is ignored: …``, ``is unreadable: …``, ``is our own``
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.hostile import OLD, WORLDS, YOUNG, Record, World

FOLDER: Final = Path(__file__).parent / "corpus"


@dataclass(frozen=True, slots=True)
class Case:
    """One file of records."""

    world: World
    records: tuple[Record, ...]
    outcome: str = ""
    """How the word for what becomes of the last record begins; empty where the file does not say."""

    @classmethod
    def read(cls, text: str) -> Case:
        """What a file says; ``ValueError`` if it is none."""
        world, records, outcome = WORLDS["plain"], list[Record](), ""
        for line in text.split("\n"):
            word, _, rest = line.partition(" ")
            match word:
                case "" | "#":
                    continue
                case "world":
                    world = WORLDS[rest]
                case "record" | "older":
                    name, _, value = rest.partition(" ")
                    created = OLD if word == "older" else YOUNG + len(records)
                    records.append(Record(_unescaped(name), _unescaped(value), created))
                case "then":
                    outcome = rest
                case _:
                    raise ValueError(f"a line begins with {word!a}")
        return cls(world, tuple(records), outcome)

    def write(self) -> str:
        """The text of the file."""
        lines = [f"world {self.world.name}"]
        for record in self.records:
            word = "older" if record.created < YOUNG else "record"
            lines.append(f"{word} {_escaped(record.name, space=True)} {_escaped(record.value)}")
        lines += [f"then {self.outcome}"] if self.outcome else []
        return "\n".join((*lines, ""))


def cases() -> dict[str, Case]:
    """All files of records, by name."""
    return {path.name: Case.read(path.read_text("ascii")) for path in _files("records")}


def inputs(kind: str) -> dict[str, bytes]:
    """All other files of a kind, by name."""
    return {path.name: path.read_bytes() for path in _files(kind)}


def keep(kind: str, name: str, data: bytes) -> Path:
    """Add a file; returns where it is."""
    path = FOLDER / kind / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _files(kind: str) -> list[Path]:
    return sorted(path for path in (FOLDER / kind).glob("*") if path.is_file())


def _escaped(data: bytes, *, space: bool = False) -> str:
    shown = (
        chr(byte) if 0x20 + space <= byte < 0x7F and byte != 0x5C else "\\\\" if byte == 0x5C else f"\\x{byte:02x}"
        for byte in data
    )
    return "".join(shown)


def _unescaped(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")
