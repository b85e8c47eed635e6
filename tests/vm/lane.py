"""``make test-vm``: the tests that ``selection`` picks, with nothing skipped for want of what the stock kernel has.

They are collected here first.  That says which files to hand over, and leaves compiled Python beside them: to compile
it there would take longer than the tests.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.vm.errors import executed

PROMISE = "root,netns,bridge,veth,vxlan,iptables,etcd,ipip,wireguard,wg,netem,dummy,flowtable"
SLOWNESS = "20"
PLACES = ("tests/netns", "tests/contract")
# Two agents or more start at a time, and yet most of the time but one program is at work.
_TOGETHER = ("-n", "2", "--dist=loadfile")
_PYTEST = ("-m", "pytest", "-q", "-p", "tests.vm.selection")


def command(root: Path) -> list[str]:
    """What runs the lane, in a machine; ``root`` is the checkout.  ``Impossible`` if the tests cannot be collected."""
    os.chdir(root)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.update(PYFLANNEL_TEST_PROMISE=PROMISE, PYFLANNEL_TEST_SLOWNESS=SLOWNESS)
    executed([sys.executable, "-m", "compileall", "-q", "src", "tests/support"])
    listing = executed([sys.executable, *_PYTEST, "--collect-only", *PLACES])
    files = sorted({line.partition("::")[0] for line in listing.splitlines() if "::" in line})
    return [sys.executable, *_PYTEST, "--timeout=600", *_TOGETHER, *files]
