"""The C twin for tests: the one installed, else built here with the compiler of the machine."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from pyflannel.tunnel import batch
from pyflannel.tunnel.batch import Batch

SOURCE = Path(batch.__file__).with_name("_fast.c")


@cache
def c_twin() -> Batch | None:
    """None on a machine that has neither the extension nor a compiler with Python's headers."""
    return batch.compiled() or _built()


def build(target: Path, *flags: str) -> bool:
    """Compile the extension; False if there is no compiler, or no Python.h."""
    include = sysconfig.get_paths()["include"]
    compiler = shutil.which("cc")
    if compiler is None or not Path(include, "Python.h").exists():
        return False
    warnings = ["-Wall", "-Wextra", "-Werror"]
    command = [compiler, "-O3", *warnings, *flags, "-shared", "-fPIC", f"-I{include}", "-o", str(target), str(SOURCE)]
    subprocess.run(command, check=True)
    return True


def _built() -> Batch | None:
    with tempfile.TemporaryDirectory() as place:
        target = Path(place, "_fast.abi3.so")
        if not build(target):
            return None
        loader = importlib.machinery.ExtensionFileLoader("_fast", str(target))
        spec = importlib.util.spec_from_file_location("_fast", target, loader=loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    return Batch("C", module.checksum, module.segment, module.coalesce)
