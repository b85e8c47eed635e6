"""A machine that exists for one command, emulated by qemu, whose file system is this machine's.

The root is shared by 9p, read-only; what is written goes into memory and is forgotten.  A small directory, writable,
carries the command in, and its output and exit status out: an emulated serial line would now and then keep the last of
what is said.  The kernel's messages are shown only when the machine has ended without a status.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from tests.vm import initramfs
from tests.vm.errors import Impossible
from tests.vm.kernel import Kernel

TIMED_OUT = 124
NO_STATUS = 125
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "modprobe": "kmod", "busybox": "busybox-static"}
"""Programs, and the packages they are in."""
PASSED = ("PYFLANNEL_", "PYTHON", "PYTEST_", "HYPOTHESIS_", "HOME", "LANG", "LC_")
"""What the names of those variables begin with that a command finds in its environment as here."""

_HERE = Path(__file__).parent
_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
# The plainest of CPUs: with more features the kernel takes to vector instructions, which are slower when emulated.
_CPU = "qemu64"
_KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 tsc=reliable"
_CONSOLE_LINES = 40
_LOOK_S = 0.1


def check_tools() -> None:
    """Raise ``Impossible`` if a program is not there."""
    # What is in sbin is not on everybody's path.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    os.environ["PATH"] = path
    absent = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    if absent:
        raise Impossible(f"not installed: {', '.join(absent)}. As root, run: apt-get install {' '.join(absent)}")


def run(kernel: Kernel, command: Sequence[str], patience: float) -> int:
    """Run a command on ``kernel`` and return its exit status, or ``TIMED_OUT`` after ``patience`` seconds."""
    with TemporaryDirectory(prefix="pyflannel-vm-") as place:
        job = Path(place)
        (job / "command").write_text(script(command, Path.cwd(), environment(os.environ)))
        shutil.copy(_HERE / "guest-start.sh", job / "start")
        (job / "initramfs").write_bytes(initramfs.archive(_first_files(kernel)))
        # Output of ours that is still on its way is to come before that of the command.
        sys.stdout.flush()
        in_time = _emulate(argv(kernel, job), job / "output", patience)
        try:
            return int((job / "status").read_text())
        except (FileNotFoundError, ValueError):
            pass
        if not in_time:
            print(f"tests.vm: not ended after {patience:.0f} s: {shlex.join(command)}", file=sys.stderr)
            return TIMED_OUT
        console = (job / "console").read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
        raise Impossible("\n".join(["the machine ended without a word about the command. Its console:", *console]))


def environment(here: Mapping[str, str]) -> dict[str, str]:
    """What a command finds in its environment, where ours is ``here``."""
    passed = {name: value for name, value in here.items() if name.startswith(PASSED)}
    # `python` and `pytest` are to be those that this program runs with.
    path = f"{Path(sys.executable).parent}:{here.get('PATH', os.defpath)}"
    # In memory, empty, and there even for those who have a /run of their own.
    return {**passed, "PATH": path, "TMPDIR": "/dev/shm"}


def script(command: Sequence[str], place: Path, variables: Mapping[str, str]) -> str:
    """A shell script that becomes ``command``, in ``place``, with these variables."""
    exports = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return "\n".join([*exports, f"cd {shlex.quote(str(place))} || exit", f"exec {shlex.join(command)}", ""])


def argv(kernel: Kernel, job: Path) -> list[str]:
    """The command line of qemu; ``job`` has an initramfs, and is shared with the machine."""
    words = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    words += ["-accel", "tcg,thread=multi", "-cpu", _CPU, "-smp", str(min(4, os.cpu_count() or 1)), "-m", "2048"]
    words += ["-kernel", str(kernel.image), "-initrd", str(job / "initramfs"), "-append", _KERNEL_ARGUMENTS]
    words += ["-serial", f"file:{_escaped(job / 'console')}"]
    for tag, path in (("root", Path("/")), ("modules", kernel.modules), ("job", job)):
        mode = "" if path == job else ",readonly=on"
        words += ["-virtfs", f"local,mount_tag={tag},path={_escaped(path)},security_model=none,multidevs=remap{mode}"]
    return words


def _escaped(path: Path) -> str:
    """As it may stand in an option of qemu."""
    return str(path).replace(",", ",,")


def _first_files(kernel: Kernel) -> dict[str, bytes]:
    busybox = shutil.which("busybox")
    assert busybox is not None
    modules = enumerate(kernel.modules_for(*_MODULES))
    return {
        "init": (_HERE / "guest-init.sh").read_bytes(),
        "bin/busybox": Path(busybox).read_bytes(),
        **{f"modules/{number:02}.ko": content for number, content in modules},
    }


def _emulate(command: Sequence[str], output: Path, patience: float) -> bool:
    """Whether it ended by itself; what appears in the file ``output`` is passed on meanwhile."""
    output.touch()
    give_up = time.monotonic() + patience
    # Were we killed, the machine would run on for ever.
    protected = ["setpriv", "--pdeathsig", "KILL", *command]
    with subprocess.Popen(protected, stdin=subprocess.DEVNULL) as qemu, output.open("rb") as said:
        try:
            while running := qemu.poll() is None:
                _pass_on(said)
                if time.monotonic() > give_up:
                    break
                time.sleep(_LOOK_S)
            _pass_on(said)
            return not running
        finally:
            qemu.kill()


def _pass_on(said: BinaryIO) -> None:
    sys.stdout.buffer.write(said.read())
    sys.stdout.flush()
