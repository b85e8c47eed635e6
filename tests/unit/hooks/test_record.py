from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.hooks.record import Entry, Record, boot_id, path, read
from pyflannel.state import Commands, Hook

BOOT = "5b3f0c9e"
HOOK = Hook(
    Commands("add 'ü'", "remove", "check", 7.0),
    IPv4Network("10.2.41.0/24"),
    IPv6Network("fd00:2:0:41::/64"),
    IPv4Address("172.16.41.132"),
    IPv6Address("2001:db8::132"),
    'two\nlines, "quoted" \u2028',
)
OTHER = Hook(Commands("add"), IPv4Network("10.2.42.0/24"), None, IPv4Address("172.16.41.133"), None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hooks.jsonl"


def written(file: Path) -> Record:
    record = Record(file, BOOT)
    record.put(HOOK, False)
    record.put(HOOK, True)
    record.put(OTHER, False)
    return record


def test_what_was_run_is_known_to_the_next_agent_to_the_last_value(file: Path) -> None:
    written(file).close()
    entries = read(file, BOOT)
    assert list(entries.values()) == [Entry(HOOK, True), Entry(OTHER, False)]
    commands = entries[HOOK.key].hook.commands
    assert (commands.check, commands.limit) == ("check", 7.0)


def test_each_word_is_in_the_file_as_soon_as_it_is_said(file: Path) -> None:
    record = written(file)
    assert read(file, BOOT) == record.entries
    record.cut(HOOK)
    record.put(replace(OTHER, data="new"), True)
    assert list(read(file, BOOT).values()) == [Entry(replace(OTHER, data="new"), True)]
    record.close()


def test_after_a_boot_nothing_is_known(file: Path) -> None:
    written(file).close()
    assert read(file, "another") == {}
    assert read(file, "") == {}


def test_the_present_boot_has_a_name(file: Path) -> None:
    record = Record(file)
    record.put(HOOK, True)
    record.close()
    assert boot_id()
    assert read(file) == record.entries


def test_a_file_that_has_grown_old_is_written_anew(file: Path) -> None:
    record = written(file)
    for number in range(1100):
        record.put(replace(OTHER, data=str(number)), True)
    record.close()
    assert len(file.read_text().splitlines()) < 1100
    assert read(file, BOOT) == record.entries
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def test_an_agent_that_follows_leaves_out_what_is_past(file: Path) -> None:
    written(file).close()
    record = Record(file, BOOT)
    record.cut(OTHER)
    record.close()
    assert len(file.read_text().splitlines()) == 2
    assert list(read(file, BOOT).values()) == [Entry(HOOK, True)]


@given(st.data())
def test_a_file_that_is_damaged_says_less_and_nothing_wrong(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("record") / "hooks.jsonl"
    written(file).close()
    raw = file.read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    junk = data.draw(st.binary(max_size=8))
    file.write_bytes(raw[:at] + junk + (raw[at:] if data.draw(st.booleans()) else b""))
    for entry in read(file, BOOT).values():
        assert entry.hook.subnet is not None or entry.hook.subnet_v6 is not None
    file.write_bytes(raw[:at])
    assert all(entry.hook in (HOOK, OTHER) for entry in read(file, BOOT).values())


@pytest.mark.parametrize("spoil", ["link", "directory", "writable"])
def test_a_file_that_may_be_somebody_elses_is_not_believed(
    spoil: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(file).close()
    if spoil == "writable":
        file.chmod(0o666)
    else:
        file.rename(file.with_suffix(".real"))
        file.symlink_to(file.with_suffix(".real")) if spoil == "link" else file.mkdir()
    assert read(file, BOOT) == {}
    assert "Ignoring" in caplog.text
    if spoil != "directory":
        record = Record(file, BOOT)
        record.put(OTHER, True)
        record.close()
        assert list(read(file, BOOT).values()) == [Entry(OTHER, True)]


def test_nobody_else_can_read_it(file: Path) -> None:
    written(file).close()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_refuses_costs_a_line_and_is_tried_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    record = Record(file, BOOT)
    file.parent.write_text("in the way")
    record.put(HOOK, True)
    record.put(OTHER, True)
    (said,) = caplog.messages
    assert said.startswith(f"Cannot write to {file} which commands have been run: ")
    assert record.entries[HOOK.key] == Entry(HOOK, True)
    file.parent.unlink()
    record.cut(OTHER)
    record.close()
    assert list(read(file, BOOT).values()) == [Entry(HOOK, True)]


def test_each_network_has_a_file_of_its_own(tmp_path: Path) -> None:
    one, two = path(tmp_path, "/coreos.com/network"), path(tmp_path, "/coreos.com/other")
    assert one != two
    assert one.parent == tmp_path
    assert one.name.startswith("hooks-coreos.com-network-")
    assert one.suffix == ".jsonl"
