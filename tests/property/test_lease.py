"""Laws of the room ``lease/``, whatever the records say and in whatever order they come."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from pyflannel.lease.alloc import OutOfSubnets, Replace, Reuse, Take, choose
from pyflannel.lease.contest import Claim, Contest
from pyflannel.lease.model import Attrs, Changes, Event, Lease, Removed, Snapshot, Subnet, Unreadable
from pyflannel.lease.network import ConfigError, IPv4Range, IPv6Range, NetworkConfig, parse_network_config
from pyflannel.lease.table import LeaseTable, renew_in
from pyflannel.lease.wire import BadRecord, decode_attrs, encode_attrs, parse_subnet_name, subnet_name
from tests.support.builders import backend

REAL_VALUES = [
    '{"PublicIP":"1.2.3.4","PublicIPv6":null}',
    '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",'
    '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
    '{"PublicIP":"1.2.3.4","BackendType":"vxlan","BackendData":{"VtepMAC":"c6:d2:32:6f:8f:44"}}',
    '{"PublicIP":"1.2.3.4","PublicIPv6":"fd00::3","BackendType":"wireguard","BackendData":{"PublicKey":"aGk=","Port":1},'
    '"BackendV6Data":{"PublicKey":"aGk=","Port":2}}',
]
VXLAN_DATA = ['{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}', '{"VtepMAC":"C6-D2-32-6F-8F-44"}']
REAL_KEYS = ["/coreos.com/network/subnets/10.1.5.0-24", "10.12.13.0-24&fd00:12:13::-56", "0.0.0.0-0&fd00:12:13::-56"]
REAL_CONFIGS = [
    '{"Network":"10.3.0.0/16","SubnetLen":24,"SubnetMin":"10.3.5.0","Backend":{"Type":"vxlan","VNI":1}}',
    '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fc00::/48","IPv6SubnetLen":64}',
]


def networks4(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[IPv4Network]:
    return st.builds(
        lambda number, length: IPv4Network((number >> (32 - length) << (32 - length), length)),
        st.integers(0, 2**32 - 1),
        lengths,
    )


def networks6(lengths: st.SearchStrategy[int]) -> st.SearchStrategy[IPv6Network]:
    return st.builds(
        lambda number, length: IPv6Network((number >> (128 - length) << (128 - length), length)),
        # IPv4-mapped addresses are spelled in two ways, depending on the version of Python; no overlay uses them.
        st.integers(0, 2**128 - 1).filter(lambda number: number >> 32 != 0xFFFF),
        lengths,
    )


def subnets() -> st.SearchStrategy[Subnet]:
    ipv4, ipv6 = networks4(st.integers(1, 31)), networks6(st.integers(1, 127))
    return st.one_of(st.builds(Subnet, ipv4), st.builds(Subnet, ipv4, ipv6), st.builds(Subnet, st.none(), ipv6))


def mangled(texts: list[str]) -> st.SearchStrategy[str]:
    """Real texts with a piece cut out and another put in."""
    return st.builds(
        lambda text, start, length, insert: text[:start] + insert + text[start + length :],
        st.sampled_from(texts),
        st.integers(0, 150),
        st.integers(0, 20),
        st.text(st.sampled_from('{}[]":,\\0123456789.-&/afnultrue \x00é\ud800'), max_size=6) | st.text(max_size=6),
    )


JSON_TEXTS = st.sampled_from(
    ['{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}', '{ "a" : [ 1.50, null ] }', '"text \\"}{"', "0", "true", "[]", "{}"]
)
ATTRS = st.builds(
    Attrs,
    st.none() | st.integers(1, 2**32 - 1).map(IPv4Address),
    st.none() | st.integers(1, 2**128 - 1).filter(lambda number: number >> 32 != 0xFFFF).map(IPv6Address),
    st.sampled_from(["", "vxlan", "host-gw", "extension", 'qu"ote', "übergang"]),
    st.none() | JSON_TEXTS,
    st.none() | JSON_TEXTS,
)


def read_or_refused(text: str) -> Attrs | None:
    try:
        return decode_attrs(text)
    except BadRecord:
        return None


@given(subnets())
def test_a_subnet_survives_its_name(subnet: Subnet) -> None:
    assert parse_subnet_name(f"/prefix/subnets/{subnet_name(subnet)}") == subnet


@given(st.text() | mangled(REAL_KEYS))
def test_any_key_is_the_one_name_of_a_subnet_or_a_bad_record(key: str) -> None:
    with contextlib.suppress(BadRecord):
        assert subnet_name(parse_subnet_name(key)) == key.rpartition("/")[2]


@given(ATTRS, st.booleans())
def test_attributes_survive_their_record(attrs: Attrs, null_ipv6: bool) -> None:
    assert decode_attrs(encode_attrs(attrs, null_ipv6=null_ipv6)) == attrs


@given(st.text() | mangled(REAL_VALUES))
def test_any_value_is_attributes_that_survive_their_record_or_a_bad_record(text: str) -> None:
    with contextlib.suppress(BadRecord):
        attrs = decode_attrs(text)
        assert decode_attrs(encode_attrs(attrs)) == attrs


@given(mangled(REAL_VALUES))
def test_a_value_is_read_alike_with_a_space_before_it(text: str) -> None:
    # With it, the pattern for plain values does not match.
    assert read_or_refused(text) == read_or_refused(f" {text}")


@given(mangled(VXLAN_DATA))
def test_what_a_vxlan_peer_published_is_read_alike_with_a_space_before_it(data: str) -> None:
    def claims(text: str) -> frozenset[Claim]:
        peer = Lease(Subnet(IPv4Network("10.2.1.0/24")), Attrs(IPv4Address("1.2.3.4"), None, "vxlan", text))
        return backend().claims(peer)

    assert claims(data) == claims(f" {data}")


@given(st.text() | mangled(REAL_CONFIGS))
def test_any_configuration_is_a_usable_network_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        config = parse_network_config(text)
        for span in (config.ipv4, config.ipv6):
            if span is not None:
                assert int(span.subnet_min) <= int(span.subnet_max)
                assert span.subnet_len >= span.network.prefixlen + 2


# A small world, so that subnets overlap and claims are shared all the time.
SMALL4 = st.integers(26, 29).flatmap(
    lambda length: st.integers(0, (1 << (length - 25)) - 1).map(
        lambda block: IPv4Network((0x0A020000 + (block << (32 - length)), length))
    )
)
SMALL6 = st.integers(0, 3).map(lambda block: IPv6Network(((0xFD00 << 112) + (block << 64), 64)))
SMALL = st.one_of(st.builds(Subnet, SMALL4), st.builds(Subnet, SMALL4, SMALL6), st.builds(Subnet, st.none(), SMALL6))
LEASES = st.builds(
    lambda subnet, host, created: Lease(subnet, Attrs(IPv4Address(host)), created=created),
    SMALL,
    st.integers(1, 3),
    st.integers(0, 5),
)
CLAIMS: st.SearchStrategy[frozenset[Claim]] = st.frozensets(
    st.tuples(st.just("VTEP MAC"), st.integers(0, 4)), max_size=2
)
# Larger, so that chains of conflicts are as common as crowds.
ROOMY4 = st.one_of(st.just(23), st.just(26), st.just(29), st.just(29)).flatmap(
    lambda length: st.integers(0, (1 << (length - 22)) - 1).map(
        lambda block: IPv4Network((0x0A020000 + (block << (32 - length)), length))
    )
)
ROOMY = st.one_of(st.builds(Subnet, ROOMY4), st.builds(Subnet, ROOMY4, SMALL6))
RIVALS = st.builds(
    lambda subnet, host, created: Lease(subnet, Attrs(IPv4Address(host)), created=created),
    ROOMY,
    st.integers(1, 2) | st.integers(0x0A020000, 0x0A020000 + 1023),
    st.integers(0, 20),
)
PUTS = st.lists(st.tuples(RIVALS, CLAIMS), min_size=3, max_size=25)
Record = tuple[Lease, frozenset[Claim]]


def naive_winners(records: dict[Subnet, Record], own: Subnet | None) -> set[Lease]:
    """The definition, word for word: go through all records in rank order, keep what conflicts with none kept."""

    def rank(record: Record) -> tuple[bool, int, str]:
        return record[0].subnet != own, record[0].created, subnet_name(record[0].subnet)

    def conflict(one: Record, other: Record) -> bool:
        if own in (one[0].subnet, other[0].subnet):
            ours, theirs = (one[0], other[0]) if one[0].subnet == own else (other[0], one[0])
            return theirs.subnet.overlaps(ours.subnet) or within(theirs, ours.subnet)
        return (
            one[0].subnet.overlaps(other[0].subnet)
            or within(one[0], other[0].subnet)
            or within(other[0], one[0].subnet)
            or bool(one[1] & other[1])
        )

    nobody = frozenset[Claim]()
    kept: list[Record] = [] if own is None or own in records else [(Lease(own, Attrs(None)), nobody)]
    for record in sorted(records.values(), key=rank):
        if not any(conflict(record, other) for other in kept):
            kept.append(record)
    return {lease for lease, _ in kept if lease.subnet in records}


def within(lease: Lease, subnet: Subnet) -> bool:
    """Whether the host of ``lease`` is in ``subnet``."""
    host = lease.attrs.public_ip
    return host is not None and lease.subnet.ipv4 is not None and subnet.ipv4 is not None and host in subnet.ipv4


@settings(max_examples=400)
@given(st.data(), PUTS, st.none() | ROOMY)
def test_who_counts_follows_from_the_records_alone(data: st.DataObject, puts: list[Record], own: Subnet | None) -> None:
    removals = data.draw(st.lists(st.sampled_from([lease.subnet for lease, _ in puts]), max_size=8))
    moves: list[Record | Subnet] = data.draw(st.permutations([*puts, *removals]))
    contest = Contest(own)
    records: dict[Subnet, Record] = {}
    told: dict[Subnet, Lease] = {}
    for move in moves:
        if isinstance(move, Subnet):
            records.pop(move, None)
            outcome = contest.remove(move)
        else:
            records[move[0].subnet] = move
            outcome = contest.put(*move)
        for loss in outcome.lost:
            told.pop(loss.lease.subnet, None)
        for lease in outcome.won:
            assert told.get(lease.subnet) != lease, "a lease that counted already was said to have won"
            told[lease.subnet] = lease
        expected = naive_winners(records, own)
        assert set(contest.winners()) == expected
        assert {loss.lease for loss in contest.losses()} == {lease for lease, _ in records.values()} - expected
    assert set(told.values()) == set(contest.winners()), "whoever listens to the outcomes alone knows who counts"


EVENTS: st.SearchStrategy[Event] = st.one_of(
    LEASES,
    st.builds(Removed, SMALL),
    st.builds(lambda subnet: Unreadable(subnet_name(subnet), "not JSON"), SMALL),
)


@given(st.lists(st.lists(EVENTS, max_size=5), max_size=8))
def test_the_deltas_of_a_table_add_up_to_its_leases(batches: list[list[Event]]) -> None:
    table, told = LeaseTable(), dict[Subnet, Lease]()
    for revision, batch in enumerate(batches, start=1):
        delta = table.apply(Changes(revision, tuple(batch)))
        for lease in delta.gone:
            assert told.pop(lease.subnet) == lease
        told.update({lease.subnet: lease for lease in delta.put})
        assert told == dict(table.leases)


@given(st.lists(EVENTS, max_size=12))
def test_how_changes_are_cut_into_batches_does_not_matter(events: list[Event]) -> None:
    whole, pieces = LeaseTable(), LeaseTable()
    whole.apply(Changes(len(events) or 1, tuple(events)))
    for revision, event in enumerate(events, start=1):
        pieces.apply(Changes(revision, (event,)))
    assert dict(whole.leases) == dict(pieces.leases)
    assert dict(whole.unreadable) == dict(pieces.unreadable)


@given(st.lists(LEASES, max_size=8), st.lists(LEASES, max_size=8))
def test_a_snapshot_leaves_no_trace_of_what_was_before(before: list[Lease], after: list[Lease]) -> None:
    table, fresh = LeaseTable(), LeaseTable()
    table.apply_snapshot(Snapshot(5, tuple(before)))
    table.apply_snapshot(Snapshot(6, tuple(after)))
    fresh.apply_snapshot(Snapshot(6, tuple(after)))
    assert dict(table.leases) == dict(fresh.leases)


@given(st.floats(0.1, 1e6), st.floats(0, 1e6), st.floats(0, 1, exclude_max=True))
def test_a_renewal_is_always_due_before_the_end(ttl: float, margin: float, jitter: float) -> None:
    wait = renew_in(ttl, margin, jitter)
    assert 0 <= wait <= ttl / 3
    if margin < ttl:
        assert wait <= ttl - margin
    assert renew_in(ttl, margin, 0) * 0.9 <= wait * (1 + 1e-9)


ALLOC_CONFIGS = [
    parse_network_config(f'{{{members},"Backend":{{"Type":"vxlan"}}}}')
    for members in (
        '"Network":"10.2.0.0/24","SubnetLen":27',
        '"Network":"10.2.0.0/25","SubnetLen":29,"SubnetMin":"10.2.0.16","SubnetMax":"10.2.0.96"',
        '"EnableIPv6":true,"Network":"10.2.0.0/25","SubnetLen":28,"IPv6Network":"fd00::/62"',
        '"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/62","IPv6SubnetLen":64',
    )
]
US, US6 = IPv4Address("172.16.41.131"), IPv6Address("fd00:41::131")


def free_subnets(span: IPv4Range | IPv6Range | None, held: list[IPv4Network | IPv6Network]) -> set[str]:
    """All that is free in one family, found the slow way."""
    if span is None:
        return set()
    inside = (
        net
        for net in span.network.subnets(new_prefix=span.subnet_len)
        if int(span.subnet_min) <= int(net.network_address) <= int(span.subnet_max)
    )
    return {str(net) for net in inside if not any(net.version == at.version and net.overlaps(at) for at in held)}


@given(
    st.sampled_from(ALLOC_CONFIGS),
    st.lists(LEASES, max_size=8),
    st.none() | SMALL,
    st.lists(SMALL, max_size=2),
    st.integers(0, 99),
)
def test_a_free_subnet_is_taken_if_there_is_one_and_the_previous_one_if_it_is_free(
    config: NetworkConfig, leases: list[Lease], previous: Subnet | None, unreadable: list[Subnet], seed: int
) -> None:
    junk = [Unreadable(subnet_name(subnet), "not JSON") for subnet in unreadable]
    subnets_held = [lease.subnet for lease in leases] + unreadable
    held = [net for subnet in subnets_held for net in (subnet.ipv4, subnet.ipv6) if net is not None]
    free4, free6 = free_subnets(config.ipv4, held), free_subnets(config.ipv6, held)
    try:
        choice = choose(config, leases, US, US6, previous, Random(seed), unreadable=junk)
    except OutOfSubnets:
        assert (config.ipv4 is not None and not free4) or (config.ipv6 is not None and not free6)
        return
    assert isinstance(choice, Take)
    for got, before, free in (
        (choice.subnet.ipv4, previous and previous.ipv4, free4),
        (choice.subnet.ipv6, previous and previous.ipv6, free6),
    ):
        assert (str(got) in free) if free else got is None
        if str(before) in free:
            assert got == before


@given(st.sampled_from(ALLOC_CONFIGS), st.lists(LEASES, max_size=6), SMALL)
def test_a_lease_of_ours_gets_the_same_answer_whatever_the_others_and_the_chance(
    config: NetworkConfig, leases: list[Lease], subnet: Subnet
) -> None:
    ours = Lease(subnet, Attrs(US, US6))
    others = [lease for lease in leases if lease.subnet != subnet]
    answers = [choose(config, [*others[:at], ours, *others[at:]], US, US6, None, Random(at)) for at in range(3)]
    assert answers in ([Reuse(ours)] * 3, [Replace(ours)] * 3)
