"""What counts as ours; that it goes, and nothing else does, is seen on a real kernel in tests/netns/test_plan.py."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from pyflannel.cleanup import Leftovers, files, scope, sort_out
from pyflannel.settings import Settings
from pyflannel.state import PROTO_FLANNEL, Address, Identity, Ipip, Link, Misfit, Route, State, Vxlan
from pyflannel.store import cache
from tests.support.builders import OWN_MAC

OURS = Link("flannel.1", Vxlan(1, "ens33", IPv4Address("172.16.41.131"), 8472), 1450)
OLD = Misfit("flannel.2", "it is a vxlan device with l2miss", "vxlan")
BRIDGE = Misfit("flannel.3", "it is of type bridge, not vxlan", "bridge")


def test_only_names_that_are_ours_are_looked_for() -> None:
    names = ["flannel.1", "flannel-v6.16777215", "eth0", "flannel", "flannel.x", "flannel.01", "flannel.1\n", "cni0"]
    assert scope(names, {}).devices == {"flannel.1", "flannel-v6.16777215"}
    assert scope(["flannel.ipip", "tunl0"], {}).devices == {"flannel.ipip"}


def test_a_device_with_the_remembered_address_is_ours_under_any_name() -> None:
    looked = scope(["flannel.7", "flannel.8"], {"flannel.7": OWN_MAC})
    assert looked.identities == (Identity("flannel.7", Vxlan(7, "", None, 0), OWN_MAC),)


def test_routes_of_ours_on_devices_of_others_go() -> None:
    ours = Route(IPv4Network("10.2.41.0/24"), "ens33", IPv4Address("172.16.41.132"), protocol=PROTO_FLANNEL)
    assert sort_out(State([OURS, replace(ours, dev="flannel.1"), ours])) == ((OURS, ours), ())
    assert scope(["flannel.1"], {}, ["ens33", "flannel.1", "lo"]).borrowed == {"ens33", "lo"}


def test_vxlan_devices_go_and_what_is_none_stays_with_a_remark() -> None:
    on_it = Address("flannel.1", IPv4Interface("10.2.71.0/32"))
    devices, remarks = sort_out(State([OURS, on_it, OLD, BRIDGE]))
    assert devices == (OURS, OLD)
    assert remarks == ("flannel.3 stays: it is of type bridge, not vxlan",)


def test_an_ipip_device_goes_and_what_is_none_stays() -> None:
    ours = Link("flannel.ipip", Ipip("", IPv4Address("172.16.41.131")), 1480)
    old = Misfit("flannel.ipip", "it is an ipip device with a remote", "ipip")
    bridge = Misfit("flannel.ipip", "it is of type bridge", "bridge")
    assert [sort_out(State([item]))[0] for item in (ours, old, bridge)] == [(ours,), (old,), ()]


def test_our_files_are_found_and_those_beside_them_are_not(tmp_path: Path) -> None:
    run, state = tmp_path / "run", tmp_path / "state"
    settings = Settings(subnet_file=str(run / "subnet.env"), state_dir=str(state))
    assert list(files(settings)) == []
    run.mkdir()
    state.mkdir()
    for path in (run / "subnet.env", run / "docker_opts.env", run / "subnet.env.bak", state / "notes"):
        path.touch()
    (run / ".subnet.env42").touch()
    (state / "vtep-macs.json").symlink_to(tmp_path / "gone")
    memory = cache.path(state, settings.etcd_prefix)
    memory.touch()
    cache.path(state, "/another/network").touch()
    sockets = [run / name for name in ("flanneld.sock", "flannel0.sock", "flannel0.next")]
    for path in sockets:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    expected = [run / "subnet.env", run / ".subnet.env42", *sockets, state / "vtep-macs.json", memory]
    assert list(files(settings)) == expected


def test_remarks_alone_are_nothing_to_remove() -> None:
    assert not Leftovers(remarks=("flannel.3 stays",)).any
    assert Leftovers(objects=(OURS,)).any
