"""What a report of any machine holds, with secrets planted wherever it looks."""

from __future__ import annotations

import asyncio
import json
import re
import tarfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from pyflannel.cli.report import report
from pyflannel.settings import Settings
from pyflannel.store.local import LocalStore

KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
SHARED = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
PASSWORD = "correct-horse-battery"
PLANTED = (KEY, SHARED, PASSWORD, "in-the-subnet-file", "in-the-mac-file")


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "subnet.env").write_text(f"FLANNEL_MTU=1450\nETCD_PASSWORD=in-the-subnet-file\n# {PASSWORD}\n")
    (home / "vtep-macs.json").write_text('{"token":"in-the-mac-file"}')
    (home / "wgkey").write_text(KEY)

    async def configure() -> None:
        store = LocalStore(home / "store.db", Settings().etcd_prefix)
        backend = f'{{"Type":"wireguard","PSK":"{SHARED}","Note":"{KEY}"}}'
        await store.write_config(f'{{"Network":"10.2.0.0/16","Backend":{backend}}}')
        await store.close()

    asyncio.run(configure())
    places = [f"-store=local:{home}/store.db", f"-subnet-file={home}/subnet.env", f"-state-dir={home}"]
    return [*places, f"-etcd-password={PASSWORD}", f"-kube-api-url=https://admin:{PASSWORD}@10.0.0.1"]


def texts(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2]: archive.extractfile(name) for name in archive.getnames()}
        return {name: file.read().decode() for name, file in files.items() if file is not None}


def test_it_says_all_that_helps_and_none_of_what_was_planted(flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    result = CliRunner().invoke(report, ["--no-defaults", "-o", str(path), "--", *flags])
    assert result.exit_code == 0, result.output
    assert f"{path}: " in result.output
    found = texts(path)
    assert found["settings.txt"].count("***") >= 2
    assert '"Type":"wireguard","PSK":"***"' in found["network-configuration.txt"]
    assert "FLANNEL_MTU=1450" in found["files/subnet.env"]
    assert "no agent runs on this host" in found["status.json"]
    assert json.loads(found["doctor.json"]).keys() == {"findings", "fixed", "notes"}
    assert found["network/link.txt"].startswith("$ ip -d -s link show\n")
    leaks = [(name, secret) for name, text in found.items() for secret in PLANTED if secret in text]
    assert leaks == []


def test_it_has_a_name_of_its_own_unless_it_is_given_one(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(report, ["--no-defaults", "--", *flags]).exit_code == 0
    (made,) = tmp_path.glob("*.tar.gz")
    assert re.fullmatch(r"flannel-report-[A-Za-z0-9.-]+-\d{8}T\d{6}Z\.tar\.gz", made.name)


def test_a_file_that_is_there_is_not_replaced(flags: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.tar.gz"
    path.write_text("mine")
    result = CliRunner().invoke(report, ["--no-defaults", "-o", str(path), "--", *flags])
    assert (result.exit_code, path.read_text()) == (1, "mine")
    assert "File exists" in result.output


def test_a_wrong_question_ends_with_2() -> None:
    assert CliRunner().invoke(report, ["--no-defaults", "--", "-nope"]).exit_code == 2
