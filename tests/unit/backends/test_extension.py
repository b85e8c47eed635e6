from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.backends import from_config
from pyflannel.backends.api import Refused
from pyflannel.backends.extension import (
    LONGEST_DATA,
    Extension,
    data_flaw,
    json_text,
    own_variables,
    peer_variables,
    read_data,
)
from pyflannel.lease.model import Attrs, Lease, Subnet
from pyflannel.lease.network import ConfigError
from pyflannel.lease.wire import decode_attrs, encode_attrs
from pyflannel.state import Commands, Hook, Scope
from tests.support.builders import config, subnet, underlay, view

ROUTES = (
    '{"Type":"extension","SubnetAddCommand":"ip route add $SUBNET via $PUBLIC_IP",'
    '"SubnetRemoveCommand":"ip route del $SUBNET"}'
)
COMMANDS = Commands("ip route add $SUBNET via $PUBLIC_IP", "ip route del $SUBNET")
HERE, THERE = IPv4Address("172.16.41.131"), IPv4Address("172.16.41.132")
HERE_V6, THERE_V6 = IPv6Address("2001:db8::131"), IPv6Address("2001:db8::132")
NET, NET_V6 = IPv4Network("10.2.41.0/24"), IPv6Network("fd00:2:0:41::/64")
PEER = Lease(Subnet(NET), Attrs(THERE, None, "extension"))


def extension(text: str = ROUTES, ipv6: bool = False) -> Extension:
    made = from_config(config(text, ipv6_network="fd00:2::/48" if ipv6 else None))
    assert isinstance(made, Extension)
    return made


# The configuration.


