"""Protocol buffers, as much of them as etcd speaks.

    message   = field*
    field     = tag value
    tag       = varint(number << 3 | wire type)
    varint    = 7 bits a byte, lowest first, the top bit says that more follow
    wire type   0  varint             whole numbers, booleans, enumerations
                1  8 bytes            - not used by etcd, skipped
                2  varint n, n bytes  bytes, text, a message inside a message
                3  fields, then 4     - a group of long ago, skipped
                5  4 bytes            - not used by etcd, skipped

A message is a frozen dataclass; each of its fields says which number it has on the wire and what is in it:

    @dataclass(frozen=True, slots=True)
    class KeyValue(Message):
        key: bytes = octets(1)
        mod_revision: int = integer(3)

Rules of this file: no I/O, nothing about etcd.  ``decode`` skips what the class does not name, never reads past its
input, and raises ``ValueError`` for bytes that are no message.  ``encode`` leaves out what equals the default, as
proto3 does.  Why our own: the official library is a C extension with version pins, and start-up would pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias, TypeVar, cast

_LAST_BYTE_BELOW = 0x80
_LONGEST_VARINT = 10
_UINT64 = (1 << 64) - 1
_SIGN = 1 << 63


class Message:
    """Marks a dataclass whose fields are made by the functions below."""

    __slots__ = ()


M = TypeVar("M", bound=Message)


# Plain numbers: comparing members of an enumeration took a quarter of the time of a list.
_INTEGER, _BOOLEAN, _OCTETS, _TEXT, _MESSAGE, _MESSAGES = range(6)


@dataclass(frozen=True, slots=True)
class _Wire:
    """What a field is on the wire."""

    number: int
    kind: int
    of: type[Message] = Message

    @property
    def tag(self) -> int:
        return self.number << 3 | (0 if self.kind <= _BOOLEAN else 2)


def _field(wire: _Wire, default: object, *, shown: bool = True) -> object:
    made: object = field(default=default, repr=shown, metadata={"wire": wire})
    return made


def integer(number: int) -> int:
    """A whole number of 64 bits with sign; also an enumeration.  0 if absent."""
    return cast(int, _field(_Wire(number, _INTEGER), 0))


def chosen_integer(number: int) -> int | None:
    """The same inside a *oneof*, where being there has a meaning of its own: 0 is sent, None is absent."""
    return cast("int | None", _field(_Wire(number, _INTEGER), None))


def boolean(number: int) -> bool:
    """A truth value.  False if absent."""
    return cast(bool, _field(_Wire(number, _BOOLEAN), False))


def octets(number: int) -> bytes:
    """Bytes.  Empty if absent."""
    return cast(bytes, _field(_Wire(number, _OCTETS), b""))


def text(number: int, *, secret: bool = False) -> str:
    """UTF-8 text, empty if absent.  A secret one is left out of the message's ``repr``."""
    return cast(str, _field(_Wire(number, _TEXT), "", shown=not secret))


def one(number: int, of: type[M]) -> M | None:
    """A message.  None if absent; a message of defaults is sent, though it is empty."""
    return cast("M | None", _field(_Wire(number, _MESSAGE, of), None))


def many(number: int, of: type[M]) -> tuple[M, ...]:
    """Any number of messages."""
    return cast("tuple[M, ...]", _field(_Wire(number, _MESSAGES, of), ()))


def encode(message: Message) -> bytes:
    """The message as it goes over the wire."""
    return b"".join(_encoded(message))


def decode(kind: type[M], data: bytes) -> M:
    """Read a message of this kind; ``ValueError`` if that is not what ``data`` holds."""
    return cast(M, _read(kind, data, 0, len(data)))


def _encoded(message: Message) -> Iterator[bytes]:
    for name, wire, default in _layout(type(message)).writers:
        value: object = getattr(message, name)
        if value == default:
            continue
        for item in cast("Iterable[object]", value) if wire.kind == _MESSAGES else (value,):
            yield _varint(wire.tag)
            if isinstance(item, int):
                yield _varint(item)
                continue
            octets_ = encode(item) if isinstance(item, Message) else item.encode() if isinstance(item, str) else item
            assert isinstance(octets_, bytes)
            yield _varint(len(octets_))
            yield octets_


