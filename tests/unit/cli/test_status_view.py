from __future__ import annotations

from dataclasses import replace

from pyflannel.cli.status_view import is_well, lines, rows, trouble
from pyflannel.telemetry.document import (
    AgentPart,
    ConditionPart,
    Document,
    HostPart,
    KernelPart,
    LeasePart,
    NetworkPart,
    PeerPart,
    StorePart,
)
from tests.support.status import NOW, PEER, TROUBLE, document


def test_one_screen_tells_of_the_host_its_network_and_all_that_it_needs() -> None:
    assert "\n".join(lines(document(), NOW)) == (
        "host2: flanneld 0.1.0 is running, up 3d00h (process 812)\n"
        "\n"
        "  Network     10.2.0.0/16\n"
        "  Backend     vxlan, device flannel.1, VNI 1, UDP port 8472, MTU 1450\n"
        "  This host   172.16.41.131 on ens33, MTU 1500\n"
        "  Lease       10.2.71.0/24, renewed 8h00m ago, ends in 16h00m unless renewed\n"
        "  Store       etcd v3 at http://172.16.41.130:2379, answers for 3d00h\n"
        "  Kernel      2 items\n"
        "  Firewall    as it should be\n"
        "  Containers  /run/flannel/subnet.env is written\n"
        "  Peers       1 reachable"
    )


def test_what_is_not_as_it_should_be_catches_the_eye() -> None:
    said = document()
    said = replace(
        said,
        store=replace(said.store, answers=False, since=NOW - 90),
        kernel=KernelPart({"Route": 3}, {"Route": 2}, {}, {"Route": 1}, False),
        firewall=replace(said.firewall, ok=False),
        outputs=replace(said.outputs, written=False),
        peers=(PEER, replace(PEER, state="unreachable"), replace(PEER, state="hexed")),
    )
    text = "\n".join(lines(said, NOW))
    for words in (
        *("DOES NOT ANSWER for 1m30s", "3 items, 2 REFUSED; 1 put right so far; not all peers are known yet"),
        *("NOT IN ORDER", "IS NOT WRITTEN", "1 reachable, 1 unreachable, 1 hexed"),
    ):
        assert words in text


def test_an_agent_that_waits_has_little_to_tell_and_says_what_it_waits_for() -> None:
    said = Document(
        agent=AgentPart("0.1.0", 812, None, "waiting"),
        host=HostPart("host2"),
        network=NetworkPart("/coreos.com/network"),
        store=StorePart("", ("http://127.0.0.1:2379",)),
    )
    assert list(lines(said, NOW)) == [
        "host2: flanneld 0.1.0 is waiting (process 812)",
        "",
        "  Network     none yet, looking at /coreos.com/network/config",
        "  Store       http://127.0.0.1:2379, not asked yet",
    ]
    assert not is_well(said)


def test_a_local_store_is_named_once() -> None:
    said = replace(document(), store=StorePart("local", ("local:/var/lib/flannel/leases.db",), True))
    assert "  Store       local:/var/lib/flannel/leases.db, answers" in lines(said, NOW)


def test_a_reservation_has_no_end() -> None:
    said = replace(document(), lease=LeasePart("10.2.71.0/24", "fd00:2:0:71::/64", None, True))
    assert "  Lease       10.2.71.0/24 and fd00:2:0:71::/64, reserved" in lines(said, NOW)


def test_a_trouble_is_told_with_its_meaning_and_with_what_to_do() -> None:
    assert list(trouble(TROUBLE, NOW)) == [
        "ERROR store-unreachable, for 1m30s",
        "  the store does not answer: refused",
        "  What it means: No member answers.",
        "  What to do:    Look.",
    ]


def test_a_notice_is_no_reason_to_call_a_host_unwell() -> None:
    assert is_well(document())
    assert is_well(document(ConditionPart("seen", "notice")))
    assert not is_well(document(ConditionPart("seen", "warning")))


def test_a_peer_is_one_row_with_one_reason() -> None:
    lost = replace(PEER, subnet="10.2.9.0/24", state="unreachable", rtt=None, loss=1.0, mtu=None, reason="no answer")
    assert rows([PEER, lost], NOW) == [
        ["10.2.9.0/24", "172.16.41.132", "unreachable", "-", "100%", "-", "2h00m ago", "no answer"],
        ["10.2.41.0/24", "172.16.41.132", "reachable", "1.2 ms", "0%", "1450", "2h00m ago", ""],
    ]


def test_a_peer_of_which_nothing_is_known_is_shown_all_the_same() -> None:
    assert rows([PeerPart("nonsense")], NOW) == [["nonsense", "", "unknown", "-", "-", "-", "-", ""]]
    assert rows([PeerPart(ipv6_subnet="fd00::/64")], NOW)[0][0] == "fd00::/64"


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    (row,) = rows([replace(PEER, reason="\x1b[2J\n")], NOW)
    assert row[-1] == "\\x1b[2J\\n"
    assert "\\x1b" in "".join(trouble(replace(TROUBLE, text="\x1b[2J"), NOW))
