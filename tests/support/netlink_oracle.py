"""pyroute2 as an independent reader, and writer, of our messages."""

from __future__ import annotations

from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from pyflannel.linux.netlink import HEADER, Request

_MESSAGES = {
    range(16, 19): ifinfmsg,
    range(20, 23): ifaddrmsg,
    range(24, 27): rtmsg,
    range(28, 31): ndmsg,
}


def understood(request: Request) -> dict[str, Any]:
    """What pyroute2 reads in a request: its header fields, and its attributes by name, nested ones inside one another.

    Fails unless pyroute2, told the same, writes the same bytes.
    """
    kind = next(message for types, message in _MESSAGES.items() if request.type in types)
    read = kind(HEADER.pack(HEADER.size + len(request.body), request.type, request.flags, 1, 0) + request.body)
    read.decode()
    said: dict[str, Any] = read.getvalue()
    written = kind()
    written.setvalue({key: value for key, value in said.items() if key != "header"})
    written.encode()
    assert bytes(written.data[HEADER.size :]) == request.body
    return {key: value for key, value in said.items() if key not in ("header", "attrs")} | _attributes(said)


def _attributes(said: dict[str, Any]) -> dict[str, Any]:
    return {name: _attributes(value) if _is_nest(value) else value for name, value in said["attrs"]}


def _is_nest(value: object) -> bool:
    return isinstance(value, dict) and "attrs" in value
