"""The parts of tests/vm that need no machine."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vm import bzimage, initramfs, kernel, machine

names = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,9}){0,3}", fullmatch=True).map(lambda name: f"files/{name}.x")


def entries(archive: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of each, as the kernel reads them."""
    at = 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * number : at + 14 + 8 * number], 16) for number in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + length]
        assert name.endswith(b"\0")
        begin = (at + 110 + length + 3) // 4 * 4
        yield name[:-1].decode(), mode, archive[begin : begin + size]
        at = (begin + size + 3) // 4 * 4


@given(st.dictionaries(names, st.binary(max_size=20)))
def test_an_archive_holds_each_file_behind_its_directories(files: dict[str, bytes]) -> None:
    *found, last = entries(initramfs.archive(files))
    assert last == ("TRAILER!!!", 0, b"")
    assert {name: content for name, mode, content in found if mode == 0o100755} == files
    there = {"."}
    for name, mode, _ in found:
        assert name.rpartition("/")[0] in there | {""}
        if mode == 0o040755:
            there.add(name)


def xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=0)


@given(st.binary(), st.sampled_from([xz, gzip.compress]), st.integers(0, 40), st.integers(0, 900))
def test_a_kernel_comes_out_of_its_package(
    content: bytes, pack: Callable[[bytes], bytes], sectors: int, offset: int
) -> None:
    assert bzimage.unpacked(bz_image(pack(content), sectors, offset)) == content


@pytest.mark.parametrize("image", [b"", b"\x7fELF" * 500, bytes(2000)])
def test_what_cannot_be_unpacked_stays_as_it_is(image: bytes) -> None:
    assert bzimage.unpacked(image) == image


def test_a_kernel_in_another_packing_stays_as_it_is() -> None:
    image = bz_image(b"\x28\xb5\x2f\xfd of Zstandard", 8, 0)
    assert bzimage.unpacked(image) == image


def bz_image(payload: bytes, sectors: int, offset: int) -> bytes:
    """What a boot loader is given: header, boot code, the packed kernel and its length, and something else."""
    setup = bytearray(((sectors or 4) + 1) * 512)
    setup[0x1F1], setup[0x202:0x206] = sectors, b"HdrS"
    packed = payload + b"size"
    if len(setup) > 512:
        struct.pack_into("<II", setup, 0x248, offset, len(packed))
    return bytes(setup) + b"\x90" * offset + packed + b"more"


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        ("boot/vmlinuz-6.1.0-9-amd64", True),
        ("boot/System.map-6.1.0-9-amd64", False),
        ("lib/modules/6.1.0-9-amd64/modules.builtin", True),
        ("lib/modules/6.1.0-9-amd64/kernel/net/ipv4/ipip.ko", True),
        ("lib/modules/6.1.0-9-amd64/kernel/net/sched/sch_netem.ko.xz", True),
        ("lib/modules/6.1.0-9-amd64/kernel/drivers/net/dummy.ko", True),
        ("lib/modules/6.1.0-9-amd64/kernel/drivers/net/wireguard/wireguard.ko", True),
        ("lib/modules/6.1.0-9-amd64/kernel/drivers/net/ethernet/intel/e1000/e1000.ko", False),
        ("lib/modules/6.1.0-9-amd64/kernel/fs/overlayfs/overlay.ko", True),
        ("lib/modules/6.1.0-9-amd64/kernel/fs/xfs/xfs.ko", False),
    ],
)
def test_of_the_package_is_kept_what_a_network_needs(name: str, is_kept: bool) -> None:
    assert kernel.is_kept(name) == is_kept


def test_a_command_arrives_as_it_was_given(tmp_path: Path) -> None:
    words = ["", "two words", "$HOME", "`id`", "a'b", 'a"b', "*", "\\", "line\nline", "café"]
    variables = {"PATH": "/usr/bin:/bin", "ODD": 'it\'s $(id) "here"\n'}
    place = tmp_path / "a 'place'"
    place.mkdir()
    text = machine.script(["sh", "-c", 'pwd; printf "%s\\0" "$ODD" "$@"', *["zero", *words]], place, variables)
    done = subprocess.run(["sh", "-c", text], capture_output=True, check=True, env={})
    assert done.stdout.decode().split("\0") == [f"{place}\n{variables['ODD']}", *words, ""]


def test_a_command_sees_the_settings_of_the_tests_and_none_of_the_other_variables() -> None:
    here = {"PATH": "/bin", "HOME": "/root", "PYFLANNEL_TEST_PROMISE": "root", "PYTHONPATH": "src", "TOKEN": "hidden"}
    there = machine.environment(here)
    assert there.pop("PATH").endswith(":/bin")
    assert there.pop("TMPDIR")
    assert there == {name: here[name] for name in ("HOME", "PYFLANNEL_TEST_PROMISE", "PYTHONPATH")}


def test_a_comma_in_a_path_does_not_end_it(tmp_path: Path) -> None:
    job = tmp_path / "one,two"
    (word,) = (word for word in machine.argv(kernel.Kernel(tmp_path), job) if "mount_tag=job" in word)
    assert f"path={tmp_path}/one,,two,security_model" in word
