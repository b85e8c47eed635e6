"""Keys and values of leases; their bytes are in tests/golden/lease."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyflannel.lease.model import Attrs, Subnet
from pyflannel.lease.wire import (
    LONGEST_VALUE,
    BadRecord,
    decode_attrs,
    encode_attrs,
    parse_subnet_name,
    subnet_name,
)

V4, V6 = IPv4Network("10.12.13.0/24"), IPv6Network("fd00:12:13::/56")
HOST = IPv4Address("1.2.3.4")


@pytest.mark.parametrize(
    ("subnet", "name"),
    [
        (Subnet(V4), "10.12.13.0-24"),
        (Subnet(V4, V6), "10.12.13.0-24&fd00:12:13::-56"),
        (Subnet(ipv6=V6), "0.0.0.0-0&fd00:12:13::-56"),
        (Subnet(IPv4Network("128.0.0.0/1")), "128.0.0.0-1"),
        (Subnet(IPv4Network("10.12.13.2/31"), IPv6Network("fd00::2/127")), "10.12.13.2-31&fd00::2-127"),
    ],
)
def test_a_subnet_and_its_name_say_the_same(subnet: Subnet, name: str) -> None:
    assert subnet_name(subnet) == name
    assert parse_subnet_name(name) == subnet


@pytest.mark.parametrize("path", ["", "/coreos.com/network/subnets/", "docker/network/subnets/", "/subnets/"])
def test_the_path_to_all_subnets_may_stand_before_the_name(path: str) -> None:
    assert parse_subnet_name(f"{path}10.12.13.0-24") == Subnet(V4)


@pytest.mark.parametrize("path", ["old/", "/coreos.com/network/subnets/old/", "/", "//", "subnets/", "/n/subnets//"])
def test_a_key_elsewhere_names_no_subnet_for_it_would_be_a_second_key_of_that(path: str) -> None:
    with pytest.raises(BadRecord, match="does not lie in subnets/ itself"):
        parse_subnet_name(f"{path}10.12.13.0-24")


@pytest.mark.parametrize(
    "key",
    [
        # What Go's own test rejects (compat §3.1).
        "10",
        "10.12.13.0",
        "10.12.13-24",
        "10.12.13.300-24",
        "10.12.13.0-24hi",
        "&2001::-56",
        "10.12.13.0-24&:12:13:-56",
        "10.12.13.0-24&20011::-56",
        "10.12.13.0-24&2001-56",
        "10.12.13.0-24&2001::",
        "10.12.13.0-24&2001::-56hi",
        # What else Go rejects.
        "",
        "config",
        "10.12.13.0-24/",
        "10.12.13.0-24\n",
        "10.12.13.0-32",
        "10.12.13.0-33",
        "10.12.13.0-24&fd00:12:13::-128",
        "10.12.13.0-24&FD00:12:13::-56",
        "10.12.13.0-24&10.0.0.0-8",
        "010.12.13.0-24",
        "١٠.12.13.0-24",
    ],
)
def test_a_key_that_go_cannot_read_is_a_bad_record(key: str) -> None:
    with pytest.raises(BadRecord, match="key"):
        parse_subnet_name(key)


@pytest.mark.parametrize(
    "key",
    [
        "10.12.13.7-24",
        "10.12.13.0-024",
        "10.12.13.0-24&fd00:12:13::1-56",
        "10.12.13.0-24&fd00:12:13:0::-56",
        "10.12.13.0-24&fd00:0012:13::-56",
        "10.12.13.0-24&fd00:12:13::-056",
        "10.12.13.0-24&::-0",
        "0.0.0.0-00&fd00:12:13::-56",
        "0.0.0.0-0",
        "x10.12.13.0-24",
    ],
)
def test_a_second_spelling_of_a_subnet_is_a_bad_record_though_go_reads_it(key: str) -> None:
    with pytest.raises(BadRecord, match="key"):
        parse_subnet_name(key)


def test_a_huge_key_is_refused_at_once_and_not_repeated() -> None:
    for character in ("1", "\U0001f600"):
        with pytest.raises(BadRecord) as caught:
            parse_subnet_name(character * 1_000_000)
        assert len(str(caught.value)) < 200


def test_a_host_without_ipv4_writes_four_zeros() -> None:
    attrs = Attrs(None, IPv6Address("fd00::3"))
    assert encode_attrs(attrs) == '{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::3"}'


def test_keys_are_read_in_any_case_and_strange_ones_skipped() -> None:
    text = '{"publicip":"1.2.3.4","Future":{"a":[1,2]},"BACKENDTYPE":"vxlan","backendDATA":{"VNI":1}}'
    assert decode_attrs(text) == Attrs(HOST, None, "vxlan", '{"VNI":1}')


def test_a_key_may_be_written_with_escapes() -> None:
    assert decode_attrs(r'{"\u0050ublicIP":"1.2.3.4"}') == Attrs(HOST)


def test_the_last_of_two_spellings_counts() -> None:
    assert decode_attrs('{"PublicIP":"9.9.9.9","publicIP":"1.2.3.4"}') == Attrs(HOST)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        " {\n} ",
        '{"PublicIP":null}',
        '{"PublicIP":"0.0.0.0","PublicIPv6":"::","BackendType":null,"BackendData":null,"BackendV6Data": null }',
    ],
)
def test_what_is_missing_null_or_zero_is_none(text: str) -> None:
    assert decode_attrs(text) == Attrs(None)


def test_brackets_in_texts_and_side_by_side_are_not_nested() -> None:
    data = json.dumps(["[{" * 100, *([[{}]] * 100)])
    assert decode_attrs(f'{{"BackendData":{data}}}').backend_data == data


@pytest.mark.parametrize(
    "data",
    [
        '{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}',
        '{ "VNI" : 1.0e0,\n\t"x": [ ] }',
        r'"two\nlines \u00e9 \ud800"',
        "17",
        "true",
        "[ ]",
        '"}"',
    ],
)
def test_backend_data_stays_as_its_writer_spelled_it(data: str) -> None:
    attrs = decode_attrs(f'{{ "BackendData" : {data} , "PublicIP" : "1.2.3.4" }}')
    assert attrs == Attrs(HOST, None, "", data)
    assert decode_attrs(encode_attrs(attrs)) == attrs


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "does not begin with {"),
        ("[]", "does not begin with {"),
        ("null", "does not begin with {"),
        ("{", "no member begins at character 1"),
        ('{"PublicIP":"1.2.3.4"', "neither , nor } follows"),
        ('{"PublicIP":"1.2.3.4",}', "no member begins"),
        ('{"PublicIP":"1.2.3.4"}}', "something follows it"),
        ('{"PublicIP" "1.2.3.4"}', "no member begins"),
        ('{"PublicIP":}', "Expecting value"),
        ('{PublicIP:"1.2.3.4"}', "no member begins"),
        ('{"x":NaN}', "NaN is not JSON"),
        ('{"x":' + "9" * 5000 + "}", "not a JSON object"),
        ('{"x":' + "[" * 60_000, "nested too deeply"),
        ('{"x":' + "[" * 64 + "]" * 64 + "}", "nested too deeply: expected at most 64"),
        ('{"BackendType":"' + "x" * 65 + '"}', "BackendType has 65 characters: expected at most 64"),
        ('{"PublicIP":"1.2.3.4","BackendType":"' + "x" * 65 + '"}', "BackendType has 65 characters"),
        ('{"x":' + '{"x":' * 10_000, "nested too deeply"),
        ('{"' + "\\" * 60_000, "no member begins"),
        ('{"\\x":1}', "not a JSON object"),
        ('{"x":"' + "y" * LONGEST_VALUE + '"}', "characters: expected at most"),
        ('{"PublicIP":"1.2.3"}', "PublicIP is '1.2.3': expected an address like 172.16.41.131"),
        ('{"PublicIP":"1.2.3.04"}', "PublicIP is '1.2.3.04': expected"),
        ('{"PublicIP":"fd00::3"}', "PublicIP is 'fd00::3': expected"),
        ('{"PublicIP":""}', "PublicIP is '': expected"),
        ('{"PublicIP":16909060}', "PublicIP holds an integer: expected a plain text"),
        ('{"PublicIPv6":"1.2.3.4"}', "PublicIPv6 is '1.2.3.4': expected an address like fd00:41::131"),
        ('{"PublicIPv6":"fe80::1%eth0"}', "without a zone"),
        ('{"BackendType":["vxlan"]}', "BackendType holds a list: expected a plain text"),
        (r'{"BackendType":"vx\nlan"}', "BackendType holds a text: expected a plain text"),
        (r'{"BackendType":"\ud800"}', "BackendType holds a text: expected a plain text"),
    ],
)
def test_a_value_that_is_no_lease_is_a_bad_record_with_a_reason(text: str, reason: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decode_attrs(text)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300
