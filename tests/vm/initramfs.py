"""The file system a kernel starts with: just enough to reach this machine's own.

It is a cpio archive in the format "newc" (linux/Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

_DIRECTORY = 0o040755
_PROGRAM = 0o100755
_TRAILER = "TRAILER!!!"


def archive(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files, by their paths without a leading slash, and of the directories they are in.

    All of them are root's, and executable.
    """
    parents = {str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}
    entries = [*((name, _DIRECTORY, b"") for name in sorted(parents)), *((n, _PROGRAM, files[n]) for n in files)]
    numbered = enumerate([*entries, (_TRAILER, 0, b"")], start=1)
    return b"".join(part for number, entry in numbered for part in _entry(number, *entry))


def _entry(inode: int, name: str, mode: int, content: bytes) -> Iterator[bytes]:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device major and minor, the same of a special file, name's length, sum
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    yield _aligned(b"070701" + b"".join(b"%08X" % field for field in fields) + encoded)
    yield _aligned(content)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
