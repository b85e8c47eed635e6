from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from pyflannel.linux import ethtool
from pyflannel.state import ChecksumOffload
from tests.support.namespaces import Namespace

DEV = "flannel.1"


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("ethtool") as here:
        here.run(f"ip link add {DEV} type vxlan id 1 dstport 8472")
        yield here


@pytest.mark.needs("root", "netns", "vxlan")
def test_what_is_written_is_read_back_and_the_device_is_told_of_by_its_name(space: Namespace) -> None:
    assert ethtool.read([DEV], space.name) == [ChecksumOffload(DEV, True)]
    for on in (False, True, True):
        assert ethtool.write(ChecksumOffload(DEV, on), space.name).code == 0
        assert ethtool.read([DEV, "lo"], space.name)[0] == ChecksumOffload(DEV, on)


@pytest.mark.needs("root", "netns")
def test_a_device_that_is_not_there_has_none_and_takes_none() -> None:
    with Namespace("ethtool") as bare:
        assert ethtool.read([DEV], bare.name) == []
        assert ethtool.write(ChecksumOffload(DEV, False), bare.name).code == errno.ENODEV


@pytest.mark.parametrize("release", ["3.10.0-1160.el7.x86_64", "4.19.0-27-amd64", "5.4.0-216-generic", "5.6.19"])
def test_a_kernel_before_the_repair_does_harm(release: str) -> None:
    assert ethtool.is_harmful(release)


@pytest.mark.parametrize("release", ["5.7.0", "5.10.0-8-amd64", "6.1.0-56-amd64", "6.18.44-fc-v669", "10.0", "next"])
def test_a_kernel_with_it_or_of_a_release_nobody_can_read_does_none(release: str) -> None:
    assert not ethtool.is_harmful(release)
