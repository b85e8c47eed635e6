from __future__ import annotations

import errno
import os

import pytest

from pyflannel.linux import tuntap
from pyflannel.linux.tuntap import IFLA_TUN_MULTI_QUEUE, IFLA_TUN_PERSIST, IFLA_TUN_TYPE, make, misuse
from pyflannel.state import Tun
from tests.support.namespaces import Namespace

OURS = {IFLA_TUN_TYPE: b"\1", IFLA_TUN_MULTI_QUEUE: b"\0", IFLA_TUN_PERSIST: b"\1"}


def test_a_persistent_tun_device_may_be_ours() -> None:
    assert misuse(OURS) is None
    assert tuntap.read(OURS, "") == Tun()
    assert tuntap.underlay(OURS) == 0
    assert tuntap.change(Tun(), Tun(), 0) == b""


def test_of_a_kernel_that_tells_nothing_nothing_bad_is_thought() -> None:
    assert misuse({}) is None


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (IFLA_TUN_TYPE, b"\2", "tap"),
        (IFLA_TUN_MULTI_QUEUE, b"\1", "queues"),
        (IFLA_TUN_PERSIST, b"\0", "a process of somebody's"),
    ],
)
def test_a_device_set_up_for_another_use_is_told(setting: int, value: bytes, said: str) -> None:
    use = misuse({**OURS, setting: value})
    assert use is not None
    assert said in use


def test_rtnetlink_is_not_asked_to_make_one() -> None:
    with pytest.raises(TypeError):
        tuntap.create(Tun(), 0)


@pytest.mark.needs("root", "netns", "tun")
def test_a_device_that_is_made_stays_and_is_made_once() -> None:
    with Namespace("tuntap") as space:
        assert make("flannel0", str(space.path)).code == 0
        (link,) = space.objects("ip -j -d link show dev flannel0")
        assert link["linkinfo"]["info_data"]["persist"]  # type: ignore[index]
        assert link["txqlen"] == 2000
        assert make("flannel0", str(space.path)).code == errno.EEXIST
        space.run("ip link add flannel1 type bridge")
        assert make("flannel1", str(space.path)).code not in (0, errno.EBUSY)


@pytest.mark.needs("root", "netns")
def test_a_name_that_is_none_is_refused() -> None:
    with Namespace("tuntap") as space:
        ack = make("x/y", str(space.path))
    assert (ack.code, ack.text) == (errno.EINVAL, os.strerror(errno.EINVAL))
