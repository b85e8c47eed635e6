from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from pyflannel.doctor.facts import Count, Listener
from pyflannel.doctor.procfs import (
    Process,
    count,
    is_bound,
    legacy_tables,
    listeners,
    number,
    processes,
    synchronised,
    sysctls,
)


def a_process(proc: Path, pid: int, namespace: str, *argv: str) -> Path:
    (proc / str(pid) / "ns").mkdir(parents=True)
    (proc / str(pid) / "fd").mkdir()
    (proc / str(pid) / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
    (proc / str(pid) / "ns/net").symlink_to(f"net:[{namespace}]")
    return proc / str(pid) / "fd"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/net").symlink_to("net:[1]")
    (tmp_path / "net").mkdir()
    (tmp_path / "1").mkdir()
    (tmp_path / "version").write_text("Linux")
    return tmp_path


def test_this_very_process_is_among_those_of_our_namespace() -> None:
    found = processes()
    assert found is None or os.getpid() in [each.pid for each in found]


def test_processes_of_another_namespace_are_none_of_ours(proc: Path) -> None:
    a_process(proc, 7, "1", "/usr/sbin/dockerd", "-H", "fd://")
    a_process(proc, 8, "2", "/usr/sbin/dockerd")
    a_process(proc, 9, "1")
    assert processes(proc) == (Process(7, ("/usr/sbin/dockerd", "-H", "fd://")),)


def test_where_others_processes_are_hidden_nobody_can_say_that_there_is_none(proc: Path) -> None:
    a_process(proc, 7, "1", "sh")
    (proc / "1").rmdir()
    assert processes(proc) is None


def test_without_a_proc_nothing_is_known(tmp_path: Path) -> None:
    assert processes(tmp_path / "nowhere") is None
    assert not legacy_tables(4, tmp_path)
    assert number("sys/nothing", tmp_path) is None


@pytest.mark.parametrize(
    ("argv", "agent"),
    [
        ("/usr/local/bin/flanneld -iface=ens33", True),
        ("/usr/bin/python3.11 /usr/local/bin/flanneld", True),
        ("python3 -m pyflannel.cli.flanneld -store=local:/x", True),
        ("python3 -I /opt/flanneld.pyz", True),
        ("python3 -m pyflannel.cli.flannelctl doctor", False),
        ("journalctl -u flanneld", False),
        ("vim /etc/default/flanneld", False),
        ("python3", False),
    ],
)
def test_an_agent_is_known_by_how_it_was_started(argv: str, agent: bool) -> None:
    assert Process(1, tuple(argv.split())).is_agent is agent


def test_a_socket_is_found_with_who_holds_it(proc: Path) -> None:
    line = "  1: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 {} 2 0 0\n"
    other = line.format(88).replace("2118", "0035")
    (proc / "net/udp").write_text("head\n" + line.format(4711) + other)
    (proc / "net/udp6").write_text("head\n" + line.format(4712))
    held = a_process(proc, 7, "1", "/usr/sbin/named", "-s3cret")
    (held / "3").symlink_to("socket:[4711]")
    found = listeners(8472, processes(proc) or (), proc)
    assert found == (Listener(8472, "named (process 7)"), Listener(8472, ""))


def test_the_socket_of_a_python_program_names_its_script_and_no_more() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        me = Process(os.getpid(), (sys.executable, "-m", "http.server", "--token", "s3cret"))
        found = listeners(bound.getsockname()[1], [me])
    assert found is not None
    (holder,) = found
    assert holder.program == f"{Path(sys.executable).name} -m http.server (process {os.getpid()})"


def test_a_socket_that_is_held_is_told_from_one_that_was_left(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert is_bound(path) is True
    assert path.exists()
    assert is_bound(path) is False
    assert is_bound(path, tmp_path) is None


def test_nobody_on_a_port_is_not_the_same_as_not_knowing(proc: Path) -> None:
    (proc / "net/udp").write_text("head\n")
    assert listeners(8472, (), proc) == ()


def test_a_setting_the_kernel_does_not_have_is_empty(tmp_path: Path) -> None:
    (tmp_path / "sys/net").mkdir(parents=True)
    (tmp_path / "sys/net/one").write_text("1\t2\n")
    assert sysctls(["net/one", "net/none"], tmp_path) == {"net/one": "1 2", "net/none": ""}


def test_numbers_are_the_first_of_their_files(tmp_path: Path) -> None:
    (tmp_path / "used").write_text("12 0 99\n")
    (tmp_path / "limit").write_text("100\n")
    (tmp_path / "words").write_text("many\n")
    assert count("used", "limit", tmp_path) == Count(12, 100)
    assert number("used", tmp_path) == 12
    assert count("words", "limit", tmp_path) is None


def test_the_kernel_says_whether_the_clock_is_kept() -> None:
    assert synchronised() in (True, False, None)


def test_the_legacy_variant_is_in_use_if_the_kernel_lists_a_table(proc: Path) -> None:
    (proc / "net/ip_tables_names").write_text("filter\n")
    (proc / "net/ip6_tables_names").write_text("")
    assert legacy_tables(4, proc)
    assert not legacy_tables(6, proc)
