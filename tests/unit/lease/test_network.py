"""Every rule and every worked value of compat §2."""

from __future__ import annotations

import json

import pytest

from pyflannel.lease.network import ConfigError, IPv4Range, IPv6Range, NetworkConfig, parse_network_config

VXLAN = '"Backend":{"Type":"vxlan"}'


def ipv4(members: str) -> IPv4Range:
    """The IPv4 half of the network that ``{members}`` configures."""
    config = parse_network_config(f"{{{members},{VXLAN}}}")
    assert config.warnings == ()
    assert config.ipv6 is None
    assert config.ipv4 is not None
    return config.ipv4


def ipv6(members: str) -> IPv6Range:
    """The IPv6 half of the IPv6-only network that ``{members}`` configures."""
    config = parse_network_config(f'{{"EnableIPv4":false,"EnableIPv6":true,{members},{VXLAN}}}')
    assert config.warnings == ()
    assert config.ipv4 is None
    assert config.ipv6 is not None
    return config.ipv6


def numbers(span: IPv4Range | IPv6Range) -> tuple[str, int, str, str]:
    return str(span.network), span.subnet_len, str(span.subnet_min), str(span.subnet_max)


def error(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_network_config(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("network", "subnet_len", "low", "high"),
    [
        ("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0"),
        ("10.0.0.0/8", 24, "10.0.1.0", "10.255.255.0"),
        ("10.5.0.0/22", 24, "10.5.1.0", "10.5.3.0"),
        ("10.5.0.0/23", 25, "10.5.0.128", "10.5.1.128"),
        ("10.5.5.0/24", 26, "10.5.5.64", "10.5.5.192"),
        ("10.5.5.0/28", 30, "10.5.5.4", "10.5.5.12"),
        ("254.0.0.0/8", 24, "254.0.1.0", "254.255.255.0"),
    ],
)
def test_ipv4_defaults_follow_the_size_of_the_network(network: str, subnet_len: int, low: str, high: str) -> None:
    assert numbers(ipv4(f'"Network":"{network}"')) == (network, subnet_len, low, high)


@pytest.mark.parametrize(
    ("network", "subnet_len", "low", "high"),
    [
        ("fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::"),
        ("fc00::/62", 64, "fc00:0:0:1::", "fc00:0:0:3::"),
        ("fc00::/63", 65, "fc00::8000:0:0:0", "fc00:0:0:1:8000::"),
        ("fc00::/124", 126, "fc00::4", "fc00::c"),
        ("fd00::/8", 64, "fd00:0:0:1::", "fdff:ffff:ffff:ffff::"),
    ],
)
def test_ipv6_defaults_follow_the_size_of_the_network(network: str, subnet_len: int, low: str, high: str) -> None:
    assert numbers(ipv6(f'"IPv6Network":"{network}"')) == (network, subnet_len, low, high)


def test_given_ipv4_values_are_kept() -> None:
    members = '"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0","SubnetMax":"10.3.8.0","SubnetLen":28'
    assert numbers(ipv4(members)) == ("10.3.0.0/16", 28, "10.3.5.0", "10.3.8.0")


def test_given_ipv6_values_are_kept() -> None:
    members = (
        '"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:1::","IPv6SubnetMax":"fc00:0:0:f::","IPv6SubnetLen":124'
    )
    assert numbers(ipv6(members)) == ("fc00::/48", 124, "fc00:0:0:1::", "fc00:0:0:f::")


def test_both_families_together() -> None:
    config = parse_network_config(
        f'{{"EnableIPv6":true,"Network":"10.3.0.0/16","IPv6Network":"fc00::/48","EnableNFTables":true,{VXLAN}}}'
    )
    assert config.ipv4 is not None
    assert config.ipv6 is not None
    assert numbers(config.ipv4) == ("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0")
    assert numbers(config.ipv6) == ("fc00::/48", 64, "fc00:0:0:1::", "fc00:0:0:ffff::")
    assert config.nftables is True
    assert any("EnableNFTables" in warning for warning in config.warnings)


def test_host_bits_are_cleared_silently() -> None:
    assert str(ipv4('"Network":"10.3.4.5/16"').network) == "10.3.0.0/16"
    assert str(ipv6('"IPv6Network":"fc00::1/48"').network) == "fc00::/48"


@pytest.mark.parametrize(
    "unset", ['"SubnetLen":0', '"SubnetLen":null', '"SubnetMin":"0.0.0.0"', '"SubnetMax":"0.0.0.0"']
)
def test_zero_counts_as_not_given_for_ipv4(unset: str) -> None:
    assert ipv4(f'"Network":"10.3.0.0/16",{unset}') == ipv4('"Network":"10.3.0.0/16"')


@pytest.mark.parametrize(
    "unset",
    [
        '"IPv6SubnetLen":0',
        '"IPv6SubnetMin":"::"',
        '"IPv6SubnetMax":"::"',
        '"IPv6SubnetMin":null',
        '"IPv6SubnetMax":null',
    ],
)
def test_zero_counts_as_not_given_for_ipv6(unset: str) -> None:
    assert ipv6(f'"IPv6Network":"fc00::/48",{unset}') == ipv6('"IPv6Network":"fc00::/48"')


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('"SubnetLen":24', 'Network is missing: expected an IPv4 range such as "10.2.0.0/16"'),
        ('"Network":null', 'Network holds null: expected an IPv4 range such as "10.2.0.0/16"'),
        ('"Network":10', 'Network holds an integer (10): expected an IPv4 range such as "10.2.0.0/16"'),
        ('"Network":""', 'Network holds a text (""): expected an IPv4 range such as "10.2.0.0/16"'),
        ('"Network":"10.3.0.0"', 'Network holds a text ("10.3.0.0"): expected an IPv4 range such as "10.2.0.0/16"'),
        (
            '"Network":"10.3.0.0/33"',
            'Network holds a text ("10.3.0.0/33"): expected an IPv4 range such as "10.2.0.0/16"',
        ),
        (
            '"Network":"10.3.0.0/255.255.0.0"',
            'Network holds a text ("10.3.0.0/255.255.0.0"): expected an IPv4 range such as "10.2.0.0/16"',
        ),
        ('"Network":"fc00::/48"', 'Network holds a text ("fc00::/48"): expected an IPv4 range such as "10.2.0.0/16"'),
        (
            '"Network":"0.0.0.0/0"',
            'Network 0.0.0.0/0 is every address there is: expected an IPv4 range such as "10.2.0.0/16"',
        ),
        ('"Network":"10.5.5.0/29"', "Network 10.5.5.0/29 is too small: its prefix length must be at most 28"),
        ('"Network":"10.3.0.0/16","SubnetLen":31', "SubnetLen 31 leaves no usable subnet: it must be at most 30"),
        (
            '"Network":"10.5.0.0/16","SubnetLen":17',
            "SubnetLen 17 makes fewer than four subnets of Network 10.5.0.0/16: it must be at least 18",
        ),
        (
            '"Network":"10.5.0.0/16","SubnetLen":-1',
            "SubnetLen -1 is out of range: expected an integer of at least 0",
        ),
        (
            '"Network":"10.5.0.0/16","SubnetLen":24.0',
            "SubnetLen holds a number with a fraction or an exponent (24.0): expected an integer of at least 0",
        ),
        (
            '"Network":"10.5.0.0/16","SubnetLen":"24"',
            'SubnetLen holds a text ("24"): expected an integer of at least 0',
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMin":"10.4.0.0"',
            "SubnetMin 10.4.0.0 lies outside Network 10.3.0.0/16: expected an address in it",
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMax":"10.2.255.0"',
            "SubnetMax 10.2.255.0 lies outside Network 10.3.0.0/16: expected an address in it",
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMin":"10.3.5.1"',
            "SubnetMin 10.3.5.1 is not where a /24 begins: expected such an address, as 10.3.5.0 is",
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMax":"10.3.5.128"',
            "SubnetMax 10.3.5.128 is not where a /24 begins: expected such an address, as 10.3.5.0 is",
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMin":"10.3.5.0/24"',
            'SubnetMin holds a text ("10.3.5.0/24"): expected an IPv4 address without a prefix length',
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMin":null',
            "SubnetMin holds null: expected an IPv4 address without a prefix length",
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMax":"fc00::"',
            'SubnetMax holds a text ("fc00::"): expected an IPv4 address without a prefix length',
        ),
        (
            '"Network":"10.3.0.0/16","SubnetMin":"10.3.9.0","SubnetMax":"10.3.5.0"',
            "SubnetMin 10.3.9.0 lies above SubnetMax 10.3.5.0: expected room for at least one subnet between them",
        ),
        ('"Network":"10.3.0.0/16","EnableIPv4":1', "EnableIPv4 holds an integer (1): expected true or false"),
        ('"Network":"10.3.0.0/16","EnableIPv6":"no"', 'EnableIPv6 holds a text ("no"): expected true or false'),
        ('"Network":"10.3.0.0/16","EnableNFTables":0', "EnableNFTables holds an integer (0): expected true or false"),
    ],
)
def test_a_wrong_ipv4_value_is_named_with_what_was_expected(members: str, message: str) -> None:
    assert error(f"{{{members},{VXLAN}}}") == message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ('"IPv6SubnetLen":64', 'IPv6Network is missing: expected an IPv6 range such as "fd00:10:2::/48"'),
        (
            '"IPv6Network":"10.3.0.0/16"',
            'IPv6Network holds a text ("10.3.0.0/16"): expected an IPv6 range such as "fd00:10:2::/48"',
        ),
        (
            '"IPv6Network":"fe80::%eth0/64"',
            'IPv6Network holds a text ("fe80::%eth0/64"): expected an IPv6 range such as "fd00:10:2::/48"',
        ),
        (
            '"IPv6Network":"::/0"',
            'IPv6Network ::/0 is every address there is: expected an IPv6 range such as "fd00:10:2::/48"',
        ),
        ('"IPv6Network":"fc00::/125"', "IPv6Network fc00::/125 is too small: its prefix length must be at most 124"),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetLen":127',
            "IPv6SubnetLen 127 leaves no usable subnet: it must be at most 126",
        ),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetLen":49',
            "IPv6SubnetLen 49 makes fewer than four subnets of IPv6Network fc00::/48: it must be at least 50",
        ),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc01::"',
            "IPv6SubnetMin fc01:: lies outside IPv6Network fc00::/48: expected an address in it",
        ),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetMax":"fc00::1"',
            "IPv6SubnetMax fc00::1 is not where a /64 begins: expected such an address, as fc00:: is",
        ),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetMin":"10.3.1.0"',
            'IPv6SubnetMin holds a text ("10.3.1.0"): expected an IPv6 address without a prefix length',
        ),
        (
            '"IPv6Network":"fc00::/48","IPv6SubnetMin":"fc00:0:0:9::","IPv6SubnetMax":"fc00:0:0:5::"',
            "IPv6SubnetMin fc00:0:0:9:: lies above IPv6SubnetMax fc00:0:0:5::: "
            "expected room for at least one subnet between them",
        ),
    ],
)
def test_a_wrong_ipv6_value_is_named_with_what_was_expected(members: str, message: str) -> None:
    assert error(f'{{"EnableIPv4":false,"EnableIPv6":true,{members},{VXLAN}}}') == message


