"""The interface below goes, comes back, changes its name, address or MTU: the agent follows, and is not restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.machines import eventually
from tests.support.pair import Host, Pair
from tests.support.pictures import DEVICE

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge", "iptables")

ELSEWHERE = "172.16.41.151"
ROUTER = "172.16.41.1"

BY_NAME = ["-iface=ens33"]
BY_ADDRESS = ["-iface=172.16.41.131"]
BY_DEFAULT_ROUTE: list[str] = []
HOWEVER = pytest.mark.parametrize(
    "pair", [BY_NAME, BY_DEFAULT_ROUTE], ids=["by-name", "by-default-route"], indirect=True
)


@pytest.fixture
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two hosts in contact; the first one's agent was told to look for its interface in the way of the parameter."""
    with Pair(tmp_path) as made:
        made.one.flags = getattr(request, "param", BY_NAME)
        for host in made.hosts:
            host.space.run(f"ip route add default via {ROUTER}")
        made.start()
        agents = [host.agent for host in made.hosts]
        subnets = [host.subnet for host in made.hosts]
        yield made
        assert [host.agent for host in made.hosts] == agents
        assert all(agent is not None and agent.poll() is None for agent in agents), made.one.said()
        assert [host.subnet for host in made.hosts] == subnets


def in_contact_again(pair: Pair) -> None:
    """Wait until the containers reach each other; from then on nothing is lost."""
    pair.await_contact()
    loss = pair.probe_for(0.2)
    assert loss.lost == 0, f"{loss}\n{pair.one.said()[-3000:]}"


def own_half_as(host: Host) -> Callable[[], None]:
    """Remember what the host holds of ours; the function returned waits until it is so again."""
    before = host.picture().ours

    def wait() -> None:
        eventually(lambda: host.picture().ours == before, f"{before}\n{host.said()[-3000:]}", 5.0)

    return wait


@HOWEVER
def test_an_interface_deleted_and_made_again_is_taken_up_again(pair: Pair) -> None:
    back = own_half_as(pair.one)
    pair.one.space.run("ip link delete ens33")
    assert DEVICE not in pair.one.space.run("ip -br link"), "the kernel takes the device away with what is below"
    pair.one.plug()
    pair.one.space.run(f"ip route add default via {ROUTER}")
    back()
    in_contact_again(pair)


def test_an_interface_that_stays_away_for_a_while_is_waited_for(pair: Pair) -> None:
    back = own_half_as(pair.one)
    pair.one.space.run("ip link delete ens33")
    eventually(lambda: "ens33" in pair.one.said().rpartition("Running backend.")[2], "a word about it", 5.0)
    pair.one.plug()
    back()
    in_contact_again(pair)


@HOWEVER
def test_an_interface_down_and_up_again_is_taken_up_again(pair: Pair) -> None:
    back = own_half_as(pair.one)
    pair.one.space.run("ip link set ens33 down")
    pair.one.space.run("ip link set ens33 up")
    pair.one.space.run(f"ip route add default via {ROUTER}")
    back()
    in_contact_again(pair)


@pytest.mark.parametrize("pair", [BY_ADDRESS, BY_DEFAULT_ROUTE], ids=["by-address", "by-default-route"], indirect=True)
def test_a_renamed_interface_is_known_again(pair: Pair) -> None:
    before = pair.one.picture().ours
    with pair.probing() as probing:
        pair.one.space.run("ip link set ens33 name enp0s3")
        eventually(lambda: pair.one.link()["flags"] and "ens33" not in str(pair.one.picture().ours.links), "the name")
        (line,) = pair.one.picture().ours.links
        assert line == before.links[0].replace("link=ens33", "link=enp0s3")
        pair.one.space.run("ip route delete " + str(pair.two.subnet))
        eventually(lambda: str(pair.two.subnet) in pair.one.space.run("ip route show dev flannel.1"), "the route", 5.0)
    assert probing.loss.received > 0
    after = pair.one.picture().ours
    assert (after.addresses, after.routes, after.neighbours, after.fdb) == (
        before.addresses,
        before.routes,
        before.neighbours,
        before.fdb,
    )
    in_contact_again(pair)


def test_an_interface_chosen_by_a_name_it_has_lost_serves_on(pair: Pair) -> None:
    pair.one.space.run("ip link set ens33 name enp0s3")
    in_contact_again(pair)
    pair.one.space.run("ip link set enp0s3 name ens33")
    in_contact_again(pair)


@pytest.mark.parametrize(
    ("pair", "first"),
    [(BY_NAME, "old-goes"), (BY_NAME, "new-comes"), (BY_DEFAULT_ROUTE, "old-goes")],
    indirect=["pair"],
)
def test_a_changed_address_is_published_used_and_learnt_by_peers(pair: Pair, first: str) -> None:
    one, two = pair.one, pair.two
    mac = one.link()["address"]
    add = f"ip address add {ELSEWHERE}/24 dev ens33"
    delete = f"ip address delete {one.address}/24 dev ens33"
    if first == "new-comes":
        # What is added later is secondary, and goes with the primary one unless it may step up.
        one.space.shell("echo 1 >/proc/sys/net/ipv4/conf/ens33/promote_secondaries")
    for command in [delete, add] if first == "old-goes" else [add, delete]:
        one.space.run(command)
    one.space.run(f"ip route replace default via {ROUTER}")
    eventually(lambda: f"local={ELSEWHERE} " in str(one.picture().ours.links), f"the device\n{one.said()}", 5.0)
    eventually(lambda: published(pair, one) == ELSEWHERE, "the lease", 5.0)
    eventually(lambda: f"mac={mac} dst={ELSEWHERE}" in str(two.picture().ours.fdb), f"the peer\n{two.said()}", 5.0)
    assert one.address not in str(two.picture().ours.fdb)
    assert one.link()["address"] == mac
    in_contact_again(pair)


def published(pair: Pair, host: Host) -> str:
    """The PublicIP in the record of the host's subnet."""
    return str(pair.store.leases()[str(host.subnet)].attrs.public_ip)


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_a_changed_mtu_reaches_the_device_and_subnet_env_and_what_is_to_be_done_is_said(pair: Pair, mtu: int) -> None:
    one = pair.one
    one.space.run(f"ip link set ens33 mtu {mtu}")
    eventually(lambda: one.link()["mtu"] == mtu - 50, f"the device\n{one.said()}", 5.0)
    eventually(lambda: f"FLANNEL_MTU={mtu - 50}\n" in one.subnet_file.read_text(), "subnet.env", 5.0)
    lines = [line for line in one.said().splitlines() if "Docker" in line and str(mtu - 50) in line]
    assert any("restart" in line for line in lines), one.said()
    in_contact_again(pair)
