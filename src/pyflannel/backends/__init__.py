"""The ways a packet can cross to another host.  Pure: from leases to the items the kernel should hold.

Adding a backend is one module here, one entry in ``BACKENDS`` and one row in docs/backends.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pyflannel.backends import hostgw, vxlan
from pyflannel.backends.api import Backend
from pyflannel.lease.network import ConfigError, NetworkConfig

BACKENDS: Final[dict[str, Callable[[NetworkConfig], Backend]]] = {
    "host-gw": hostgw.from_config,
    "vxlan": vxlan.from_config,
}


def from_config(config: NetworkConfig) -> Backend:
    """The backend a network asks for; ``ConfigError`` if there is no such backend or its options are wrong."""
    try:
        build = BACKENDS[config.backend_type]
    except KeyError:
        raise ConfigError(
            f"Backend.Type {config.backend_type!r} is not one we have: expected {' or '.join(sorted(BACKENDS))}"
        ) from None
    return build(config)
