"""What a start goes by; how it settles the rest is seen in tests/netns/test_agent.py and test_begin_anew.py."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyflannel.footing import StartFailed, previous_subnet, refuse_foreign_devices, understand
from pyflannel.lease.model import Subnet
from pyflannel.lease.network import ConfigError
from pyflannel.state import Misfit, State
from tests.support.builders import backend, view


def test_a_configuration_is_kept_with_its_text_and_its_place() -> None:
    text = '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":7}}'
    configured = understand("/net/config in a store", text)
    assert (configured.where, configured.text) == ("/net/config in a store", text)
    assert configured.backend.devices == ("flannel.7",)


@pytest.mark.parametrize("text", ["", "{", '{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":"seven"}}'])
def test_a_configuration_that_is_no_use_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        understand("somewhere", text)


@pytest.mark.parametrize("kind", ["bridge", "dummy", ""])
def test_somebodys_device_under_our_name_stops_the_start(kind: str) -> None:
    with pytest.raises(StartFailed, match=r"flannel\.1 already, and it is somebody's: remove it, or rename it"):
        refuse_foreign_devices(State([Misfit("flannel.1", "it is somebody's", kind)]))


def test_a_vxlan_device_of_another_flannel_is_taken_over() -> None:
    refuse_foreign_devices(State([Misfit("flannel.1", "it is a vxlan device with l2miss", "vxlan")]))
    refuse_foreign_devices(State(backend().self_items(view())))


def test_the_subnet_file_tells_what_we_held(tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_text("FLANNEL_NETWORK=10.2.0.0/16\nFLANNEL_SUBNET=10.2.71.1/24\n")
    assert previous_subnet(tmp_path / "subnet.env") == Subnet(IPv4Network("10.2.71.0/24"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"FLANNEL_SUBNET=nonsense\n"])
def test_a_file_that_tells_nothing_is_no_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "subnet.env").write_bytes(content)
    assert previous_subnet(tmp_path / "subnet.env") is None
    assert previous_subnet(tmp_path / "none.env") is None
