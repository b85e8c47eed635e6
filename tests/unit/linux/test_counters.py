"""What the kernel counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pyflannel.linux.counters import by_peer, through
from pyflannel.linux.errors import KernelError
from pyflannel.linux.kernel import LinuxKernel
from tests.support.namespaces import Namespace


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("counters") as made:
        yield made


@pytest.mark.needs("root", "netns")
def test_packets_and_octets_through_a_device_are_those_that_ip_tells(space: Namespace) -> None:
    space.run("ping -c 3 -i 0.01 127.0.0.1")
    (link,) = space.objects("ip -j -s link show lo")
    told = link["stats64"]
    assert isinstance(told, dict)
    found = through("lo", space.name)
    assert found is not None
    assert (found.tx_packets, found.rx_packets) == (told["tx"]["packets"], told["rx"]["packets"])
    assert (found.tx_bytes, found.rx_bytes) == (told["tx"]["bytes"], told["rx"]["bytes"])
    assert found.tx_packets is not None
    assert found.tx_packets >= 6


@pytest.mark.needs("root", "netns")
def test_a_device_that_is_not_there_has_none(space: Namespace) -> None:
    assert through("flannel.1", space.name) is None


@pytest.mark.needs("root", "netns", "wireguard")
def test_octets_to_a_peer_are_counted_by_its_key(space: Namespace) -> None:
    from pyflannel.diff import Put
    from pyflannel.state import Link, Wireguard
    from tests.support.wireguard_items import DEVICE, WG, peer

    other = peer(2)
    with LinuxKernel(space.name) as kernel:
        ops = [Put(Link(WG, Wireguard(), 1420)), Put(DEVICE), Put(other)]
        assert not kernel.apply(ops).failed
    found = by_peer(WG, space.name)
    assert list(found) == [other.public_key]
    assert found[other.public_key].rx_bytes == 0
    assert found[other.public_key].tx_packets is None


@pytest.mark.needs("root", "netns")
def test_peers_of_what_is_not_there_cannot_be_counted(space: Namespace) -> None:
    with pytest.raises(KernelError):
        by_peer("flannel-wg", space.name)
