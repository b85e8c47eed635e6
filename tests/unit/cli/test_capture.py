"""``flannelctl capture``: which devices it watches for whom; real packets are in tests/netns/test_capture.py."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.capture import capture, devices
from pyflannel.lease.model import Snapshot
from pyflannel.network import Network
from pyflannel.reach import Reach
from pyflannel.trace.facts import Overlay, overlay
from tests.support.builders import backend, config, underlay, view, vxlan_lease
from tests.support.crossings import PEER, known

SUBNET = ip_network("10.2.41.0/24")


def test_a_peer_behind_a_tunnel_is_watched_on_its_device() -> None:
    found = known()
    (peer,) = found.peers
    assert devices(found, peer) == [("flannel.1", [SUBNET])]


def seen(kind: str) -> Overlay:
    settings = config(kind)
    on_link = Reach.of([(ip_network("172.16.41.0/24"), True)])
    network = Network(backend(settings), view(settings, under=replace(underlay(), on_link=on_link)))
    lease = vxlan_lease()
    if "host-gw" in kind:
        lease = replace(lease, attrs=replace(lease.attrs, backend_type="host-gw", backend_data=None))
    network.fold(Snapshot(1, (lease,)))
    return overlay(network, PEER)


def test_a_peer_without_a_tunnel_is_watched_on_the_external_interface() -> None:
    found = seen('{"Type":"host-gw"}')
    assert devices(found, found.peers[0]) == [("ens33", [SUBNET])]


def test_a_peer_beside_the_tunnel_is_watched_on_both() -> None:
    found = seen('{"Type":"vxlan","DirectRouting":true}')
    assert devices(found, found.peers[0]) == [("ens33", [SUBNET]), ("flannel.1", [SUBNET])]


@pytest.mark.parametrize(
    "arguments", [[], ["172.16.41.132", "--count", "0"], ["172.16.41.132", "--duration", "0"], ["--nope"]]
)
def test_a_wrong_question_is_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(capture, ["--no-defaults", *arguments]).exit_code == 2


def test_where_no_network_is_known_there_is_nothing_to_watch(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        capture, ["--no-defaults", str(ip_address(PEER)), "--", f"-store=local:{tmp_path}/store.db"]
    )
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no network configuration" in result.stderr
