"""Whatever anybody writes to the store: laws of the way from its bytes to what the kernel should hold.

They are spelled out in ``tests.support.hostile``.  In short, for any records and any order in which they are heard:

  a. nothing but the documented errors comes out of a decoder, and nothing at all out of a network;
  b. each route lies inside the network and over nobody else's subnet, ours and the addresses of hosts included; each
     FDB entry and neighbour is of one host that is not ourselves;
  c. an honest peer keeps each of its items, unless a record *older* than the peer's conflicts with it: whoever comes
     later harms nobody, and what stands under our own key harms nobody whatever its age;
  d. a record that is left out is listed under its key, with a reason that fits into a line;
  e. the order does not matter, and when such records are gone nothing is left of them.
"""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from pyflannel.lease.model import Changes, Lease, Snapshot
from pyflannel.lease.wire import subnet_name
from tests.fuzz.breed import BACKENDS, BOUNDS, HOSTS4, HOSTS6, LENGTHS, MACS, NETS4, NETS6, NETWORKS, NETWORKS6, NUMBERS
from tests.support.hostile import OLD, WORLDS, YOUNG, Record, World, judge, judge_config
from tests.support.pipeline import examples

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
).map(json.dumps)
"""With NaN and the infinities, which Python writes and JSON has not."""


def texts(usual: st.SearchStrategy[str], *pool: str) -> st.SearchStrategy[str]:
    """As JSON: mostly what belongs there, else what an attacker would put there, or anything."""
    return st.one_of(usual, usual, st.sampled_from(pool), st.text(max_size=20)).map(json.dumps)


def either_case(key: str) -> st.SearchStrategy[str]:
    return st.sampled_from((key, key, key, key.lower(), key.upper()))


@st.composite
def objects(draw: st.DrawFn, /, **members: st.SearchStrategy[str]) -> str:
    """The text of an object with most of these members, in any case and order, some of them twice, some of them odd."""
    pairs = [(draw(either_case(key)), draw(value)) for key, value in members.items() if draw(st.integers(0, 9))]
    if pairs and not draw(st.integers(0, 9)):
        pairs.append((draw(st.sampled_from(pairs))[0], draw(JSON_VALUES)))
    if not draw(st.integers(0, 9)):
        pairs = draw(st.permutations(pairs))
    space = draw(st.sampled_from(("", "", "", " ", "\n\t")))
    return "{" + f",{space}".join(f'"{key}":{space}{value}' for key, value in pairs) + "}"


def data() -> st.SearchStrategy[str]:
    macs = st.integers(0, 4).map(lambda number: f"02:00:00:09:00:0{number}")
    vni = st.sampled_from(("1", "1", "1", "70000", *NUMBERS))
    return st.one_of(objects(VNI=vni, VtepMAC=texts(macs, *MACS)), objects(VtepMAC=texts(macs, *MACS)), JSON_VALUES)


def values() -> st.SearchStrategy[bytes]:
    hosts = st.integers(131, 145).map(lambda number: f"172.16.41.{number}")
    hosts6 = st.integers(0x131, 0x145).map(lambda number: f"2001:db8::{number:x}")
    sound = objects(
        PublicIP=texts(hosts, *HOSTS4),
        PublicIPv6=st.just("null") | texts(hosts6, *HOSTS6),
        BackendType=st.sampled_from(("vxlan",) * 9 + ("host-gw",)).map(json.dumps),
        BackendData=data(),
        BackendV6Data=data(),
    ).map(lambda text: text.encode(errors="replace"))
    return st.one_of(sound, sound, sound, JSON_VALUES.map(str.encode), st.binary(max_size=40), mangled(sound))


@st.composite
def mangled(draw: st.DrawFn, sound: st.SearchStrategy[bytes]) -> bytes:
    """With a piece cut out and another put in."""
    value = draw(sound)
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.binary(max_size=6)) + value[at + draw(st.integers(0, 20)) :]


def names() -> st.SearchStrategy[bytes]:
    nets = st.integers(0, 255).map(lambda number: f"10.2.{number}.0-24")
    nets6 = st.integers(1, 99).map(lambda number: f"fd00:2:0:{number}::-64")
    single = nets | st.sampled_from(NETS4)
    double = st.builds(lambda one, other: f"{one}&{other}", single, nets6 | st.sampled_from(NETS6))
    return st.one_of(single.map(str.encode), double.map(str.encode), st.binary(max_size=20))


@st.composite
def attacks(draw: st.DrawFn) -> list[Record]:
    """What anybody writes: mostly later than the honest peers did."""
    pairs = draw(st.lists(st.tuples(names(), values()), max_size=6))
    ages = st.sampled_from((YOUNG, YOUNG, YOUNG + 1, YOUNG + 2, OLD))
    return [Record(name, value, draw(ages)) for name, value in pairs]


@examples(400)
@given(st.sampled_from(list(WORLDS.values())), attacks(), st.integers(0, 99))
def test_no_record_harms_anybody_older(world: World, records: list[Record], seed: int) -> None:
    judge(world, records, seed)


@examples(200)
@given(st.sampled_from(list(WORLDS.values())), values(), st.sampled_from((OLD, YOUNG)))
def test_whatever_stands_under_our_own_key_nothing_else_changes(world: World, value: bytes, created: int) -> None:
    forged = replace(world.own, value=value, created=created)
    judge(world, [forged])
    event = forged.understood()
    heard = world.network(Snapshot(1, world.honest), Changes(2, (world.own.understood(),)), Changes(3, (event,)))
    assert set(heard.items()) == world.wanted


@examples(200)
@given(st.sampled_from(list(WORLDS.values())), values(), st.integers(0, 9))
def test_a_peers_record_that_becomes_unreadable_changes_nothing(world: World, value: bytes, number: int) -> None:
    lease = world.honest[number % len(world.honest)]
    event = Record(subnet_name(lease.subnet).encode(), value).understood()
    if not isinstance(event, Lease):
        heard = world.network(Snapshot(1, world.honest), Changes(2, (event,)))
        assert set(heard.items()) == world.wanted
        assert heard.table.unreadable == {event.key: event.reason}


def configs() -> st.SearchStrategy[str]:
    flags = st.sampled_from(("true", "true", "false", "null", "1"))
    lengths, bounds = st.sampled_from(LENGTHS), texts(st.just("0.0.0.0"), *BOUNDS)
    numbers = st.integers(0, 70_000).map(str) | st.sampled_from(NUMBERS)
    backend = objects(Type=texts(st.just("vxlan"), *BACKENDS), VNI=numbers, Port=numbers, MTU=numbers, Learning=flags)
    plain = {"Network": texts(st.just("10.2.0.0/16"), *NETWORKS), "Backend": st.just('{"Type":"vxlan"}') | backend}
    ipv6 = {"EnableIPv6": flags, "IPv6Network": texts(st.just("fd00:2::/48"), *NETWORKS6)}
    ranges = {"SubnetLen": lengths, "SubnetMin": bounds, "SubnetMax": bounds, "IPv6SubnetLen": lengths}
    return st.one_of(
        objects(**plain), objects(**plain, **ipv6), objects(**plain, **ranges), objects(**plain, **ipv6, **ranges)
    )


@examples(1000)
@given(configs() | JSON_VALUES | st.text() | mangled(configs().map(lambda text: text.encode(errors="replace"))))
@example('{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan"}}')
def test_any_configuration_is_a_usable_network_or_an_error_that_names_the_key(text: str | bytes) -> None:
    judge_config(text if isinstance(text, str) else text.decode(errors="replace"))