def test_a_network_without_any_family_is_refused() -> None:
    assert error('{"EnableIPv4":false,"Network":"10.3.0.0/16"}') == (
        "EnableIPv4 is false and EnableIPv6 is not true: expected at least one of them to be true"
    )


def test_a_family_that_is_off_is_not_checked_but_mentioned() -> None:
    config = parse_network_config(
        f'{{"Network":"10.3.0.0/16","IPv6Network":"nonsense","IPv6SubnetLen":"x","IPv6SubnetMin":7,{VXLAN}}}'
    )
    assert config.ipv6 is None
    assert config.warnings == ("IPv6Network is given, but has no effect as long as EnableIPv6 is not true",)


@pytest.mark.parametrize("key", ["network", "NETWORK", "nEtWoRk"])
def test_keys_match_in_any_case(key: str) -> None:
    assert str(ipv4(f'"{key}":"10.3.0.0/16"').network) == "10.3.0.0/16"


def test_of_two_spellings_of_a_key_the_last_counts() -> None:
    assert str(ipv4('"Network":"10.3.0.0/16","network":"10.4.0.0/16"').network) == "10.4.0.0/16"


def test_a_null_switch_leaves_the_default() -> None:
    assert ipv4('"Network":"10.3.0.0/16","EnableIPv4":null,"EnableIPv6":null,"EnableNFTables":null')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("null", "null instead of an object"),
        ('{"Network":"10.3.0.0/16"}}', "Extra data"),
        ('{"Network":"10.3.0.0/16"', "delimiter"),
        ('{"Network":"10.3.0.0/16","SubnetLen":024}', "delimiter"),
    ],
)
def test_text_that_is_no_json_object_is_refused(text: str, reason: str) -> None:
    message = error(text)
    assert message.startswith("the network configuration is not a JSON object: ")
    assert reason in message


