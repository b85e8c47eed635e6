"""The ways a packet can cross to another host.  Pure: from leases to the items the kernel should hold.

Adding a backend is one module here, one entry in ``BACKENDS`` and one row in docs/backends.md.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from pyflannel.backends.api import Backend
from pyflannel.lease.network import ConfigError, NetworkConfig

BACKENDS: Final = {
    "alloc": "alloc",
    "extension": "extension",
    "host-gw": "hostgw",
    "ipip": "ipip",
    "udp": "udp",
    "vxlan": "vxlan",
    "wireguard": "wireguard",
}
"""The module of each, loaded when a network asks for it: an agent that starts waits for one of them only."""
FIXED_NAMES: Final = frozenset(("flannel.ipip", "flannel0", "flannel-wg", "flannel-wg-v6"))
"""Devices that have the same name in every network."""

_CLOUD: Final = (
    "it wrote routes through a cloud's API; take vxlan, which needs nothing of the cloud, or host-gw where all hosts "
    "share a subnet and the cloud's check of source and destination addresses is off"
)
UNSUPPORTED: Final[dict[str, str]] = {
    "ipsec": "it left keys, policies and repair to a strongSwan daemon; take wireguard, which encrypts as well",
    "ali-vpc": _CLOUD,
    "alivpc": _CLOUD,
    "aws-vpc": _CLOUD,
    "gce": _CLOUD,
    "tencent-vpc": _CLOUD,
}
"""Backends of flannel's, of today or former times, which there are no plans for: why, and what to use instead."""


class NotSupported(ConfigError):
    """The network asks for a backend of flannel's which we do not have: another one has to be configured."""


def from_config(config: NetworkConfig) -> Backend:
    """The backend a network asks for.

    ``NotSupported`` if that is one of ``UNSUPPORTED``; ``ConfigError`` if there is no such backend at all, or its
    options are wrong.
    """
    if (advice := UNSUPPORTED.get(config.backend_type)) is not None:
        raise NotSupported(f'Backend.Type "{config.backend_type}" is not supported: {advice}')
    try:
        module = import_module(f"{__name__}.{BACKENDS[config.backend_type]}")
    except KeyError:
        raise ConfigError(
            f"Backend.Type {config.backend_type!r} is not one we have: expected {' or '.join(sorted(BACKENDS))}"
        ) from None
    build: Callable[[NetworkConfig], Backend] = module.from_config
    return build(config)
