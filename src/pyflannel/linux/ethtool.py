"""Whether a device leaves checksums for later, and the kernels on which it had better not (linux/ethtool.h).

The old commands, one value each, stand for all features of their sort; a vxlan device has one of it, which ethtool(8)
lists as ``tx-checksum-ip-generic``.
"""

from __future__ import annotations

import array
import errno
import fcntl
import re
import socket
import struct
from collections.abc import Iterable
from typing import Final

from pyflannel.linux.netlink import Ack, refusal
from pyflannel.linux.netns import Netns, inside
from pyflannel.state import ChecksumOffload

SIOCETHTOOL: Final = 0x8946
ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM = 0x16, 0x17
VALUE: Final = struct.Struct("=II")
"""struct ethtool_value: command, value."""
REQUEST: Final = struct.Struct("@16sP16x")
"""struct ifreq: name, address of the value, and what else the union is as long as."""
ABSENT: Final = frozenset((errno.ENODEV, errno.EOPNOTSUPP))
"""Answers of a device that is not there, or has no such thing."""
REPAIRED: Final = (5, 7)
"""netfilter computed checksums that were to be computed later, once it translated addresses of the outer packet, and
the receiver threw it away ("netfilter: nat: never update the UDP checksum when it's 0", ea64d8d6c675).  Some older
stable series have the repair too, and there this costs speed, no more; felix, of Calico, draws the same line."""


def is_harmful(release: str) -> bool:
    """Whether a kernel of this release (``uname -r``) is known to send wrong checksums if they are left for later."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) < REPAIRED


def read(devices: Iterable[str], netns: Netns) -> list[ChecksumOffload]:
    """How it is with those of ``devices`` that are there; ``KernelError`` if there is no telling."""
    return inside(netns, lambda: [item for dev in devices if (item := _read(dev)) is not None])


def write(item: ChecksumOffload, netns: Netns) -> Ack:
    """Have it so."""
    try:
        inside(netns, lambda: _ask(item.dev, ETHTOOL_STXCSUM, int(item.on)))
    except OSError as error:
        return Ack(error.errno or errno.EIO, error.strerror or "")
    return Ack(0)


def _read(dev: str) -> ChecksumOffload | None:
    try:
        return ChecksumOffload(dev, bool(_ask(dev, ETHTOOL_GTXCSUM, 0)))
    except OSError as error:
        if error.errno in ABSENT:
            return None
        what = f"asking whether {dev} leaves checksums for later"
        raise refusal(what, Ack(error.errno or errno.EIO, error.strerror or "")) from None


def _ask(dev: str, command: int, value: int) -> int:
    """The value that comes back; ``OSError`` if the kernel refuses."""
    memory = array.array("B", VALUE.pack(command, value))
    address, _ = memory.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as through:
        fcntl.ioctl(through, SIOCETHTOOL, REQUEST.pack(dev.encode(errors="surrogateescape"), address))
    return int(VALUE.unpack(memory)[1])
