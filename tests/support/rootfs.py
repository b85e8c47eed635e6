"""A container image with nothing but busybox in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

APPLETS = ("sh", "sleep", "nc", "ping", "netstat", "grep")


def busybox_archive(home: Path) -> Path:
    """An archive for ``docker import``, made in ``home``."""
    root, archive = home / "rootfs", home / "busybox.tar"
    (root / "bin").mkdir(parents=True)
    subprocess.run(["cp", "/bin/busybox", str(root / "bin")], check=True)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    return archive
