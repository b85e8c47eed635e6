from __future__ import annotations

import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from pyflannel.keyfile import BadKeyFile, generate, load, load_or_make, place, public_key
from pyflannel.wireguard import PublicKey, SecretKey

# Bob's keys in RFC 7748 §6.1.
PRIVATE = SecretKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")).clamped()
PUBLIC = PublicKey(bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"))


def test_the_public_key_is_that_of_rfc_7748() -> None:
    assert public_key(PRIVATE) == PUBLIC


@pytest.mark.needs("wg")
def test_where_cryptography_is_not_installed_wg_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.x25519", None)
    assert public_key(PRIVATE) == PUBLIC


def test_where_there_is_neither_both_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.x25519", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadKeyFile, match=r"takes wg\(8\), or the Python package cryptography"):
        public_key(PRIVATE)


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "wgkey"
    made = load_or_make(path, os.urandom, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert len(path.read_bytes()) == 44
    assert SecretKey.parse(path.read_text()) == made.private == made.private.clamped()
    assert load_or_make(path, os.urandom, None) == load(path) == made


def test_a_key_that_go_flanneld_left_is_kept_for_good(tmp_path: Path) -> None:
    former, path = tmp_path / "run" / "wgkey", tmp_path / "lib" / "wgkey"
    former.parent.mkdir()
    former.write_text(PRIVATE.text)
    assert load_or_make(path, os.urandom, former).public == PUBLIC
    former.unlink()
    assert load_or_make(path, os.urandom, former).public == PUBLIC


def test_our_own_key_comes_first(tmp_path: Path) -> None:
    former, path = tmp_path / "former", tmp_path / "wgkey"
    former.write_text(generate(os.urandom).private.text)
    path.write_text(f" {PRIVATE.text}\n")
    assert load_or_make(path, os.urandom, former).public == PUBLIC


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "wgkey", tmp_path / "former") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"my secret", b"\xff\xfe" * 22, PRIVATE.text.encode()[:-2], b"x" * 100_000])
def test_a_file_that_holds_no_key_is_named_and_neither_shown_nor_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wgkey"
    path.write_bytes(content)
    with pytest.raises(BadKeyFile, match=f"{path} holds no WireGuard key: a key has .*; put one there") as caught:
        load_or_make(path, os.urandom, None)
    assert "secret" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_place_where_nothing_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadKeyFile, match=f"WireGuard key .* {tmp_path}/file/wgkey: Not a directory"):
        load_or_make(tmp_path / "file" / "wgkey", os.urandom, None)


def test_a_key_that_others_may_read_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "wgkey"
    path.write_text(PRIVATE.text)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert load_or_make(path, os.urandom, None).public == PUBLIC
    assert f"chmod 400 {path}" in caplog.text
    assert PRIVATE.text not in caplog.text


def test_the_environment_says_where_the_key_is_else_it_is_with_our_state(tmp_path: Path) -> None:
    assert place(tmp_path, {}) == tmp_path / "wgkey"
    assert place(tmp_path, {"WIREGUARD_KEY_FILE": ""}) == tmp_path / "wgkey"
    assert place(tmp_path, {"WIREGUARD_KEY_FILE": "/etc/wgkey"}) == Path("/etc/wgkey")
