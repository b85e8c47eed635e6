"""Devices as a kernel would make them of our requests."""

from __future__ import annotations

from dataclasses import replace

from pyflannel.linux import links
from pyflannel.linux.links import Device
from pyflannel.linux.netlink import attributes
from pyflannel.state import Link
from tests.support.netlink_oracle import understood


def made(item: Link, *extra: bytes) -> Device:
    """The device the kernel would make of ``item``, with other settings added."""
    device = links.read(links.create(item, 2).body)
    return replace(device, settings={**device.settings, **attributes(b"".join(extra))})


def settings(item: Link) -> dict[str, object]:
    """The settings of a creation, as pyroute2 reads them."""
    data: dict[str, object] = understood(links.create(item, 2))["IFLA_LINKINFO"]["IFLA_INFO_DATA"]
    return data
