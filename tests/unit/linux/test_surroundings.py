"""Devices, and who answers for an address."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_interface

import pytest

from pyflannel.linux.netlink import Conversation, open_socket
from pyflannel.linux.surroundings import NOBODY, Answer, Device, answer, devices, forwarding_entry, noted
from pyflannel.state import Mac, Vxlan
from tests.support.builders import OTHER_MAC
from tests.support.crossings import HERE, HOST, PEER
from tests.support.one_host import OneHost, one_host

pytestmark = pytest.mark.needs("root", "netns", "vxlan", "veth", "bridge")

PATIENCE_S = 0.2


@pytest.fixture(scope="module")
def host() -> Iterator[OneHost]:
    with one_host() as made:
        yield made


@pytest.fixture
def conversation(host: OneHost) -> Iterator[Conversation]:
    with contextlib.closing(Conversation(open_socket(host.space.name))) as made:
        yield made


def device(conversation: Conversation, name: str) -> Device:
    (found,) = (each for each in devices(conversation) if each.name == name)
    return found


def test_a_tunnel_comes_with_its_settings(conversation: Conversation) -> None:
    found = device(conversation, "flannel.1")
    assert found.spec == Vxlan(1, "ens33", IPv4Address(str(HOST)), 8472)
    assert (found.kind, found.mtu, found.up, found.asks) == ("vxlan", 1450, True, True)
    assert ip_interface("10.2.71.0/32") in found.addresses


def test_a_port_comes_with_its_bridge(conversation: Conversation) -> None:
    bridge, port = device(conversation, "docker0"), device(conversation, "cable")
    assert port.master == bridge.index
    assert (bridge.kind, bridge.spec, bridge.running) == ("bridge", None, True)


def test_who_is_there_answers_and_who_is_not_does_not(host: OneHost, conversation: Conversation) -> None:
    index = device(conversation, "docker0").index
    there = host.container.objects("ip -j link show eth0")[0]["address"]
    assert answer(conversation, index, HERE) == Answer(Mac.parse(str(there)))
    # Known already, and asked again.
    assert answer(conversation, index, HERE).known
    assert answer(conversation, index, ip_address("10.2.71.99"), PATIENCE_S) == NOBODY


def test_one_that_was_there_a_moment_ago_has_to_answer_again(host: OneHost, conversation: Conversation) -> None:
    index = device(conversation, "docker0").index
    assert answer(conversation, index, HERE).known
    host.container.run("ip link set eth0 down")
    gone = answer(conversation, index, HERE, PATIENCE_S)
    host.container.run("ip link set eth0 up")
    assert gone == NOBODY


def test_what_somebody_wrote_down_is_taken_as_it_is(conversation: Conversation) -> None:
    index = device(conversation, "flannel.1").index
    assert answer(conversation, index, ip_address("10.2.41.0")) == Answer(OTHER_MAC, permanent=True)
    assert noted(conversation, index, ip_address("10.2.41.0")) == Answer(OTHER_MAC, permanent=True)
    assert noted(conversation, index, ip_address("10.2.42.0")) == NOBODY


def test_a_forwarding_entry_says_where_an_address_lives(conversation: Conversation) -> None:
    index = device(conversation, "flannel.1").index
    assert forwarding_entry(conversation, index, OTHER_MAC) == PEER
    assert forwarding_entry(conversation, index, Mac.parse("02:00:00:00:00:99")) is None
