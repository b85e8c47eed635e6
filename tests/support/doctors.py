"""``flannelctl doctor`` on the hosts of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pyflannel import conditions
from tests.support.capabilities import SLOWNESS
from tests.support.pair import Host

OF_THE_AGENT = frozenset(kind.code for kind in conditions.ALL)


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of one."""

    status: int
    document: dict[str, list[dict[str, object]]]
    text: str

    @property
    def codes(self) -> list[object]:
        """What the doctor itself has found: a broken network may have the agent complain as well."""
        return [each["code"] for each in self.document["findings"] if each["code"] not in OF_THE_AGENT]

    @property
    def complaints(self) -> list[object]:
        """The agent's own."""
        return [each["code"] for each in self.document["findings"] if each["code"] in OF_THE_AGENT]

    @property
    def fixed(self) -> list[object]:
        """What was put right."""
        return [each["code"] for each in self.document["fixed"]]

    @property
    def evidence(self) -> str:
        """Of all of it."""
        return "\n".join(str(each["evidence"]) for each in [*self.document["findings"], *self.document["fixed"]])


def arguments(host: Host) -> list[str]:
    """The flags that the agent of ``host`` has."""
    places = [f"-subnet-file={host.subnet_file}", f"-state-dir={host.home}"]
    return [f"-store=local:{host.store.path}", *places, *host.flags]


def run(host: Host, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The program as a person calls it."""
    return at(host.enter, arguments(host), *options, stdin=stdin)


def at(
    enter: Sequence[str], flags: Sequence[str], *options: str, command: str = "doctor", stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The same, anywhere."""
    program = [*enter, sys.executable, "-m", "pyflannel.cli.flannelctl", command, "--no-defaults", *options]
    return subprocess.run(
        [*program, "--", *flags], input=stdin, capture_output=True, text=True, check=False, timeout=60 * SLOWNESS
    )


def visit(host: Host, *options: str) -> Visit:
    """What the doctor finds on ``host``."""
    return read(run(host, "--json", *options))


def read(done: subprocess.CompletedProcess[str]) -> Visit:
    """The answer of ``--json``."""
    assert done.returncode in (0, 1), done.stderr
    return Visit(done.returncode, json.loads(done.stdout), done.stdout + done.stderr)
