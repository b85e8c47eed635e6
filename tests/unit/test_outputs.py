from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.lease.model import Subnet
from pyflannel.outputs import (
    Previous,
    SubnetEnv,
    docker_options,
    parse_env,
    read_subnet_env,
    render_subnet_env,
    route_through,
    write_atomic,
)

FILE = {"FLANNEL_SUBNET": "10.1.74.1/24", "FLANNEL_MTU": "1472", "FLANNEL_IPMASQ": "false"}


def test_half_a_family_is_refused() -> None:
    with pytest.raises(ValueError, match=r"IPv4 needs both network and subnet: 10\.1\.0\.0/16 and None"):
        SubnetEnv(IPv4Network("10.1.0.0/16"), None, None, None, 1450, False)
    with pytest.raises(ValueError, match="IPv6 needs both network and subnet: None and fd00::/64"):
        SubnetEnv(None, None, None, IPv6Network("fd00::/64"), 1450, False)


@given(
    st.ip_addresses(v=4),
    st.integers(8, 28),
    st.ip_addresses(v=6),
    st.integers(32, 64),
    st.integers(576, 9000),
    st.booleans(),
)
def test_what_is_written_is_read_back(v4: object, len4: int, v6: object, len6: int, mtu: int, masq: bool) -> None:
    net4, sub4 = (IPv4Network(f"{v4}/{length}", strict=False) for length in (len4, len4 + 2))
    net6, sub6 = (IPv6Network(f"{v6}/{length}", strict=False) for length in (len6, len6 + 2))
    text = render_subnet_env(SubnetEnv(net4, sub4, net6, sub6, mtu, masq))
    assert read_subnet_env(text) == Previous(net4, sub4, net6, sub6)
    assert parse_env(text)["FLANNEL_IPMASQ"] == ("true" if masq else "false")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=x", "x"),
        ("export A=x", "x"),
        ("  A = x  ", "x"),
        ("A=x # why", "x"),
        ("A=x#y", "x#y"),
        ("A=", ""),
        ("A= # nothing", ""),
        ("A='x # y'", "x # y"),
        ('A="x # y" # why', "x # y"),
        (r'A="say \"x\" \$y"', 'say "x" $y'),
        ("A=a=b", "a=b"),
        ("A=x\r", "x"),
        ('A="open', '"open'),
        ("A=1\nA=2", "2"),
        ("# A=1\nnonsense\n=3\nA=2", "2"),
    ],
)
def test_assignments_are_read_as_a_shell_would(line: str, value: str) -> None:
    assert parse_env(line) == {"A": value}


@given(st.text())
def test_no_text_makes_the_reader_fail(text: str) -> None:
    parse_env(text)
    read_subnet_env(f"FLANNEL_SUBNET={text}\nFLANNEL_IPV6_SUBNET={text}\n")


def test_a_subnet_is_read_as_the_network_it_lies_in() -> None:
    assert read_subnet_env('export FLANNEL_SUBNET="10.5.72.1/24"').ipv4_subnet == IPv4Network("10.5.72.0/24")


def test_bad_members_of_a_list_are_skipped() -> None:
    assert read_subnet_env("FLANNEL_SUBNET=10.244.1.0/24,not-a-cidr").ipv4_subnet == IPv4Network("10.244.1.0/24")
    assert read_subnet_env("FLANNEL_IPV6_SUBNET=x, fd00::1/64").ipv6_subnet == IPv6Network("fd00::/64")


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        "10.244.1.0/24,not-a-cidr,10.244.2.0/24",
        "10.1.2.3",
        "10.1.2.0/255.255.255.0",
        "10.1.2.0/33",
        "fd00::1/64",
    ],
)
def test_a_list_with_no_or_several_subnets_says_nothing(value: str) -> None:
    assert read_subnet_env(f"FLANNEL_SUBNET={value}") == Previous()


def test_an_ipv4_subnet_under_the_ipv6_name_says_nothing() -> None:
    assert read_subnet_env("FLANNEL_IPV6_SUBNET=10.1.2.1/24") == Previous()


