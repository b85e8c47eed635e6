"""TUN devices, which rtnetlink shows but does not make (linux/if_tun.h; the kernel's networking/tuntap.rst).

A device of ours is *persistent*: it stays, with its address and routes, while the process that serves it is changed for
another, or has died.  One that is not goes with the process that made it, so that process is somebody's: Go flanneld's
device is of this kind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from pyflannel.linux.netlink import Ack
from pyflannel.linux.netns import Netns, inside
from pyflannel.state import Spec, Tun
from pyflannel.tunnel import device

IFLA_TUN_TYPE, IFLA_TUN_PERSIST, IFLA_TUN_MULTI_QUEUE = 3, 6, 7
"""linux/if_link.h; before Linux 4.17 the kernel tells nothing."""


def misuse(settings: Mapping[int, bytes]) -> str | None:
    """What other use than ours a device is set up for, if any."""
    if settings.get(IFLA_TUN_TYPE, bytes([device.IFF_TUN])) != bytes([device.IFF_TUN]):
        return "Ethernet frames (tap)"
    if any(settings.get(IFLA_TUN_MULTI_QUEUE, b"")):
        return "several queues"
    if not any(settings.get(IFLA_TUN_PERSIST, b"\1")):
        return "a process of somebody's behind it, and goes with that"
    return None


def underlay(settings: Mapping[int, bytes]) -> int:
    """None: where packets go is the business of the process."""
    return 0


def read(settings: Mapping[int, bytes], underlay_name: str) -> Tun:
    """There is nothing to be told."""
    return Tun()


def create(spec: Spec, underlay_index: int) -> bytes:
    """Not this way: see ``make``."""
    raise TypeError("rtnetlink makes no TUN devices")


def change(spec: Spec, old: Spec, underlay_index: int) -> bytes:
    """Nothing that rtnetlink could change."""
    return b""


def make(name: str, netns: Netns) -> Ack:
    """Make a device of ours, down and with the MTU of an Ethernet; EEXIST if there is any device of this name."""
    try:
        inside(netns, lambda: device.make_persistent(name))
    except FileNotFoundError as error:
        return Ack(errno.ENODEV, f"there is no {error.filename}: the kernel's module tun is missing")
    except OSError as error:
        code = error.errno or errno.EIO
        return Ack(errno.EEXIST if code == errno.EBUSY else code, os.strerror(code))
    return Ack(0)
