"""Whether containers are where the lease says, and their packets as small as they must be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyflannel.doctor.facts import Device, Facts
from pyflannel.doctor.findings import Check, Sign
from pyflannel.health import Severity

CNI_BRIDGES: Final = ("cni0", "cbr0")
"""Where the containers of CNI plug-ins are, as a rule."""
BRIDGES: Final = ("docker0", *CNI_BRIDGES)


def bridge_elsewhere(facts: Facts) -> Iterator[Sign]:
    """A bridge for containers, and none in our subnet; or one that takes in more than our subnet."""
    own = next((each for each in facts.subnets if each.version == 4), None)
    if own is None or facts.devices is None or facts.tunnels is None:
        return
    if (bridge := facts.bridge) is not None:
        for address in bridge.addresses:
            if address.version == 4 and address.ip in own and address.network.prefixlen < own.prefixlen:
                yield Sign(
                    f"containers on {bridge.name} take other hosts' containers for neighbours on their own link",
                    f"{bridge.name} has {address}, and the subnet of this host is {own}",
                )
        return
    for device in facts.devices:
        if device.name in (CNI_BRIDGES if facts.cni else BRIDGES) and device.kind == "bridge":
            held = [str(each) for each in device.addresses if each.version == 4]
            if held:
                yield Sign(
                    f"containers on {device.name} are not in this host's subnet, so no other host finds them",
                    f"{device.name} has {' and '.join(held)}, and the subnet of this host is {own}",
                )
                return


def docker_subnet(facts: Facts) -> Iterator[Sign]:
    """Docker would give containers other addresses than its bridge has."""
    own = next((each for each in facts.subnets if each.version == 4), None)
    docker, bridge = facts.docker, facts.bridge
    if own is None or docker is None or bridge is None or docker.subnet is None:
        return
    if docker.bridge == bridge.name and docker.subnet != own:
        yield Sign(
            "Docker hands out other addresses than those of this host's subnet",
            f"Docker's network bridge has {docker.subnet}, and the subnet of this host is {own}",
        )


def packets_too_large(facts: Facts) -> Iterator[Sign]:
    """Containers that may send larger packets than the tunnel takes."""
    written = None if facts.subnet_file is None else facts.subnet_file.mtu
    mtu = written if facts.status is None or facts.status.network.mtu is None else facts.status.network.mtu
    bridge = facts.bridge
    if mtu is None or bridge is None:
        return
    limit = f"subnet.env says FLANNEL_MTU={mtu}" if mtu == written else f"the agent has {mtu}"
    docker = facts.docker
    if docker is not None and docker.mtu is not None and docker.bridge == bridge.name and docker.mtu > mtu:
        yield Sign(
            f"Docker has containers send packets of {docker.mtu} bytes, and the overlay takes {mtu}",
            f"Docker's network bridge has the MTU {docker.mtu}, and {limit}",
        )
        return
    large = [each for each in facts.devices or () if each.master == bridge.name and each.mtu > mtu]
    if large:
        yield Sign(
            f"containers on {bridge.name} send larger packets than the overlay takes",
            f"{_named(large)}, and {limit}",
        )


def _named(devices: list[Device]) -> str:
    more = f" and {len(devices) - 1} more" if len(devices) > 1 else ""
    return f"{devices[0].name}, a port of {devices[0].master}, has the MTU {devices[0].mtu}{more}"


_ERROR: Final = Severity.ERROR
_CONFIGURE: Final = (
    "`flannelctl docker configure` has Docker take subnet and MTU from subnet.env; restart Docker then. Containers "
    "that were there before keep their interfaces: make them anew."
)
CHECKS: Final = (
    Check(
        "bridge-elsewhere",
        _ERROR,
        "Containers are in another subnet than this host's",
        "Other hosts send to containers of this one what is for its subnet. A bridge elsewhere was set up before the "
        "agent, or the host has had another subnet since: its containers get no answer.",
        f"{_CONFIGURE} With CNI, delete cni0 (`ip link delete cni0`) and start the containers anew.",
        bridge_elsewhere,
    ),
    Check(
        "docker-subnet",
        _ERROR,
        "Docker hands out addresses of another subnet",
        "Docker's own record of its network is another than the subnet of this host, so that what it starts next is "
        "not to be reached.",
        _CONFIGURE,
        docker_subnet,
    ),
    Check(
        "packets-too-large",
        _ERROR,
        "Containers send larger packets than fit through the tunnel",
        "The tunnel puts a header around every packet, so containers must send smaller ones than the hosts. If they do "
        "not, small packets pass and large transfers hang.",
        _CONFIGURE,
        packets_too_large,
    ),
)
