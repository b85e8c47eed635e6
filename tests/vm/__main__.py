"""Run a command on Debian's stock kernel, in an emulated machine: ``python -m tests.vm [COMMAND …]``.

Without a command it is the lane of ``make test-vm``; see ``lane`` for what that runs.  A command runs as root in the
current directory, on this machine's file system as it is now; what it writes there is forgotten when it ends.  It sees
no network but its own.  Its output comes as it goes, and its exit status is ours, or

    124   it did not end in time (``--timeout``, in seconds)
    125   the machine could not be made, or ended without a word about the command

    PYFLANNEL_VM_CACHE=DIRECTORY   where the unpacked kernel is kept, instead of .cache/vm in the checkout
    PYFLANNEL_VM_KERNEL=PACKAGE    another kernel than linux-image-amd64
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.vm import kernel, lane, machine
from tests.vm.errors import Impossible

ROOT = Path(__file__).parents[2]


def main(words: list[str]) -> int:
    """Run what the words ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description="run a command on Debian's stock kernel")
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS", help="default: 1800")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="default: the lane of `make test-vm`")
    options = parser.parse_args(words)
    # With which everything is put away that a plain end would leave.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    cache = Path(os.environ.get("PYFLANNEL_VM_CACHE") or ROOT / ".cache" / "vm")
    package = os.environ.get("PYFLANNEL_VM_KERNEL") or kernel.PACKAGE
    try:
        machine.check_tools()
        stock = kernel.kept(cache.resolve(), package)
        command = options.command or lane.command(ROOT)
        return machine.run(stock, command, options.timeout)
    except Impossible as reason:
        print(f"tests.vm: {reason}", file=sys.stderr)
        return machine.NO_STATUS
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
