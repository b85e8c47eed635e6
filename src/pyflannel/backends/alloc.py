"""A subnet for each host, and nothing else: how packets get there is somebody else's business (compat §5.8).

Like flannel's it takes no notice of the other hosts, whatever they publish: where nothing is programmed, no record can
do harm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyflannel.backends.api import View, WithoutMacs
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, Lease
from pyflannel.lease.network import NetworkConfig
from pyflannel.state import Item, Mac, Scope


def from_config(config: NetworkConfig) -> Alloc:
    """The backend for ``config``; there are no options."""
    options = Options(config.backend_options)
    return Alloc(config.ipv4 is not None, config.ipv6 is not None, tuple(options.complaints()))


@dataclass(frozen=True, slots=True)
class Alloc(WithoutMacs):
    """alloc in the families the network has."""

    ipv4: bool
    ipv6: bool
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """None is published."""
        return ""

    @property
    def devices(self) -> tuple[str, ...]:
        """None."""
        return ()

    def mtu(self, underlay: Underlay) -> int:
        """That of the external interface."""
        return underlay.mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """The addresses alone, without a type (compat §3.2)."""
        return Attrs(underlay.public_ip if self.ipv4 else None, underlay.public_ipv6 if self.ipv6 else None)

    def scope(self, view: View) -> Scope:
        """What another backend left on the external interface."""
        return Scope(borrowed=frozenset((view.underlay.name,)))

    def self_items(self, view: View) -> tuple[Item, ...]:
        """Nothing."""
        return ()

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """Nothing, whoever it is."""
        return ()
