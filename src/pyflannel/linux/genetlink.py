"""Generic netlink: speaking with parts of the kernel that have no netlink protocol of their own (linux/genetlink.h).

Each such part is a *family*, known by name.  Its number, which is the type of its messages, is another with every start
of the kernel, so it is asked for first; asking loads the module which has it, where there is one.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pyflannel.linux.errors import KernelError, Unsupported
from pyflannel.linux.netlink import NETLINK_GENERIC, Conversation, Request, attribute, attributes, open_socket
from pyflannel.linux.netns import Netns

HEADER: Final = struct.Struct("=BBH")
"""struct genlmsghdr: command, version, reserved.  It follows the netlink header, attributes follow it."""
GENL_ID_CTRL: Final = 16
"""The family that knows the others."""
CTRL_VERSION: Final = 2
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 1, 2
FAMILY_ID: Final = struct.Struct("=H")


@contextmanager
def opened(netns: Netns = None) -> Iterator[Conversation]:
    """A conversation with the generic part of the kernel, for as long as the block takes; ``OSError`` if refused."""
    channel = open_socket(netns, protocol=NETLINK_GENERIC)
    conversation = Conversation(channel)
    try:
        channel.bind((0, 0))
        yield conversation
    finally:
        conversation.close()


def message(family: int, command: int, version: int, body: bytes, flags: int = 0) -> Request:
    """A request to a family, with attributes as ``body``."""
    return Request(family, HEADER.pack(command, version, 0) + body, flags)


def query(name: str) -> Request:
    """Ask for a family by name."""
    wanted = attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
    return message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_VERSION, wanted)


def family(conversation: Conversation, name: str) -> int:
    """The number of a family; ``Unsupported`` if this kernel has none of that name, nor a module with it."""
    what = f"looking up the kernel's {name} interface"
    try:
        answer = conversation.ask(what, query(name))
    except KernelError as error:
        if error.code != errno.ENOENT:
            raise
        raise Unsupported(what, errno.EOPNOTSUPP, f"this kernel has no {name}") from None
    return int(FAMILY_ID.unpack(attributes(answer, HEADER.size)[CTRL_ATTR_FAMILY_ID])[0])
