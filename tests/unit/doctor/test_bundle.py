"""The archive: what is in it, what is not, and who may read it."""

from __future__ import annotations

import asyncio
import stat
import tarfile
from pathlib import Path

import pytest

from pyflannel.doctor.bundle import COMMANDS, LARGEST, hidden, output, pack, written
from pyflannel.settings import Settings

NOW = 1_800_000_000.0
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {name: archive.extractfile(name) for name in archive.getnames()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_texts_come_out_as_they_went_in_below_one_directory(tmp_path: Path) -> None:
    pack(tmp_path / "r.tar.gz", "report", {"b.txt": "two\n", "a/one.txt": "eins\u00a0…\n"}, (), NOW)
    assert unpacked(tmp_path / "r.tar.gz") == {"report/a/one.txt": "eins\u00a0…\n", "report/b.txt": "two\n"}


def test_it_is_for_its_owner_alone_and_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.tar.gz"
    pack(path, "report", {"a": ""}, (), NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as archive:
        assert {member.mode for member in archive.getmembers()} == {0o600}
    with pytest.raises(FileExistsError):
        pack(path, "report", {"a": "other"}, (), NOW)
    assert unpacked(path) == {"report/a": ""}


def test_every_text_is_redacted_whatever_its_name(tmp_path: Path) -> None:
    texts = {
        "metrics.txt": 'endpoint="http://root:s3cretly@one:2379"',
        "log/flanneld.txt": "the password is s3cretly, as everybody knows",
        "made-up/name": f"PrivateKey = {KEY}",
    }
    pack(tmp_path / "r.tar.gz", "report", texts, ["s3cretly"], NOW)
    packed = unpacked(tmp_path / "r.tar.gz")
    assert len(packed) == len(texts)
    assert not [name for name, text in packed.items() if "s3cretly" in text or KEY in text]


def test_a_text_without_end_is_cut_and_says_so(tmp_path: Path) -> None:
    pack(tmp_path / "r.tar.gz", "report", {"log": "x" * (LARGEST + 7)}, (), NOW)
    assert unpacked(tmp_path / "r.tar.gz")["report/log"].endswith("\n... and 7 more characters\n")


def test_what_is_hidden_comes_from_settings_configuration_and_key_files(tmp_path: Path) -> None:
    key = tmp_path / "wgkey"
    key.write_text(f"{KEY}\n")
    settings = Settings(
        etcd_endpoints=("http://a:from-the-url@one:2379",), etcd_username="root", etcd_password="from-the-flag"
    )
    found = hidden(settings, ['{"Backend":{"Type":"wireguard","PSK":"shared-by-all"}}'], [key, tmp_path / "none"])
    assert found >= {"from-the-url", "from-the-flag", "shared-by-all", KEY, "cm9vdDpmcm9tLXRoZS1mbGFn"}
    assert not [each for each in found if "No such file" in each]


def test_a_file_that_is_not_there_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    texts = written({"a": tmp_path / "there", "b": tmp_path / "gone"})
    assert texts == {"a": "", "b": f"{tmp_path}/gone: No such file or directory\n"}


def test_every_program_leaves_a_text_that_says_what_was_run() -> None:
    texts = asyncio.run(output())
    assert texts.keys() >= COMMANDS.keys()
    for name, argv in COMMANDS.items():
        assert texts[name].startswith(f"$ {argv[0]}"), name
    assert "net/ipv4/ip_forward = " in texts["system/sysctl.txt"]
