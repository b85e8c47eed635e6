"""The lab's memory: one directory a lab, with ``lab.json`` in it.

Rules of this file
  1. What is not in ``lab.json`` is not ours.  Whatever is started is recorded before it can outlive us.
  2. A lab's directory appears with its record in it and goes away in one step, so a directory without a readable
     record is somebody else's and stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from pyflannel.lab import LabError
from pyflannel.lab.plan import Plan
from pyflannel.lab.process import Process

_FILE: Final = "lab.json"
_MAKER: Final = "flannelctl lab"


@dataclass(slots=True)
class Lab:
    """A lab as it is recorded; ``processes`` grows while it is built."""

    directory: Path
    plan: Plan
    user_namespace: bool
    """Built without root: everything is inside one user namespace."""
    processes: dict[str, Process] = field(default_factory=dict)
    """By the name of the switch, the host, the container, the agent, or etcd."""
    remarks: list[str] = field(default_factory=list)
    """What is not as in a real cluster, for people."""

    def save(self) -> None:
        """Write the record; whoever reads it sees the old one or this."""
        text = json.dumps(
            {
                "made_by": _MAKER,
                "plan": asdict(self.plan),
                "user_namespace": self.user_namespace,
                "processes": {name: asdict(process) for name, process in self.processes.items()},
                "remarks": self.remarks,
            },
            indent=1,
        )
        new = self.directory / f"{_FILE}.new"
        new.write_text(text)
        new.replace(self.directory / _FILE)


def labs_directory(uid: int, environ: Mapping[str, str]) -> Path:
    """Where the labs of user ``uid`` are recorded: a place that does not outlive a boot, if there is one."""
    if uid == 0:
        return Path("/run/pyflannel-lab")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "pyflannel-lab")
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home(), ".cache")
    return Path(cache, "pyflannel-lab")


def create(labs: Path, plan: Plan, *, user_namespace: bool) -> Lab:
    """A directory with an empty record for a new lab; ``LabError`` if there is one of that name."""
    directory = labs / plan.name
    try:
        labs.mkdir(parents=True, exist_ok=True)
        lab = Lab(Path(tempfile.mkdtemp(prefix=".new-", dir=labs)), plan, user_namespace)
    except OSError as error:
        raise LabError(f"cannot keep a record of the lab in {labs}: {error.strerror}") from error
    try:
        lab.save()
        lab.directory.rename(directory)
    except OSError as error:
        shutil.rmtree(lab.directory)
        if directory.exists():
            raise LabError(f"there is a lab {plan.name!r} already ({directory}); {_hint(plan.name)}") from error
        raise LabError(f"cannot make {directory}: {error.strerror}") from error
    lab.directory = directory
    return lab


def _hint(name: str) -> str:
    return f"see it with `flannelctl lab status --name {name}`, end it with `flannelctl lab down --name {name}`"


def names(labs: Path) -> list[str]:
    """The labs recorded here."""
    return sorted(path.parent.name for path in labs.glob(f"[!.]*/{_FILE}"))


def load(labs: Path, name: str) -> Lab | None:
    """The lab of that name, None if there is none; ``LabError`` if what is there was not made by us."""
    directory = labs / name
    if not directory.exists():
        return None
    try:
        if directory.lstat().st_uid != os.geteuid():
            raise LabError(f"{directory} belongs to user {directory.lstat().st_uid}; nothing was touched")
        text = (directory / _FILE).read_text()
    except OSError as error:
        raise LabError(
            f"{directory} holds no record of a lab ({error.strerror}: {_FILE}); nothing was touched"
        ) from error
    try:
        return _parse(name, directory, text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise LabError(f"{directory / _FILE} is not a record of a lab ({error!r}); nothing was touched") from error


def _parse(name: str, directory: Path, text: str) -> Lab:
    record = json.loads(text)
    if (record["made_by"], record["plan"]["name"]) != (_MAKER, name):
        raise ValueError(f"it is of {record['plan']['name']!r}, made by {record['made_by']!r}")
    processes = {str(name): Process(**process) for name, process in record["processes"].items()}
    return Lab(directory, Plan(**record["plan"]), bool(record["user_namespace"]), processes, list(record["remarks"]))


def remove(lab: Lab) -> None:
    """Take the record and everything beside it away, and the directory of labs if this was the last."""
    grave = lab.directory.with_name(f".old-{lab.plan.name}-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        lab.directory.rename(grave)
        shutil.rmtree(grave)
    with contextlib.suppress(OSError):  # other labs are in it
        lab.directory.parent.rmdir()