def test_an_absent_backend_means_udp_and_a_warning_that_the_documentation_promises_vxlan() -> None:
    config = parse_network_config('{"Network":"10.3.0.0/16"}')
    assert config.backend_type == "udp"
    assert config.backend_options == {}
    (warning,) = config.warnings
    assert "udp" in warning
    assert "documentation promises vxlan" in warning


@pytest.mark.parametrize("backend", ["{}", '{"Type":""}', '{"Type":null}', '{"VNI":1}'])
def test_a_backend_without_a_type_is_refused(backend: str) -> None:
    assert error(f'{{"Network":"10.3.0.0/16","Backend":{backend}}}') == (
        'Backend.Type is missing or empty: expected the name of a backend, such as "vxlan"'
    )


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("null", 'Backend holds null: expected an object such as {"Type":"vxlan"}'),
        ('"vxlan"', 'Backend holds a text ("vxlan"): expected an object such as {"Type":"vxlan"}'),
        ('[{"PSK":"s3cret"}]', 'Backend holds a list: expected an object such as {"Type":"vxlan"}'),
        ('{"Type":7}', "Backend.Type holds an integer: expected a text"),
    ],
)
def test_a_backend_that_is_no_object_with_a_type_is_refused(backend: str, message: str) -> None:
    assert error(f'{{"Network":"10.3.0.0/16","Backend":{backend}}}') == message


