"""The MAC addresses peers know us by: found, remembered, or made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.identity import FILE, Devices, find_devices, new_mac, remember, remembered_macs
from pyflannel.linux.kernel import LinuxKernel
from pyflannel.state import Link, Mac, State, Vxlan
from tests.support.builders import vxlan_lease
from tests.support.namespaces import Namespace

NOTHING = State()
NETWORK = "/coreos.com/network"
FOUND, KEPT = Mac.parse("02:00:00:00:00:0f"), Mac.parse("02:00:00:00:00:0e")


def device(mac: Mac | None) -> State:
    return State([Link("flannel.1", Vxlan(1, "ens33", IPv4Address("172.16.41.131"), 8472), 1450, mac)])


def never(_count: int) -> bytes:
    raise AssertionError("no new address is needed")


def devices(held: State = NOTHING, remembered: Mapping[str, Mac] = {}) -> Devices:
    return Devices(("flannel.1",), held, remembered, frozenset())


def test_the_address_a_device_has_is_the_one_peers_know() -> None:
    assert devices(device(FOUND), {"flannel.1": KEPT}).macs({}, [], never) == {"flannel.1": FOUND}


def test_the_address_in_our_lease_goes_before_the_one_somebody_gave_the_device() -> None:
    altered = devices(device(FOUND), {"flannel.1": KEPT})
    assert altered.macs({"flannel.1": KEPT}, [], never) == {"flannel.1": KEPT}
    assert devices(device(KEPT)).macs({"flannel.1": KEPT}, [], never) == {"flannel.1": KEPT}


def test_an_address_in_our_lease_that_was_never_seen_here_is_another_hosts() -> None:
    assert devices(device(FOUND)).macs({"flannel.1": KEPT}, [], never) == {"flannel.1": FOUND}
    macs = devices().macs({"flannel.1": KEPT}, [], lambda count: b"\x02" * count)
    assert macs == {"flannel.1": Mac(b"\x02" * 6)}


@pytest.mark.parametrize("seen", [State(), device(None), device(Mac(bytes(6)))], ids=["gone", "unknown", "zero"])
def test_a_device_without_an_address_gets_the_one_it_had(seen: State) -> None:
    assert devices(seen, {"flannel.1": KEPT}).macs({}, [], never) == {"flannel.1": KEPT}


def test_a_first_start_makes_an_address() -> None:
    macs = devices().macs({}, [], lambda count: b"\xff" * count)
    assert macs == {"flannel.1": Mac.parse("fe:ff:ff:ff:ff:ff")}


@pytest.mark.parametrize(("held", "remembered"), [(device(KEPT), {}), (State(), {"flannel.1": KEPT})])
def test_a_copy_of_a_host_gets_an_address_of_its_own(
    held: State, remembered: Mapping[str, Mac], caplog: pytest.LogCaptureFixture
) -> None:
    original = vxlan_lease("10.2.41.0/24", "172.16.41.132", KEPT)
    other = vxlan_lease("10.2.42.0/24", "172.16.41.133", FOUND)
    macs = devices(held, remembered).macs({}, [other, original], lambda count: b"\x02" * count)
    assert macs == {"flannel.1": Mac(b"\x02" * 6)}
    assert "is that of another host, 10.2.41.0/24" in caplog.text


@given(st.binary(min_size=6, max_size=6))
def test_a_new_address_is_always_of_one_host_and_locally_administered(raw: bytes) -> None:
    mac = new_mac(lambda _: raw)
    assert mac.is_unicast
    assert mac[0] & 0x02


def test_what_is_remembered_is_there_at_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    remember(tmp_path, NETWORK, {"flannel.1": KEPT})
    remember(tmp_path, NETWORK, {"flannel-v6.1": FOUND})
    assert remembered_macs(tmp_path, NETWORK) == {"flannel-v6.1": FOUND}


def test_networks_that_share_a_directory_do_not_mix(tmp_path: Path) -> None:
    remember(tmp_path, NETWORK, {"flannel.1": KEPT})
    remember(tmp_path, "/other/network", {"flannel.2": FOUND})
    assert remembered_macs(tmp_path, NETWORK) == {"flannel.1": KEPT}
    assert remembered_macs(tmp_path, "/other/network") == {"flannel.2": FOUND}
    assert remembered_macs(tmp_path, "/third") == {}


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    remember(tmp_path, NETWORK, {"flannel.1": KEPT})
    before = (tmp_path / FILE).stat().st_ino
    remember(tmp_path, NETWORK, {"flannel.1": KEPT})
    assert (tmp_path / FILE).stat().st_ino == before


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        f'{{"{NETWORK}": 7}}',
        f'{{"{NETWORK}": {{"flannel.1": 7}}}}',
        f'{{"{NETWORK}": {{"x": "no"}}}}',
        "\0",
    ],
)
def test_a_file_that_makes_no_sense_is_passed_over_with_a_warning(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(text)
    assert remembered_macs(tmp_path, NETWORK) == {}
    assert FILE in caplog.text
    remember(tmp_path, NETWORK, {"flannel.1": KEPT})
    assert remembered_macs(tmp_path, NETWORK) == {"flannel.1": KEPT}


def test_a_group_address_is_not_taken_from_the_file(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({NETWORK: {"flannel.1": "ff:ff:ff:ff:ff:ff"}}))
    assert remembered_macs(tmp_path, NETWORK) == {}


def test_a_first_start_has_nothing_to_remember(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert remembered_macs(tmp_path / "none", NETWORK) == {}
    assert caplog.text == ""


def test_a_disk_that_refuses_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file" / "below", NETWORK, {"flannel.1": KEPT})
    assert "another MAC address" in caplog.text


@pytest.mark.needs("root", "netns", "vxlan")
def test_a_device_of_another_vni_is_a_former_one_while_it_has_our_address(tmp_path: Path) -> None:
    remember(tmp_path, NETWORK, {"flannel.1": KEPT, "flannel.2": FOUND})
    with Namespace("identity") as space, LinuxKernel(space.name) as kernel:
        assert find_devices(kernel, tmp_path, NETWORK, ["flannel.2"]).former == frozenset()
        space.run(f"ip link add flannel.1 address {KEPT} type vxlan id 1 dstport 8472")
        found = find_devices(kernel, tmp_path, NETWORK, ["flannel.2"])
        assert found.former == {"flannel.1"}
        assert found.held == State()
        assert find_devices(kernel, tmp_path, NETWORK, ["flannel.1"]).former == frozenset()
        space.run(f"ip link set flannel.1 address {FOUND}")
        assert find_devices(kernel, tmp_path, NETWORK, ["flannel.2"]).former == frozenset()


@pytest.mark.needs("root", "netns")
def test_a_device_of_a_type_without_addresses_is_a_former_one_while_it_is_there(tmp_path: Path) -> None:
    remember(tmp_path, NETWORK, {"flannel0": KEPT})
    with Namespace("identity") as space, LinuxKernel(space.name) as kernel:
        assert find_devices(kernel, tmp_path, NETWORK, ["flannel.1"]).former == frozenset()
        space.run("ip tuntap add flannel0 mode tun")
        assert find_devices(kernel, tmp_path, NETWORK, ["flannel.1"]).former == {"flannel0"}
