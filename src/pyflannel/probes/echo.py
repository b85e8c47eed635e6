"""ICMP echo, which hosts without an agent of ours answer (RFC 792, RFC 4443 §4).

    0  type 8, of IPv6 128; answers 0 and 129     2  checksum, of IPv6 made by the kernel
    4  identifier, sequence number                8  nonce, 8 octets; then zeros up to the size that is meant

Answers are known by their nonce.  Identifier and sequence number are there for people who look on.
"""

from __future__ import annotations

import struct
from typing import Final

from pyflannel.tunnel.checksums import checksum

HEADER: Final = 8
SHORTEST: Final = 16
_ECHO: Final = struct.Struct("!BBHHHQ")
_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}


def request(version: int, nonce: int, identifier: int, number: int, size: int = SHORTEST) -> bytes:
    """The ICMP message of ``size`` octets, or of ``SHORTEST`` if that is more."""
    message = _ECHO.pack(_REQUEST[version], 0, 0, identifier & 0xFFFF, number & 0xFFFF, nonce).ljust(size, b"\0")
    if version == 6:
        return message
    return message[:2] + checksum(message).to_bytes(2) + message[4:]


def reply(version: int, data: bytes) -> int | None:
    """The nonce of an answer, None for anything else; ``data`` is as a raw socket has it, of IPv4 with its header."""
    start = 4 * (data[0] & 15) if version == 4 and data else 0
    if len(data) < start + SHORTEST:
        return None
    kind, code, _, _, _, nonce = _ECHO.unpack_from(data, start)
    return int(nonce) if (kind, code) == (_REPLY[version], 0) else None
