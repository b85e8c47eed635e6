"""Builds the C extension into the wheel, where there is a compiler.  Without one the wheel is of Python alone.

The extension makes the udp backend several times quicker and changes nothing else (``pyflannel.tunnel.batch``), so no
installation fails for want of it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/pyflannel/tunnel/_fast.c")
LIBRARY = SOURCE.with_name("_fast.abi3.so")
PYTHON_TAG = "cp311-abi3"
"""As Py_LIMITED_API in the source says: one build serves Python 3.11 and all later ones."""


class ExtensionHook(BuildHookInterface[Any]):
    """What hatchling calls before and after it makes a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel is for this platform; an editable install finds the library in the source."""
        if self.target_name != "wheel":
            return
        self._place = tempfile.TemporaryDirectory()
        root, in_place = Path(self.root), version == "editable"
        built = root / LIBRARY if in_place else Path(self._place.name, LIBRARY.name)
        built.unlink(missing_ok=True)
        if (trouble := _compile(root / SOURCE, built)) is not None:
            self.app.display_warning(f"pyflannel is built without its C extension: {trouble}")
            return
        if not in_place:
            build_data["force_include"][str(built)] = str(LIBRARY.relative_to("src"))
        build_data["pure_python"] = False
        build_data["tag"] = f"{PYTHON_TAG}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear away what was compiled."""
        if self.target_name == "wheel":
            self._place.cleanup()


def _compile(source: Path, target: Path) -> str | None:
    """None if there is a library at ``target`` now, else why not."""
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        return f"it is for CPython on Linux, and this is {sys.implementation.name} on {sys.platform}"
    words = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    words += [
        "-O3",
        "-fPIC",
        "-shared",
        f"-I{sysconfig.get_path('include')}",
        *shlex.split(os.environ.get("CFLAGS", "")),
    ]
    try:
        done = subprocess.run([*words, "-o", str(target), str(source)], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"{words[0]}: {error.strerror}"
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return f"{words[0]}: {said[0] if said else f'exit status {done.returncode}'}"