def test_the_previous_lease_is_what_there_was_of_it() -> None:
    v4, v6 = IPv4Network("10.1.2.0/24"), IPv6Network("fd00::/64")
    assert Previous().subnet is None
    assert Previous(ipv4_subnet=v4).subnet == Subnet(v4)
    assert Previous(ipv4_subnet=v4, ipv6_subnet=v6).subnet == Subnet(v4, v6)


def test_docker_masquerades_unless_flannel_does() -> None:
    assert 'IPMASQ="--ip-masq=false"' in docker_options(FILE | {"FLANNEL_IPMASQ": "true"})
    assert 'IPMASQ="--ip-masq=true"' in docker_options(FILE | {"FLANNEL_IPMASQ": "false"})


def test_an_empty_variable_gives_no_option() -> None:
    assert docker_options(dict.fromkeys(FILE, "")) == 'DOCKER_OPTS=""\n'


def test_other_words_for_masquerading_are_refused_unless_the_option_is_left_out() -> None:
    with pytest.raises(ValueError, match="Invalid value of FLANNEL_IPMASQ: yes"):
        docker_options(FILE | {"FLANNEL_IPMASQ": "yes"})
    assert "ip-masq" not in docker_options(FILE | {"FLANNEL_IPMASQ": "yes"}, ip_masq=False)


def test_what_flannel_says_beats_the_environment() -> None:
    assert "192.0.2.1" not in docker_options(FILE | {"DOCKER_OPT_BIP": "--bip=192.0.2.1/24"})


def test_a_value_with_blanks_stays_whole() -> None:
    text = docker_options({"MY_DOCKER_OPT_LOG": "--log-opt  max-size=1m"})
    assert text == 'MY_DOCKER_OPT_LOG="--log-opt  max-size=1m"\nDOCKER_OPTS=" --log-opt  max-size=1m"\n'


ROUTES = """\
default via 192.0.2.1 dev eth0
10.1.41.0/24 via 10.1.41.0 dev flannel.1 onlink
10.1.74.0/24 dev docker0 proto kernel scope link src 10.1.74.1
110.1.75.0/24 via 192.0.2.9 dev eth0
10.1.76.0/24 via 10.1.76.0 dev flannel.1 onlink
"""


def test_a_route_for_our_subnet_through_another_host_is_found() -> None:
    assert route_through("10.1.76.1/24", ROUTES) == "10.1.76.0/24 via 10.1.76.0 dev flannel.1 onlink"


@pytest.mark.parametrize("subnet", ["10.1.74.1/24", "10.1.75.1/24", "10.1.76.1/25", "fd00::1/64", "10.1.76.1/24,x", ""])
def test_other_routes_are_no_reason_to_complain(subnet: str) -> None:
    assert route_through(subnet, ROUTES) is None


@pytest.fixture
def umask() -> Iterator[None]:
    """A umask that would show through if it were not overruled."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_a_new_file_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    write_atomic(tmp_path / "subnet.env", "x\n")
    assert (tmp_path / "subnet.env").stat().st_mode & 0o7777 == 0o644


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    path.write_text("old")
    path.chmod(0o600)
    write_atomic(path, "new")
    assert (path.read_text(), path.stat().st_mode & 0o7777) == ("new", 0o600)


def test_missing_directories_are_made_for_all_to_enter(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "subnet.env", "x")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")] == [0o755, 0o755]


def test_a_reader_keeps_the_old_text_whole(tmp_path: Path) -> None:
    path = tmp_path / "subnet.env"
    write_atomic(path, "old")
    with path.open() as reader:
        write_atomic(path, "new")
        assert reader.read() == "old"


def test_nothing_but_the_file_is_left_behind(tmp_path: Path) -> None:
    for text in ("one", "two"):
        write_atomic(tmp_path / "subnet.env", text)
    assert [path.name for path in tmp_path.iterdir()] == ["subnet.env"]


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "subnet.env").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "subnet.env", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["subnet.env"]


def test_a_file_where_a_directory_should_be_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OSError, match="run"):
        write_atomic(tmp_path / "run" / "flannel" / "subnet.env", "x")
