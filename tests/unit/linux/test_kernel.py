"""What ``LinuxKernel`` writes, as ip(8) and bridge(8) see it; that it keeps its promises, tests/contract says."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile

import pytest

from pyflannel.diff import Put, diff
from pyflannel.linux.kernel import AlreadyThere, LinuxKernel
from pyflannel.linux.spelling import spell
from pyflannel.state import Misfit, State
from tests.support.kernel_items import LINK, SCOPE, SPEC, WANT, peer
from tests.support.kernel_worlds import LinuxWorld
from tests.support.namespaces import Namespace

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace("kernel") as made:
        yield made


@pytest.fixture
def kernel(space: Namespace) -> Iterator[LinuxKernel]:
    with LinuxKernel(space.name) as made:
        LinuxWorld(space, made)
        yield made


def lines(text: str) -> set[str]:
    """What was printed, line by line."""
    return {line.strip() for line in text.splitlines()}


def test_the_kernel_holds_what_go_flannel_would_have_put_there(space: Namespace, kernel: LinuxKernel) -> None:
    kernel.apply(diff(WANT, State()))
    assert lines(space.run("ip -4 route show dev flannel.1")) == {
        "10.2.2.0/24 via 10.2.2.0 onlink",
        "10.2.3.0/24 via 10.2.3.0 onlink",
        "10.2.50.0/24 scope link",
    }
    assert lines(space.run("ip -4 neigh show dev flannel.1")) == {
        "10.2.2.0 lladdr 02:00:00:00:01:02 PERMANENT",
        "10.2.3.0 lladdr 02:00:00:00:01:03 PERMANENT",
    }
    assert lines(space.run("bridge fdb show dev flannel.1")) == {
        "02:00:00:00:01:02 dst 192.0.2.2 self permanent",
        "02:00:00:00:01:03 dst 192.0.2.3 self permanent",
    }
    assert lines(space.run("ip -6 route show dev flannel-v6.1 proto boot")) == {
        "fd00:2:2::/64 via fd00:2:2:: metric 1024 onlink pref medium",
        "fd00:2:3::/64 via fd00:2:3:: metric 1024 onlink pref medium",
    }
    assert lines(space.run("ip -6 neigh show dev flannel-v6.1 nud permanent")) == {
        "fd00:2:2:: lladdr 02:00:00:00:06:02 PERMANENT",
        "fd00:2:3:: lladdr 02:00:00:00:06:03 PERMANENT",
    }
    assert lines(space.run("bridge fdb show dev flannel-v6.1")) == {
        "02:00:00:00:06:02 dst 2001:db8::2 self permanent",
        "02:00:00:00:06:03 dst 2001:db8::3 self permanent",
    }
    assert "inet 10.2.1.0/32 scope global flannel.1" in lines(space.run("ip -4 address show dev flannel.1"))
    assert space.shell("cat /proc/sys/net/ipv6/conf/flannel.1/accept_ra").strip() == "0"


@pytest.mark.parametrize("gbp", [False, True])
def test_the_device_is_what_go_flannel_would_have_made(space: Namespace, kernel: LinuxKernel, gbp: bool) -> None:
    ours = replace(LINK, name="ours", spec=replace(SPEC, gbp=gbp))
    assert kernel.apply([Put(ours)]).failed == ()
    flag = "gbp" if gbp else ""
    space.run(f"ip link add theirs mtu 1450 type vxlan id 9 dev eth0 local 192.0.2.1 dstport 8472 nolearning {flag}")
    (made,), (reference,) = (space.objects(f"ip -j -d link show {name}") for name in ("ours", "theirs"))
    mine, theirs = (entry["linkinfo"]["info_data"] for entry in (made, reference))  # type: ignore[index]
    assert mine == {**theirs, "id": 1}
    assert (made["mtu"], made["address"]) == (1450, str(LINK.mac))
    assert {"UP", "LOWER_UP"} <= set(made["flags"])  # type: ignore[call-overload]


def test_every_command_we_print_does_what_we_do(space: Namespace, kernel: LinuxKernel) -> None:
    for op in diff(WANT, State()):
        space.run(spell(op))
    assert kernel.observe(SCOPE) == WANT
    for op in diff(State([LINK]), WANT):
        space.run(spell(op))
    assert set(kernel.observe(replace(SCOPE, sysctls=frozenset())).values()) == {LINK}


def test_when_all_is_well_the_kernel_has_nothing_to_tell(space: Namespace, kernel: LinuxKernel) -> None:
    kernel.apply(diff(WANT, State()))
    with subprocess.Popen(space.argv("ip", "monitor", "all"), stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        try:
            for attempt in count():
                # Only when it has told us something do we know that it listens.
                space.run(f"ip link add call{attempt} type bridge")
                if select.select([monitor.stdout], [], [], 0.1)[0]:
                    break
            space.run("ip link add begin type bridge")
            told = takewhile(lambda line: "finish" not in line, monitor.stdout)
            assert any("begin" in line for line in told)
            assert kernel.apply(diff(WANT, kernel.observe(SCOPE))).done == ()
            space.run("ip link add finish type bridge")
            assert [line for line in told if "flannel" in line] == []
        finally:
            monitor.kill()


@pytest.mark.parametrize(
    "settings",
    ["group 239.1.1.1", "remote 192.0.2.9", "l2miss", "proxy", "rsc", "external"],
)
def test_a_vxlan_device_for_another_use_is_a_misfit(space: Namespace, kernel: LinuxKernel, settings: str) -> None:
    identity = "" if settings == "external" else "id 1"
    space.run(f"ip link add flannel.1 type vxlan {identity} dev eth0 dstport 8472 {settings}")
    (found,) = kernel.observe(replace(SCOPE, sysctls=frozenset())).values()
    assert isinstance(found, Misfit)
    assert kernel.apply(diff(WANT, kernel.observe(SCOPE))).failed == ()
    assert kernel.observe(SCOPE) == WANT


@pytest.mark.parametrize("extra", ["src 10.2.1.0", "mtu 1300", "rto_min 5ms"])
def test_a_route_of_ours_that_was_given_other_settings_is_made_plain_again(
    space: Namespace, kernel: LinuxKernel, extra: str
) -> None:
    kernel.apply(diff(WANT, State()))
    route = peer(2)[2]
    space.run(spell(Put(route, route)).replace(" dev ", f" {extra} dev "))
    assert diff(WANT, kernel.observe(SCOPE))
    for _ in range(2):
        kernel.apply(diff(WANT, kernel.observe(SCOPE)))
    assert kernel.observe(SCOPE) == WANT
    assert "10.2.2.0/24 via 10.2.2.0 onlink" in lines(space.run("ip route show dev flannel.1"))
    assert extra.split()[0] not in space.run("ip route show dev flannel.1")


def test_routes_of_other_tables_and_types_are_not_seen(space: Namespace, kernel: LinuxKernel) -> None:
    kernel.apply(diff(WANT, State()))
    space.run("ip route add 10.2.9.0/24 dev flannel.1 table 100")
    space.run("ip route add blackhole 10.2.8.0/24")
    space.run("ip route add 10.2.2.0/24 dev flannel.1 tos 4")
    space.run("ip route add 10.2.7.0/24 nexthop via 10.2.2.0 dev flannel.1 onlink nexthop via 192.0.2.9 dev eth0")
    assert kernel.observe(SCOPE) == WANT


def test_a_namespace_can_be_given_as_a_descriptor_and_lose_its_name(space: Namespace) -> None:
    descriptor = os.open(space.path, os.O_RDONLY)
    try:
        with LinuxKernel(descriptor) as kernel:
            LinuxWorld(space, kernel)
            space.delete()
            kernel.apply(diff(WANT, State()))
            assert kernel.observe(SCOPE) == WANT
    finally:
        os.close(descriptor)


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        LinuxKernel("pfl-no-such")


def test_closing_twice_is_fine(space: Namespace) -> None:
    kernel = LinuxKernel(space.name)
    kernel.close()
    kernel.close()


def test_an_error_names_the_command_and_gives_the_kernels_words(kernel: LinuxKernel) -> None:
    kernel.apply(diff(WANT, State()))
    ((_, error),) = kernel.apply([Put(replace(LINK, name="flannel.9", mac=None))]).failed
    assert isinstance(error, AlreadyThere)
    assert str(error).startswith("ip link add flannel.9 up mtu 1450 type vxlan id 1 dstport 8472 dev eth0")
    assert "A VXLAN device with the specified VNI already exists: it is flannel.1 (if nobody needs it: " in str(error)


def test_thousands_of_foreign_routes_and_their_likes_stay_out_of_sight(space: Namespace, kernel: LinuxKernel) -> None:
    kernel.apply(diff(WANT, State()))
    space.run("ip link set docker0 up")
    batch = "\n".join(f"route add 10.{high}.{low}.0/24 dev docker0" for high in range(20, 30) for low in range(200))
    space.run("ip -batch -", stdin=batch)
    assert kernel.observe(SCOPE) == WANT