def test_all_commands_are_read_and_each_is_optional() -> None:
    names = ("PreStartup", "PostStartup", "Shutdown", "SubnetAdd", "SubnetRemove", "SubnetCheck")
    options = {"Type": "extension", "CommandTimeout": 7, "ParallelCommands": 4}
    made = extension(json.dumps(options | {f"{name}Command": f" do {name}\n" for name in names}))
    assert [made.startup.pre, made.startup.post, made.startup.shutdown] == [f"do {name}" for name in names[:3]]
    assert [made.commands.add, made.commands.remove, made.commands.check] == [f"do {name}" for name in names[3:]]
    assert (made.startup.limit, made.commands.limit, made.at_once) == (7.0, 7.0, 4)
    assert made.warnings == ()
    bare = extension('{"Type":"extension"}')
    assert (bare.startup.pre, bare.commands.add, bare.commands.limit, bare.at_once) == ("", "", 60.0, 1)
    assert bare.warnings == ()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ('"SubnetAddCommand":["ip","route"]', "Backend.SubnetAddCommand holds a list: expected a text"),
        ('"PreStartupCommand":"a\\u0000b"', "Backend.PreStartupCommand has a NUL character in it"),
        ('"PreStartupCommand":"a\\ud800b"', "Backend.PreStartupCommand has half a character in it"),
        ('"CommandTimeout":0', "Backend.CommandTimeout 0 is out of range"),
        ('"ParallelCommands":65', "Backend.ParallelCommands 65 is out of range"),
    ],
)
def test_a_wrong_option_is_named(option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        extension(f'{{"Type":"extension",{option}}}')


def test_what_would_never_be_removed_and_what_nobody_knows_are_warned_of() -> None:
    first, second = extension('{"Type":"extension","SubnetAddCommand":"x","SubnetAddCommands":"y"}').warnings
    assert first.startswith("Backend.SubnetAddCommands is not a key we know")
    assert second.startswith("Backend.SubnetRemoveCommand is missing")


# What is published.


def test_without_a_first_command_there_is_no_backend_data() -> None:
    written = encode_attrs(extension().attrs(underlay(), {}))
    assert written == '{"PublicIP":"172.16.41.131","PublicIPv6":null,"BackendType":"extension"}'


@pytest.mark.parametrize(
    ("printed", "spelled"),
    [
        ("", '""'),
        ("c6:d2:32:6f:8f:44", '"c6:d2:32:6f:8f:44"'),
        ("aGVsbG8+d29ybGQ/Zm9v=", '"aGVsbG8+d29ybGQ/Zm9v="'),
        ('<a href="x">&amp;\\', '"\\u003ca href=\\"x\\"\\u003e\\u0026amp;\\\\"'),
        ("two\nlines\tand\x01\x7f", '"two\\nlines\\tand\\u0001\x7f"'),
        ("füß\u2028\u2029😀", '"füß\\u2028\\u2029😀"'),
    ],
)
def test_what_was_printed_is_published_as_go_spells_it(printed: str, spelled: str) -> None:
    made = replace(extension(), printed=printed)
    written = encode_attrs(made.attrs(underlay(), {}))
    assert written == (
        f'{{"PublicIP":"172.16.41.131","PublicIPv6":null,"BackendType":"extension","BackendData":{spelled}}}'
    )
    assert read_data(decode_attrs(written).backend_data) == printed


def test_the_interfaces_own_address_is_published_whatever_the_public_one_is() -> None:
    under = replace(underlay(ipv6=str(HERE_V6)), public_ip=IPv4Address("203.0.113.9"))
    assert extension().attrs(under, {}) == Attrs(HERE, None, "extension")
    assert extension(ipv6=True).attrs(under, {}) == Attrs(HERE, HERE_V6, "extension")


def test_what_was_printed_last_can_be_read_from_our_own_lease() -> None:
    made = extension('{"Type":"extension","PreStartupCommand":"print"}')
    written = replace(made, printed="c6:d2").attrs(underlay(), {})
    assert made.as_published(replace(PEER, attrs=written)).attrs(underlay(), {}) == written
    assert extension().as_published(replace(PEER, attrs=written)).printed is None
    assert made.as_published(replace(PEER, attrs=replace(written, backend_data="[]"))) == made


# Peers.


def test_a_peer_is_a_hook_with_what_it_publishes() -> None:
    lease = replace(PEER, attrs=replace(PEER.attrs, backend_data='"c6:d2"'))
    (hook,) = extension().peer_items(view(), lease)
    assert hook == Hook(COMMANDS, NET, None, THERE, None, "c6:d2")
    assert isinstance(hook, Hook)
    assert peer_variables(hook) == {
        "SUBNET": "10.2.41.0/24",
        "IPV6SUBNET": "",
        "PUBLIC_IP": "172.16.41.132",
        "PUBLIC_IPV6": "",
    }


def test_a_dual_stack_peer_is_one_hook_with_both_families() -> None:
    lease = Lease(Subnet(NET, NET_V6), Attrs(THERE, THERE_V6, "extension"))
    (hook,) = extension(ipv6=True).peer_items(view(), lease)
    assert isinstance(hook, Hook)
    assert peer_variables(hook) == {
        "SUBNET": "10.2.41.0/24",
        "IPV6SUBNET": "fd00:2:0:41::/64",
        "PUBLIC_IP": "172.16.41.132",
        "PUBLIC_IPV6": "2001:db8::132",
    }
    (ipv4_alone,) = extension().peer_items(view(), lease)
    assert ipv4_alone == Hook(COMMANDS, NET, None, THERE, None)


def test_with_no_command_for_peers_there_is_nothing_to_hold() -> None:
    assert extension('{"Type":"extension","PostStartupCommand":"true"}').peer_items(view(), PEER) == ()


@pytest.mark.parametrize(
    ("attrs", "said"),
    [
        (Attrs(THERE, None, "vxlan"), "publishes backend type 'vxlan', and ours is 'extension'"),
        (Attrs(THERE), "publishes backend type 'none', and ours is 'extension'"),
        (Attrs(HERE, None, "extension"), "which is our own"),
        (Attrs(None, THERE_V6, "extension"), "no address family in common"),
        (Attrs(THERE, None, "extension", '{"VtepMAC":"c6:d2"}'), "BackendData is no text"),
        (Attrs(THERE, None, "extension", "[1]"), "BackendData is no text"),
        (Attrs(THERE, None, "extension", '"a\\u0000b"'), "BackendData has a NUL character in it"),
        (Attrs(THERE, None, "extension", '"\\ud800"'), "BackendData has half a character in it"),
        (Attrs(THERE, None, "extension", f'"{"ü" * LONGEST_DATA}"'), "BackendData has 32768 bytes: expected at most"),
        (Attrs(THERE, None, "extension", '"'), "BackendData is no JSON"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_record_that_is_no_use_is_refused(attrs: Attrs, said: str) -> None:
    with pytest.raises(Refused, match=said):
        extension().peer_items(view(), replace(PEER, attrs=attrs))


@given(st.text(st.characters(), max_size=200))
def test_whatever_a_host_may_publish_its_peers_read_as_it_was(printed: str) -> None:
    if data_flaw(printed) is None:
        assert read_data(json_text(printed)) == printed
    else:
        with pytest.raises(Refused):
            read_data(json.dumps(printed))


def test_hooks_are_ours_and_what_another_backend_left() -> None:
    made = extension()
    assert made.scope(view()) == Scope(borrowed=frozenset(("ens33",)), hooks=True)
    assert (made.devices, made.self_items(view()), made.claims(PEER), made.published(PEER)) == ((), (), frozenset(), {})
    assert made.mtu(underlay(mtu=1400)) == 1400


# This host.


def test_commands_about_this_host_know_the_network_and_its_own_subnet() -> None:
    assert own_variables(view()) == {
        "NETWORK": "10.2.0.0/16",
        "IPV6NETWORK": "",
        "SUBNET": "10.2.71.0/24",
        "IPV6SUBNET": "",
        "PUBLIC_IP": "172.16.41.131",
        "PUBLIC_IPV6": "",
    }
    dual = view(
        config(ROUTES, ipv6_network="fd00:2::/48"),
        subnet("10.2.71.0/24", "fd00:2:0:71::/64"),
        underlay(ipv6=str(HERE_V6)),
    )
    assert own_variables(dual) == {
        "NETWORK": "10.2.0.0/16",
        "IPV6NETWORK": "fd00:2::/48",
        "SUBNET": "10.2.71.0/24",
        "IPV6SUBNET": "fd00:2:0:71::/64",
        "PUBLIC_IP": "172.16.41.131",
        "PUBLIC_IPV6": "2001:db8::131",
    }
