"""Per-device kernel settings, as files under ``/proc/sys/net``.

The kernel shows each thread the settings of the network namespace that thread is in.  A device name is a directory
here, so unlike with sysctl(8) a dot in it needs no care.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from pyflannel.linux.netlink import Ack
from pyflannel.linux.netns import Netns, inside
from pyflannel.state import Sysctl


def read(names: Iterable[tuple[str, str, str]], netns: Netns) -> list[Sysctl]:
    """The values of those settings (device, family, name) which the kernel has."""
    return inside(netns, lambda: [item for name in names if (item := _read(*name)) is not None])


def write(item: Sysctl, netns: Netns) -> Ack:
    """Set one.  A setting this kernel does not have, such as any of IPv6 where it is switched off, needs no setting."""
    try:
        inside(netns, lambda: _write(item))
    except FileNotFoundError:
        return Ack(0)
    except PermissionError:
        return Ack(errno.EPERM)  # as netlink says it; a file says EACCES
    except OSError as error:
        return Ack(error.errno or errno.EIO, error.strerror or "")
    return Ack(0)


def _path(dev: str, family: str, name: str) -> Path:
    return Path("/proc/sys/net", family, "conf", dev, name)


def _read(dev: str, family: str, name: str) -> Sysctl | None:
    try:
        return Sysctl(dev, family, name, " ".join(_path(dev, family, name).read_text().split()))
    except FileNotFoundError:
        return None


def _write(item: Sysctl) -> None:
    # Opened without O_CREAT, or a missing file would be refused as something not permitted.
    descriptor = os.open(_path(item.dev, item.family, item.name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, item.value.encode())
    finally:
        os.close(descriptor)
