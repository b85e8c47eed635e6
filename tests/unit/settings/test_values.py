from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.settings import values

WORD = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1)


class Fruit(StrEnum):
    APPLE = "apple"
    PEAR = "pear"


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.ipv4, "192.0.2.7", IPv4Address("192.0.2.7")),
        (values.ipv4, "", None),
        (values.ipv6, "2001:DB8::7", IPv6Address("2001:db8::7")),
        (values.ipv6, "", None),
        (values.ip, "192.0.2.7", IPv4Address("192.0.2.7")),
        (values.ip, "2001:db8::7", IPv6Address("2001:db8::7")),
        (values.ip, "", None),
        (values.listen_ip, "", IPv4Address("0.0.0.0")),
        (values.listen_ip, "localhost", IPv4Address("127.0.0.1")),
        (values.listen_ip, "::", IPv6Address("::")),
        (values.path, "/run/x", "/run/x"),
        (values.store_url, "", ""),
        (values.store_url, "local:/var/lib/leases", "local:/var/lib/leases"),
        (values.one_of(Fruit), "pear", Fruit.PEAR),
        (values.vmodule, "vxlan=2,etcd*=1", "vxlan=2,etcd*=1"),
        (values.vmodule, "", ""),
        (values.backtrace_at, "vxlan.py:12", "vxlan.py:12"),
        (values.backtrace_at, ":0", ":0"),
        (values.backtrace_at, "", ""),
    ],
)
def test_good_text_becomes_a_value(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (values.ipv4, "2001:db8::7", "an IPv4 address"),
        (values.ipv4, "192.0.2.256", "an IPv4 address"),
        (values.ipv4, "192.0.02.7", "an IPv4 address"),
        (values.ipv6, "192.0.2.7", "an IPv6 address"),
        (values.ipv6, "fe80::1%eth0", "an IPv6 address"),
        (values.ip, "host", "an IP address"),
        (values.listen_ip, "999.1.1.1", "an IP address"),
        (values.path, "", "a path"),
        (values.store_url, "etcd", "local:/path"),
        (values.store_url, "local:relative", "local:/path"),
        (values.one_of(Fruit), "plum", "one of apple, pear"),
        (values.vmodule, "vxlan", "pattern=N"),
        (values.vmodule, "vxlan=high", "pattern=N"),
        (values.vmodule, "=1", "pattern=N"),
        (values.backtrace_at, "vxlan.py", "file:line"),
        (values.endpoints, "", "at least one URL"),
        (values.endpoints, " , ", "at least one URL"),
    ],
)
def test_bad_text_is_answered_with_what_was_expected(read: Callable[[str], object], text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"expected {expected}"):
        read(text)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("http://172.16.41.130:2379", ("http://172.16.41.130:2379",)),
        ("https://a:2379, https://b:2379,", ("https://a:2379", "https://b:2379")),
        ("10.0.0.1:2379", ("http://10.0.0.1:2379",)),
        ("http://[2001:db8::1]:2379/", ("http://[2001:db8::1]:2379/",)),
        ("http://user:p%40ss@etcd.example", ("http://user:p%40ss@etcd.example",)),
    ],
)
def test_endpoints_are_urls_separated_by_commas(text: str, urls: tuple[str, ...]) -> None:
    assert values.endpoints(text) == urls


@pytest.mark.parametrize(
    "bad", ["ftp://a", "http://", "http://a:65536", "http://a:b", "http://a b", "2001:db8::1", "http://[::1"]
)
def test_the_endpoint_that_is_no_url_is_named_by_its_place(bad: str) -> None:
    with pytest.raises(ValueError, match=r"no\. 2 is none"):
        values.endpoints(f"http://good:1,{bad}")


def test_vmodule_is_read_in_order() -> None:
    assert values.read_vmodule("a=1,,b/c=2") == (("a", 1), ("b/c", 2))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a:1,http://b:2", "http://a:1,http://b:2"),
        ("http://user:secret@a", "http://***@a"),
        ("http://a,http://user:secret@b,http://u:s@c", "http://a,http://***@b,http://***@c"),
        ("user:secret@a:1", "***@a:1"),
        ("http://user:se@cr/et://@a,http://b", "http://***@a,http://b"),
    ],
)
def test_urls_are_shown_without_credentials(text: str, shown: str) -> None:
    assert values.redact_urls(text) == shown


@given(st.lists(st.tuples(WORD, st.text(min_size=1), WORD), min_size=1))
def test_no_encoded_credential_is_ever_shown(parts: list[tuple[str, str, str]]) -> None:
    urls = [f"http://{user}:{quote(password, safe='')}@{host}" for user, password, host in parts]
    assert values.redact_urls(",".join(urls)) == ",".join(f"http://***@{host}" for _, _, host in parts)


def test_stars_tell_only_whether_there_is_something() -> None:
    assert values.stars("hunter2") == "***"
    assert values.stars("") == ""
