"""``-vxlan-checksum-offload`` on a real kernel: set, kept, and left alone where nobody asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.linux import ethtool
from pyflannel.state import ChecksumOffload
from tests.support.machines import eventually
from tests.support.pair import Host, Pair
from tests.support.pictures import DEVICE

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path) as made:
        made.one.flags.append("--vxlan-checksum-offload=off")
        made.start()
        yield made


def offload(host: Host) -> bool:
    (found,) = ethtool.read([DEVICE], host.space.name)
    return found.on


def set_offload(host: Host, on: bool) -> None:
    assert ethtool.write(ChecksumOffload(DEVICE, on), host.space.name).code == 0


def test_it_is_off_before_anybody_goes_by_us_and_packets_cross(pair: Pair) -> None:
    assert not offload(pair.one)
    assert offload(pair.two), "nobody asked there"
    assert pair.probe_for(0.2).lost == 0


def test_what_somebody_does_is_undone(pair: Pair) -> None:
    set_offload(pair.one, True)
    eventually(lambda: not offload(pair.one), "it to be off again", 5.0)
    pair.one.space.run(f"ip link del {DEVICE}")
    eventually(lambda: DEVICE in pair.one.space.run("ip -br link"), "the device", 5.0)
    eventually(lambda: not offload(pair.one), "it to be off there as well", 5.0)
    pair.await_contact()


def test_a_start_that_says_otherwise_switches_it_on_and_one_that_says_nothing_leaves_it(pair: Pair) -> None:
    pair.one.stop()
    pair.one.flags[-1] = "--vxlan-checksum-offload=on"
    pair.one.started()
    assert offload(pair.one)
    pair.one.stop()
    set_offload(pair.one, False)
    pair.one.flags.pop()
    pair.one.started()
    assert not offload(pair.one)
