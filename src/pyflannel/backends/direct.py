"""DirectRouting: peers on the link of the external interface are reached without a tunnel (compat §5.0, §5.2, §5.4).

Both ends decide for themselves, so packets may go one way through the tunnel and the other way beside it; only strict
reverse path filtering minds.  What is on the link is in ``Underlay.on_link``, and when that changes every peer is
planned anew: the kernel hears of a route that goes another way before the old one goes (``diff``).

Such a route carries our protocol number, for its device is somebody else's, and never one of the metrics by which
thousands of routes through a tunnel are filed: one that Go flanneld left could not be known again by it.
"""

from __future__ import annotations

from typing import Final

from pyflannel.backends.api import View
from pyflannel.backends.options import Options
from pyflannel.lease.network import NetworkConfig
from pyflannel.state import PROTO_FLANNEL, IPAddress, IPNetwork, Route

OPTION: Final = "DirectRouting"
TYPES: Final = ("ipip", "vxlan")
"""The backends that have it."""


def wanted(config: NetworkConfig) -> bool:
    """Whether it matters to a network which hosts are on the link; for options that a backend has understood."""
    return config.backend_type in TYPES and Options(config.backend_options).flag(OPTION, False)


def route(view: View, subnet: IPNetwork, host: IPAddress, onlink: bool = False) -> Route:
    """To the subnet of a host on our link, through that host."""
    return Route(subnet, view.underlay.name, host, onlink, protocol=PROTO_FLANNEL)