def test_the_backend_type_is_lower_cased_and_its_options_are_handed_on_whole() -> None:
    config = parse_network_config('{"Network":"10.3.0.0/16","backend":{"type":"VXLAN","VNI":7,"Nested":{"a":[1]}}}')
    assert config.backend_type == "vxlan"
    assert config.backend_options == {"type": "VXLAN", "VNI": 7, "Nested": {"a": [1]}}


def test_an_unknown_key_is_a_warning_with_the_nearest_known_one() -> None:
    config = parse_network_config(f'{{"Network":"10.3.0.0/16","SubnetLength":24,"Comment":"ours",{VXLAN}}}')
    assert config.warnings == (
        "SubnetLength is not a key we know, and has no effect: did you mean SubnetLen?",
        "Comment is not a key we know, and has no effect",
    )


def test_the_configuration_of_the_readme() -> None:
    config = parse_network_config(
        json.dumps({"Network": "10.2.0.0/16", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}, indent=4)
    )
    assert isinstance(config, NetworkConfig)
    assert config.ipv4 is not None
    assert numbers(config.ipv4) == ("10.2.0.0/16", 24, "10.2.1.0", "10.2.255.0")
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ('"Network":"0.0.0.0/1"', "Network 0.0.0.0/1 has addresses of no host in it (0.0.0.0/8)"),
        ('"Network":"127.0.0.0/8"', "Network 127.0.0.0/8 has loopback addresses in it (127.0.0.0/8)"),
        ('"Network":"126.0.0.0/7"', "Network 126.0.0.0/7 has loopback addresses in it (127.0.0.0/8)"),
        ('"Network":"239.1.0.0/16"', "Network 239.1.0.0/16 has multicast addresses in it (224.0.0.0/4)"),
        (
            '"Network":"255.255.255.0/24"',
            "Network 255.255.255.0/24 has the broadcast address in it (255.255.255.255/32)",
        ),
    ],
)
def test_a_network_that_no_container_can_live_in_is_refused(members: str, what: str) -> None:
    assert error(f"{{{members},{VXLAN}}}") == f'{what}: expected an IPv4 range such as "10.2.0.0/16"'


@pytest.mark.parametrize("net", ["::/1", "::ffff:10.2.0.0/112", "fe80::/64", "ff05::/32"])
def test_an_ipv6_network_that_no_container_can_live_in_is_refused(net: str) -> None:
    assert "IPv6Network" in error(f'{{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"{net}",{VXLAN}}}')


def test_a_huge_configuration_is_refused_at_once_and_not_repeated() -> None:
    huge = "x" * 1_000_000
    assert error(huge) == "the network configuration has 1000000 characters: expected at most 65536"
    assert error(f'{{"Network":"10.3.0.0/16","Backend":{{"Type":"{huge[:60_000]}"}}}}') == (
        'Backend.Type has 60000 characters: expected the name of a backend, such as "vxlan"'
    )


def test_a_huge_number_is_cut_short() -> None:
    message = error(f'{{"Network":"10.3.0.0/16","SubnetLen":{"9" * 4000},{VXLAN}}}')
    assert message.endswith("9… leaves no usable subnet: it must be at most 30")
    assert len(message) < 150
