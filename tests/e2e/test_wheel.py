"""What ``pip install`` comes to with a compiler and without: both work, and one is quicker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = "pyflannel/tunnel/_fast.abi3.so"
PAGE = "pyflannel/telemetry/page/static"
NO_COMPILER = {"CC": "/bin/false"}

CHECK = """
from pyflannel.tunnel import batch
from tests.support.tunnel_packets import Flow
frame = Flow().tcp_super(bytes(range(256)) * 100, 1000)
functions = batch.compiled() or batch.PYTHON
assert functions.segment(frame) == batch.PYTHON.segment(frame)
print(functions.language, batch.__file__)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy to build from: an editable install writes into it."""
    made = tmp_path / "source"
    made.mkdir()
    for name in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made)
    shutil.copytree(ROOT / "src", made / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return made


def wheel(source: Path, environment: dict[str, str]) -> Path:
    target = source.with_name("wheels")
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", f"--wheel-dir={target}", str(source)]
    run(command, environment)
    (made,) = target.iterdir()
    return made


def run(arguments: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def language(place: Path) -> str:
    """In which the functions are that a forwarder would use which is installed at ``place``."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(place), str(ROOT)))}
    command = [sys.executable, "-c", CHECK]
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, path = done.stdout.split()
    assert Path(path).is_relative_to(place)
    return found


def installed(made: Path) -> Path:
    place = made.parent.with_name("installed")
    with ZipFile(made) as archive:
        archive.extractall(place)
    return place


@pytest.mark.needs("compiler")
def test_a_wheel_has_the_extension_in_it_for_every_python_from_3_11_on(source: Path) -> None:
    made = wheel(source, {})
    assert "-cp311-abi3-linux_" in made.name
    assert LIBRARY in ZipFile(made).namelist()
    assert language(installed(made)) == "C"


def test_without_a_compiler_the_wheel_is_of_python_alone_and_for_every_machine(source: Path) -> None:
    made = wheel(source, NO_COMPILER)
    assert made.name.endswith("-py3-none-any.whl")
    assert not [name for name in ZipFile(made).namelist() if name.endswith(".so")]
    page = {f"{PAGE}/{file.name}" for file in (source / "src" / PAGE).iterdir()}
    assert f"{PAGE}/index.html" in page
    assert page <= set(ZipFile(made).namelist())
    assert language(installed(made)) == "Python"


@pytest.mark.needs("compiler")
def test_an_editable_install_has_the_extension_where_the_source_is(source: Path) -> None:
    # As hatchling does; the rest of an editable install is a line with the path of the source.
    build = (
        "from hatch_build import ExtensionHook\n"
        "data = {'force_include': {}}\n"
        "hook = ExtensionHook('.', {}, None, None, '', 'wheel')\n"
        "hook.initialize('editable', data)\n"
        "hook.finalize('editable', data, '')\n"
        "assert not data['force_include']"
    )
    for environment, expected in (({}, "C"), (NO_COMPILER, "Python")):
        command = [sys.executable, "-c", build]
        subprocess.run(command, cwd=source, env=os.environ | environment, check=True, capture_output=True)
        assert language(source / "src") == expected


def test_a_forwarder_without_the_extension_says_so_once(source: Path) -> None:
    place = installed(wheel(source, NO_COMPILER))
    launch = (
        "import os, pathlib; from pyflannel.tunnel.control import launch\n"
        "remote, pid = launch(pathlib.Path('control.sock'))\n"
        "assert remote.hello().language == 'Python'\n"
        "remote.stop(); os.waitpid(pid, 0)"
    )
    environment = os.environ | {"PYTHONPATH": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", launch], env=environment, cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines() == [
        "INFO forwarder: no C extension: packets are segmented and merged in Python",
    ]
