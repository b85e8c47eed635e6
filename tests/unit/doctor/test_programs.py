from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pyflannel.doctor.facts import Docker, Manager, Tables
from pyflannel.doctor.programs import Run, attempt, docker, lacks, native, network_manager, nft_tables, tables
from pyflannel.linux.run import Completed

NFT, LEGACY = "iptables v1.8.9 (nf_tables)\n", "iptables v1.8.9 (legacy)\n"


def saying(answers: Mapping[str, str], errors: Mapping[str, str] | None = None) -> Run:
    """Programs that print these; any other is missing."""

    async def run(argv: Sequence[str]) -> Completed | None:
        command = " ".join(argv)
        if command in answers:
            return Completed(tuple(argv), 0, answers[command], "")
        if errors is not None and command in errors:
            return Completed(tuple(argv), 2, "", errors[command])
        return None

    return run


def test_a_program_that_is_missing_has_said_nothing() -> None:
    assert asyncio.run(attempt(["pyflannel-no-such-program"])) is None
    done = asyncio.run(attempt(["echo", "well"]))
    assert done is not None
    assert done.out == "well\n"


def test_the_variant_that_is_not_in_use_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    run = saying({"iptables --version": NFT, "iptables-save": "*filter\n", "ip6tables-save": "*nat\n"})
    assert asyncio.run(tables(run, tmp_path)) == (
        Tables("iptables", 4, "*filter\n"),
        Tables("ip6tables", 6, "*nat\n"),
    )


def test_the_other_variant_is_asked_where_the_kernel_has_tables_of_it(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/ip_tables_names").write_text("filter\n")
    run = saying({"iptables --version": NFT, "iptables-save": "a", "iptables-legacy-save": "b"})
    assert asyncio.run(tables(run, tmp_path)) == (
        Tables("iptables-legacy", 4, "b", usual=False),
        Tables("iptables", 4, "a"),
    )


def test_the_usual_variant_may_be_the_older_one(tmp_path: Path) -> None:
    run = saying({"iptables --version": LEGACY, "iptables-save": "a", "iptables-nft-save": "b"})
    found = asyncio.run(tables(run, tmp_path))
    assert found is not None
    assert found[0] == Tables("iptables", 4, "a")
    assert set(found[1:]) <= {Tables("iptables-nft", 4, "b", usual=False)}


def test_without_iptables_nothing_is_known_of_it(tmp_path: Path) -> None:
    assert asyncio.run(tables(saying({}), tmp_path)) is None
    assert asyncio.run(nft_tables(saying({}))) is None


def test_tables_of_nftables_come_with_their_family() -> None:
    run = saying({"nft list tables": "table ip filter\ntable inet firewalld\n"})
    assert asyncio.run(nft_tables(run)) == ("ip filter", "inet firewalld")


def test_networkmanager_manages_what_it_connects_itself() -> None:
    said = "flannel.1:connected\ndocker0:connected (externally)\nens33:connected\nflannel-v6.1:unmanaged\n"
    run = saying({"nmcli -t -f DEVICE,STATE device": said})
    assert asyncio.run(network_manager(["flannel.1", "flannel-v6.1", "docker0"], run)) == (
        Manager("NetworkManager", "flannel.1", "nmcli device says: flannel.1 connected"),
    )
    assert asyncio.run(network_manager(["flannel.1"], saying({}))) == ()


def test_tables_that_iptables_does_not_show_are_told_from_those_it_does() -> None:
    known = ("ip filter", "ip6 nat", "ip flannel-ipv4", "inet flannel-peers-8472-1", "inet firewalld", "netdev gone")
    said = '{"nftables":[{"table":{"family":"inet","name":"firewalld"}}]}'
    run = saying({f"nft -j list table {name}": said for name in ("ip filter", "inet firewalld")})
    assert [str(each) for each in asyncio.run(native(known, run))] == ["inet firewalld"]


def test_without_a_tun_device_there_is_no_udp_backend(tmp_path: Path) -> None:
    assert asyncio.run(lacks("udp", saying({}), tmp_path / "tun")) == f"there is no {tmp_path}/tun"
    assert asyncio.run(lacks("udp", saying({}), tmp_path)) is None


def test_wireguard_may_be_a_program_as_well() -> None:
    refused = {"unshare --net ip link add probe0 type wireguard": "Error: Unknown device type.\n"}
    assert asyncio.run(lacks("wireguard", saying({}, refused))) is not None
    assert asyncio.run(lacks("wireguard", saying({"wireguard-go --version": "v0.0.20"}, refused))) is None


PROBE = "unshare --net ip link add probe0 type ipip remote 192.0.2.1"


@pytest.mark.parametrize(
    ("said", "found"),
    [("Error: Unknown device type.\n", True), ("unshare: unshare failed: Operation not permitted\n", False)],
)
def test_only_the_kernels_own_refusal_says_that_it_lacks_something(said: str, found: bool) -> None:
    answer = asyncio.run(lacks("ipip", saying({}, {PROBE: said})))
    assert (answer is not None) is found
    if answer is not None:
        assert answer == "ip link add probe0 type ipip remote 192.0.2.1: Error: Unknown device type."


def test_a_backend_without_a_device_asks_nothing_of_the_kernel() -> None:
    assert asyncio.run(lacks("host-gw", saying({}))) is None
    assert asyncio.run(lacks("ipip", saying({PROBE: ""}))) is None


async def asked(path: Path, answers: Mapping[str, object]) -> Docker | None:
    """What is made of a daemon that answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            target = line.split()[1].decode()
            while (await reader.readline()).strip():
                pass
            body = json.dumps(answers.get(target, {"message": "no such page"})).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        return await docker(path)
    finally:
        server.close()
        await server.wait_closed()


NETWORK = {
    "IPAM": {"Config": [{"Subnet": "fd00::/64"}, {"Subnet": "10.2.7.0/24", "Gateway": "10.2.7.1"}]},
    "Options": {"com.docker.network.bridge.name": "docker0", "com.docker.network.driver.mtu": "1450"},
}


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (
            {"/version": {"Version": "28.2.2"}, "/networks/bridge": NETWORK},
            Docker("28.2.2", "docker0", IPv4Network("10.2.7.0/24"), 1450),
        ),
        ({"/version": {"Version": 28}, "/networks/bridge": {"IPAM": None, "Options": []}}, Docker()),
        ({"/version": [1], "/networks/bridge": {"IPAM": {"Config": [{"Subnet": 7}, "x"]}}}, Docker()),
    ],
    ids=["docker", "something else", "nonsense"],
)
def test_docker_tells_of_its_default_network(tmp_path: Path, answers: Mapping[str, object], found: Docker) -> None:
    assert asyncio.run(asked(tmp_path / "docker.sock", answers)) == found


def test_no_daemon_is_no_docker(tmp_path: Path) -> None:
    assert asyncio.run(docker(tmp_path / "none.sock")) is None
