"""The ways of the overlay's packets, and who judges them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pyflannel.doctor.crossings import crossings, elsewhere, judges, outer_devices, undecided
from pyflannel.doctor.facts import Facts
from pyflannel.firewall.verdict import Outcome
from tests.support.healthy_host import HEALTHY, codes
from tests.support.nft_tables import ACCEPT, docker, meta


def test_packets_cross_in_both_directions() -> None:
    inward, outward = crossings(HEALTHY, 4)
    assert str(inward) == "a packet from 10.2.9.2 (elsewhere) to 10.2.7.2 (here)"
    assert str(outward) == "a packet from 10.2.7.2 (here) to 10.2.9.2 (elsewhere)"
    assert (inward.packet.in_device, inward.packet.out_device) == ("flannel.1", "docker0")
    assert [way.packet.in_device for way in crossings(HEALTHY, 6)] == ["flannel-v6.1", "docker0"]


@pytest.mark.parametrize(
    ("devices", "direct", "family", "outer"),
    [
        (("flannel.1", "flannel-v6.1"), False, 6, ("flannel-v6.1",)),
        (("flannel-wg",), None, 6, ("flannel-wg",)),
        (("flannel.1",), True, 4, ("flannel.1", "ens33")),
        ((), None, 4, ("ens33",)),
        (None, None, 4, ()),
    ],
)
def test_they_come_by_the_tunnel_or_by_the_interface_or_by_both(
    devices: tuple[str, ...] | None, direct: bool | None, family: int, outer: tuple[str, ...]
) -> None:
    assert HEALTHY.network is not None
    facts = replace(HEALTHY, network=replace(HEALTHY.network, devices=devices, direct=direct))
    assert outer_devices(facts, family) == outer


def test_without_a_peer_a_container_elsewhere_is_at_an_end_of_the_network() -> None:
    alone = replace(HEALTHY, agent=None)
    assert str(elsewhere(alone, HEALTHY.subnets[0])) == "10.2.0.2"
    assert elsewhere(Facts(), HEALTHY.subnets[0]) is None


def test_each_set_of_rules_has_its_say() -> None:
    names = ["iptables", "ip6tables", "iptables-legacy", "nftables", "nftables"]
    found = list(judges(HEALTHY))
    assert [judge.name for judge in found] == names
    (inward, _) = crossings(HEALTHY, 4)
    assert {judge.ask("filter", "FORWARD", inward.packet).outcome for judge in found[::2]} == {Outcome.ACCEPT}
    assert len(list(judges(replace(HEALTHY, native=None)))) == 3


def test_a_mark_that_opens_dockers_rules_is_no_trouble_but_worth_a_word() -> None:
    facts = replace(HEALTHY, native=(docker((), marked=[[meta("mark", 1), ACCEPT]]),))
    assert codes(facts) == []
    (said,) = undecided(facts)
    assert said.endswith("depends on: ip docker-bridges filter-forward-in__docker0 meta mark 1 accept")
    assert list(undecided(HEALTHY)) == []
