"""What the kernel holds, as values.

Rules of this file
  1. An item is one object of the kernel: frozen, compared by value, with nothing in it that only the kernel knows
     (an interface is its *name*; the index behind it is the business of ``linux/``).
  2. ``key`` names the slot in the kernel which the item fills.  Two items with one key cannot both be there, so a
     ``State`` refuses them: a plan with such a pair would be rewritten for ever and never converge.
  3. ``ORDER`` is the order in which items can be built; they are torn down in reverse.

Kernel words for kernel things: see ip-link(8), ip-route(8), ip-neighbour(8), bridge(8).
"""

from __future__ import annotations

from pyflannel.state.devices import (
    IPAddress,
    IPInterface,
    Ipip,
    IPNetwork,
    Key,
    Link,
    Mac,
    Misfit,
    Spec,
    Tun,
    Vxlan,
    Wireguard,
)
from pyflannel.state.items import (
    PROTO_BOOT,
    PROTO_FLANNEL,
    PROTO_KERNEL,
    Address,
    ChecksumOffload,
    Commands,
    FdbEntry,
    Forwarder,
    Forwarding,
    Hook,
    Neighbour,
    Route,
    Sysctl,
)
from pyflannel.state.scope import Identity, Scope
from pyflannel.state.states import ORDER, DuplicateKey, Item, Likeness, State
from pyflannel.wireguard import WireguardDevice, WireguardPeer

__all__ = [
    "ORDER",
    "PROTO_BOOT",
    "PROTO_FLANNEL",
    "PROTO_KERNEL",
    "Address",
    "ChecksumOffload",
    "Commands",
    "DuplicateKey",
    "FdbEntry",
    "Forwarder",
    "Forwarding",
    "Hook",
    "IPAddress",
    "IPInterface",
    "IPNetwork",
    "Identity",
    "Ipip",
    "Item",
    "Key",
    "Likeness",
    "Link",
    "Mac",
    "Misfit",
    "Neighbour",
    "Route",
    "Scope",
    "Spec",
    "State",
    "Sysctl",
    "Tun",
    "Vxlan",
    "Wireguard",
    "WireguardDevice",
    "WireguardPeer",
]
