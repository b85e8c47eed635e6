"""Laws of wireguard: how plans get into the kernel, and what anybody's records can do to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.backends import from_config
from pyflannel.backends.api import Refused
from pyflannel.backends.wireguard import Wireguard
from pyflannel.diff import diff, satisfies
from pyflannel.lease.model import Attrs, Lease, Snapshot
from pyflannel.network import Network
from pyflannel.state import IPNetwork, Item, State
from pyflannel.wireguard import Endpoint, PublicKey, WireguardPeer
from tests.support.builders import config, subnet, underlay, view
from tests.support.fake_kernel import FakeKernel
from tests.support.wireguard_items import ADDRESS, DEVICE, LINK, OWN, PSK, SCOPE, key, peer

NUMBERS = st.integers(2, 6)
KEYS = st.sampled_from([key(number) for number in (0, 2, 3, 4)] + [OWN.public])


@st.composite
def plans(draw: st.DrawFn) -> State:
    """A device with peers that share out a few networks; few keys, so that they change hands."""
    holders = draw(st.dictionaries(NUMBERS, NUMBERS, max_size=5))
    peers: list[Item] = []
    for number in draw(st.permutations(sorted(set(holders.values())))):
        networks = frozenset(ip_network(f"10.2.{net}.0/24") for net, holder in holders.items() if holder == number)
        host = draw(st.integers(1, 3))
        psk = draw(st.sampled_from((None, PSK)))
        peers.append(
            WireguardPeer("flannel-wg", key(number), peer(host).endpoint, networks, draw(st.integers(0, 1)), psk)
        )
    return State((LINK, ADDRESS, DEVICE, *peers))


def lacking(kernel: FakeKernel, want: State) -> list[Item]:
    have = kernel.observe(SCOPE)
    return [item for item in want.values() if item.key not in have or not satisfies(have[item.key], item)]


@given(plans(), plans())
def test_any_plan_follows_any_other_in_one_pass(have: State, want: State) -> None:
    kernel = FakeKernel()
    for plan in (have, want):
        assert kernel.apply(diff(plan, kernel.observe(SCOPE))).failed == ()
        assert lacking(kernel, plan) == []
        assert kernel.observe(SCOPE).keys() == plan.keys()
        assert diff(plan, kernel.observe(SCOPE)) == ()


@given(plans(), plans())
def test_a_network_that_stays_is_never_without_a_peer(have: State, want: State) -> None:
    kernel = FakeKernel()
    kernel.apply(diff(have, State()))
    stays = networks(have.values()) & networks(want.values())
    for op in diff(want, have):
        kernel.apply([op])
        # A swap takes two steps, and what is between them is with the one or the other or nobody for a moment.
        if not swaps(have, want):
            assert stays <= networks(kernel.items)


def networks(items: Iterable[Item]) -> set[IPNetwork]:
    return {net for item in items if isinstance(item, WireguardPeer) for net in item.allowed}


def swaps(have: State, want: State) -> bool:
    """Whether a peer that stays gives a network away."""
    return any(
        isinstance(item, WireguardPeer)
        and isinstance(new := want.get(item.key), WireguardPeer)
        and bool(item.allowed - new.allowed)
        for item in have.values()
    )


@given(st.integers(1, 200), st.booleans())
def test_a_peer_that_roams_is_not_fought(port: int, live: bool) -> None:
    want = State((LINK, ADDRESS, DEVICE, peer(2)))
    elsewhere = replace(peer(2), endpoint=Endpoint(ip_address("203.0.113.1"), port), live=live)
    ops = diff(want, State((LINK, ADDRESS, DEVICE, elsewhere)))
    assert bool(ops) != live


@st.composite
def records(draw: st.DrawFn) -> Lease:
    """What anybody may write: sound for the most part."""
    number = draw(st.integers(10, 16))
    values = {
        "PublicKey": draw(KEYS.map(str) | st.text(max_size=50)),
        "Port": draw(st.sampled_from((None, 0, 51820, 1, 65535, 65536, -1, "5"))),
    }
    said = {name: value for name, value in values.items() if value is not None}
    data = draw(st.sampled_from((json.dumps(said),) * 8 + ("[]", "", "null", '{"publickey":5}')))
    host = draw(st.sampled_from(("172.16.41.140", "172.16.41.131", "0.0.0.0", "10.2.10.5")))
    kind = draw(st.sampled_from(("wireguard",) * 6 + ("vxlan", "")))
    return Lease(
        subnet(f"10.2.{number}.0/24"), Attrs(IPv4Address(host), None, kind, data), created=draw(st.integers(9, 99))
    )


HONEST = tuple(
    Lease(
        subnet(f"10.2.{number}.0/24"),
        Attrs(IPv4Address(f"172.16.41.{number}"), None, "wireguard", json.dumps({"PublicKey": str(key(number))})),
        created=1,
    )
    for number in (41, 42)
)


@given(st.lists(records(), max_size=5, unique_by=lambda lease: lease.subnet))
def test_no_record_harms_an_older_one_or_gets_more_than_its_subnet(written: list[Lease]) -> None:
    network = config('{"Type":"wireguard"}')
    backend = from_config(network)
    assert isinstance(backend, Wireguard)
    heard = Network(backend.keyed(OWN), view(network, subnet("10.2.71.0/24"), underlay()))
    heard.fold(Snapshot(1, (*HONEST, *written)))
    peers = [item for item in State(heard.items()).values() if isinstance(item, WireguardPeer)]
    allowed = [net for item in peers for net in item.allowed]
    assert len(allowed) == len(set(allowed))
    assert {str(net) for net in allowed} <= {str(lease.subnet) for lease in (*HONEST, *written)}
    assert OWN.public not in {item.public_key for item in peers}
    assert PublicKey(bytes(32)) not in {item.public_key for item in peers}
    for honest in HONEST:
        assert set(backend.keyed(OWN).peer_items(heard.view, honest)) <= set(peers)
    for reason in heard.ignored.values():
        assert "\n" not in reason


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_any_data_is_a_peer_or_refused(data: str) -> None:
    network = config('{"Type":"wireguard"}')
    backend = from_config(network)
    assert isinstance(backend, Wireguard)
    lease = Lease(subnet("10.2.41.0/24"), Attrs(IPv4Address("172.16.41.132"), None, "wireguard", data))
    with suppress(Refused):
        (item,) = backend.keyed(OWN).peer_items(view(network), lease)
        assert isinstance(item, WireguardPeer)
