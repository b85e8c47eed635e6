"""Debian's stock kernel: downloaded by apt, unpacked into a cache, never installed.

Of the package's 400 MB only the kernel and the modules that networks, file systems and virtual machines are made of are
kept.  To have a newer one, remove the cache.
"""

from __future__ import annotations

import lzma
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.vm import bzimage
from tests.vm.errors import Impossible, executed

PACKAGE = "linux-image-amd64"
EDITION = 1
"""To be raised when something else is to be unpacked: what an earlier one has unpacked is not used then."""

_KEPT = re.compile(
    r"boot/vmlinuz-"
    r"|lib/modules/[^/]+/(modules\.|kernel/(net|crypto|lib|arch|drivers/virtio)/)"
    r"|lib/modules/[^/]+/kernel/fs/(9p|netfs|fscache|overlayfs)/"
    r"|lib/modules/[^/]+/kernel/drivers/net/([^/]+$|(wireguard|vxlan|ipvlan|bonding)/)"
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One that is ready to be started."""

    home: Path

    @property
    def image(self) -> Path:
        """What to give to qemu."""
        return self.home / "vmlinux"

    @property
    def modules(self) -> Path:
        """The directory that is to be /lib/modules."""
        return self.home / "lib" / "modules"

    @property
    def release(self) -> str:
        """As ``uname -r`` says it there."""
        (release,) = (path.name for path in self.modules.iterdir())
        return release

    def modules_for(self, *names: str) -> list[bytes]:
        """The content of these modules and of all they stand on, in the order in which they can be loaded."""
        found: dict[Path, None] = {}
        for name in names:
            told = executed(["modprobe", "-d", str(self.home), "-S", self.release, "--show-depends", name])
            for line in told.splitlines():
                # What is built in is told of as "builtin NAME".
                if line.startswith("insmod "):
                    found[Path(line.removeprefix("insmod ").strip())] = None
        return [lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes() for path in found]


def kept(cache: Path, package: str = PACKAGE) -> Kernel:
    """The kernel of a Debian package (or of the one it depends on) from ``cache``, downloaded if it is not there.

    Raises ``Impossible``, saying what to do, if it cannot be had.
    """
    if platform.machine() != "x86_64":
        raise Impossible(f"this lane emulates an x86_64 machine and runs this machine's programs, {platform.machine()}")
    home = cache / f"{package}-{EDITION}"
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="unpacking-", dir=cache) as place:
            made = Path(place) / "kernel"
            _unpack(_downloaded(package, Path(place)), made)
            _rename(made, home)
    return Kernel(home)


def is_kept(name: str) -> bool:
    """Whether the file with this path inside the package is one we need."""
    return _KEPT.match(name) is not None


def _downloaded(package: str, place: Path) -> Path:
    """The package's file, in ``place``."""
    try:
        return _download(package, place)
    except Impossible:
        # Most often the lists are not there, or are older than what the archive still has.
        print("tests.vm: apt-get update, as its lists do not lead to a kernel", file=sys.stderr)
    try:
        executed(["apt-get", "--quiet=2", "update"])
        return _download(package, place)
    except Impossible as reason:
        raise Impossible(
            f"the kernel could not be downloaded. {reason}\n"
            f"Make `apt-get update && apt-get download {package}` work (Debian, as root) and try again;"
            " PYFLANNEL_VM_KERNEL names another package."
        ) from None


def _download(package: str, place: Path) -> Path:
    depends = re.findall(r"Depends: (linux-image-\S+)", executed(["apt-cache", "depends", package]))
    wanted = depends[0] if depends else package
    print(f"tests.vm: downloading {wanted}", file=sys.stderr)
    # apt's own user may not write where we want it.
    executed(["apt-get", "--quiet=2", "--option=APT::Sandbox::User=root", "download", wanted], place)
    (file,) = place.glob("*.deb")
    return file


def _unpack(package: Path, home: Path) -> None:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as unpacking,
        tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive,
    ):
        for member in archive:
            # Later Debians have everything below usr.
            name = member.name.removeprefix("./").removeprefix("usr/")
            if is_kept(name) and (source := archive.extractfile(member)):
                target = home / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(source, file)
    kernel = Kernel(home)
    (image,) = (home / "boot").iterdir()
    kernel.image.write_bytes(bzimage.unpacked(image.read_bytes()))
    executed(["depmod", "-b", str(home), kernel.release])


def _rename(made: Path, home: Path) -> None:
    try:
        made.rename(home)
    except OSError:
        # Another run was first, and has made the same.
        if not home.exists():
            raise