def _varint(number: int) -> bytes:
    number &= _UINT64
    out = bytearray()
    while number >= _LAST_BYTE_BELOW:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_Reader: TypeAlias = tuple[int, int, type[Message]]


@dataclass(frozen=True, slots=True)
class _Layout:
    """A message class turned into tables, once."""

    readers: Mapping[int, _Reader]
    """By tag: which argument of the class it becomes, and how.  A known number of another wire type is not in it,
    and so is skipped like an unknown one, as the specification wants."""
    writers: tuple[tuple[str, _Wire, object], ...]
    """Name of the argument, what it is on the wire, and the default which is not sent."""
    defaults: list[object]
    """The same defaults, ready to be copied."""


_LAYOUTS: dict[type[Message], _Layout] = {}


def _layout(kind: type[Message]) -> _Layout:
    layout = _LAYOUTS.get(kind)
    if layout is None:
        members = fields(cast(Any, kind))
        wires: list[_Wire] = [member.metadata["wire"] for member in members]
        readers = {wire.tag: (index, wire.kind, wire.of) for index, wire in enumerate(wires)}
        writers = tuple((member.name, wire, member.default) for member, wire in zip(members, wires, strict=True))
        layout = _LAYOUTS[kind] = _Layout(readers, writers, [member.default for member in members])
    return layout


def _read(kind: type[Message], data: bytes, at: int, end: int) -> Message:
    layout = _layout(kind)
    readers, values = layout.readers, layout.defaults.copy()
    gathered: dict[int, list[Message]] = {}
    while at < end:
        # Nearly every tag and length is one byte long; not calling a function for those halves the time of a list.
        tag = data[at]
        at += 1
        if tag >= _LAST_BYTE_BELOW:
            tag, at = _read_varint(data, at - 1, end)
        reader = readers.get(tag)
        if reader is None:
            at = _skip(data, at, end, tag)
            continue
        index, what, of = reader
        if at < end and data[at] < _LAST_BYTE_BELOW:
            number = data[at]
            at += 1
        else:
            number, at = _read_varint(data, at, end)
        if what <= _BOOLEAN:
            values[index] = bool(number) if what == _BOOLEAN else number - ((number & _SIGN) << 1)
            continue
        stop = at + number
        if stop > end:
            raise ValueError(f"{kind.__name__}: a field of {number} bytes, where {end - at} are left")
        if what == _OCTETS:
            values[index] = data[at:stop]
        elif what == _TEXT:
            values[index] = data[at:stop].decode()
        elif what == _MESSAGE:
            values[index] = _read(of, data, at, stop)
        else:
            gathered.setdefault(index, []).append(_read(of, data, at, stop))
        at = stop
    for index, messages in gathered.items():
        values[index] = tuple(messages)
    return kind(*values)


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at ``at``, and where it ends."""
    number = 0
    for index, byte in enumerate(data[at : min(end, at + _LONGEST_VARINT)]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < _LAST_BYTE_BELOW:
            return number & _UINT64, at + index + 1
    raise ValueError("a number without end")


def _skip(data: bytes, at: int, end: int, tag: int) -> int:
    """Where the field ends whose tag was just read."""
    open_groups: list[int] = []
    while True:
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field number 0, which is never used")
        if wire_type == 0:
            _, at = _read_varint(data, at, end)
        elif wire_type == 1:
            at += 8
        elif wire_type == 2:
            length, at = _read_varint(data, at, end)
            at += length
        elif wire_type == 3:
            open_groups.append(number)
        elif wire_type == 5:
            at += 4
        elif wire_type != 4 or not open_groups or open_groups.pop() != number:
            raise ValueError(f"wire type {wire_type} of field {number}, which makes no sense there")
        if at > end:
            raise ValueError(f"field {number} is cut off")
        if not open_groups:
            return at
        tag, at = _read_varint(data, at, end)
