from __future__ import annotations

import errno

import pytest

from pyflannel.linux import sysctls
from pyflannel.linux.netlink import Ack
from pyflannel.state import Sysctl
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "bridge")

DOTTED = ("flannel.1", "ipv6", "accept_ra")


def test_a_setting_is_read_and_written_in_its_namespace() -> None:
    with Namespace("sysctl") as here, Namespace("sysctl") as there:
        for space in (here, there):
            space.run("ip link add flannel.1 type bridge")
        assert sysctls.write(Sysctl(*DOTTED, "0"), here.name) == Ack(0)
        assert sysctls.read([DOTTED], here.name) == [Sysctl(*DOTTED, "0")]
        assert sysctls.read([DOTTED], there.name) == [Sysctl(*DOTTED, "1")]


def test_a_setting_that_is_not_there_is_neither_read_nor_missed() -> None:
    with Namespace("sysctl") as space:
        assert sysctls.read([DOTTED, ("lo", "ipv4", "no_such_setting")], space.name) == []
        assert sysctls.write(Sysctl(*DOTTED, "0"), space.name) == Ack(0)
        assert sysctls.write(Sysctl("lo", "ipv4", "no_such_setting", "0"), space.name) == Ack(0)


def test_a_value_the_kernel_refuses_is_an_answer() -> None:
    with Namespace("sysctl") as space:
        assert sysctls.write(Sysctl("lo", "ipv6", "accept_ra", "nonsense"), space.name).code == errno.EINVAL


def test_space_around_a_value_does_not_count() -> None:
    with Namespace("sysctl") as space:
        space.shell("printf ' 2 \\n' > /proc/sys/net/ipv6/conf/lo/accept_ra")
        assert sysctls.read([("lo", "ipv6", "accept_ra")], space.name) == [Sysctl("lo", "ipv6", "accept_ra", "2")]
