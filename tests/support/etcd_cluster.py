"""A real etcd of three members, each of which can be killed, frozen, started again, or given other data.

    with EtcdCluster(tmp_path) as etcd:
        etcd.ctl("put", "/coreos.com/network/config", "{}")
        etcd.kill(etcd.leader())

They run on loopback, or wherever ``places`` says.  Only processes started here are ever ended, by their own handles.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.etcd import free_ports
from tests.support.machines import hold

_START_S = 30.0
_CTL_S = "3s"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member runs."""

    address: str = LOOPBACK
    namespace: str = ""
    """A network namespace known to ``ip netns``; empty: our own."""


@dataclass(frozen=True, slots=True)
class _Status:
    """Who a member is, and whom it follows (0: nobody)."""

    member_id: int
    leader_id: int


class _Member:
    """One process, its addresses and its data."""

    def __init__(self, name: str, place: Place, directory: Path, secure: bool) -> None:
        self.name = name
        self.data = directory / name
        self.log = directory / f"{name}.log"
        client_port, peer_port = free_ports(2)
        self.client_url = f"{'https' if secure else 'http'}://{place.address}:{client_port}"
        self.peer_url = f"http://{place.address}:{peer_port}"
        self.prefix = ["ip", "netns", "exec", place.namespace] if place.namespace else []
        self.process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False


class EtcdCluster:
    """Three members, or as many as there are ``places``; running from the start of the ``with`` block to its end."""

    def __init__(
        self,
        directory: Path,
        *,
        places: Sequence[Place] = (Place(),) * 3,
        quota: int | None = None,
        pki: Path | None = None,
        arguments: Iterable[str] = (),
    ) -> None:
        """``quota``: bytes of data after which etcd says it is full.

        ``pki``, a directory of ``make_pki``: TLS for clients, who must show a certificate.
        """
        self._members = [_Member(f"m{index}", place, directory, pki is not None) for index, place in enumerate(places)]
        self._initial = ",".join(f"{member.name}={member.peer_url}" for member in self._members)
        self._arguments = ["--heartbeat-interval=50", "--election-timeout=500", *arguments]
        self._identity: list[str] = []
        if quota is not None:
            self._arguments.append(f"--quota-backend-bytes={quota}")
        if pki is not None:
            ca, server, key = (pki / name for name in ("ca.pem", "server.pem", "server.key"))
            self._arguments += [f"--cert-file={server}", f"--key-file={key}", f"--trusted-ca-file={ca}"]
            self._arguments.append("--client-cert-auth")
            self._identity = [f"--cacert={ca}", f"--cert={server}", f"--key={key}"]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ETCD_", "ETCDCTL_"))},
            "ETCDCTL_API": "3",
        }
        self.who: list[str] = []
        """How ``ctl`` says who it is, once authentication is on: ``["--user=root:…"]``."""

    @property
    def urls(self) -> list[str]:
        """Where clients find the members."""
        return [member.client_url for member in self._members]

    def __enter__(self) -> EtcdCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for index in range(len(self._members)):
            self.kill(index)

    # Faults

    def start(self, *indexes: int) -> None:
        """Start these members, or all that do not run, with the data they have; returns when they answer."""
        chosen = indexes or [index for index, member in enumerate(self._members) if member.process is None]
        for index in chosen:
            self._spawn(self._members[index])
        for index in chosen:
            self._wait_for(self._members[index])

    def kill(self, *indexes: int) -> None:
        """End these members, or all, without a word of farewell; what they acknowledged is on disk."""
        for index in indexes or range(len(self._members)):
            self._members[index].is_frozen = False
            process, self._members[index].process = self._members[index].process, None
            if process is not None:
                process.kill()
                process.wait()

    def freeze(self, index: int) -> None:
        """Let a member hang: connections stay, and the kernel goes on accepting new ones."""
        hold(self._running(index))
        self._members[index].is_frozen = True

    def thaw(self, index: int) -> None:
        """Let it go on."""
        self._running(index).send_signal(signal.SIGCONT)
        self._members[index].is_frozen = False

    def heal(self) -> None:
        """End all faults: no member hangs, all run."""
        for index, member in enumerate(self._members):
            if member.is_frozen:
                self.thaw(index)
        self.start()

    def move_leader(self) -> int:
        """Make another member the leader; which."""
        before = self.leader()
        after = (before + 1) % len(self._members)
        status = self._status(after)
        assert status is not None
        self.ctl("move-leader", f"{status.member_id:x}", member=before)
        return after

    def compact(self) -> None:
        """Forget all revisions but the present one."""
        self.ctl("compact", str(self.revision()))

    def save(self, file: Path) -> None:
        """Write a snapshot of the data."""
        self.ctl("snapshot", "save", str(file), member=0)

    def restore(self, file: Path) -> None:
        """Begin again from a snapshot, all members at once."""
        self.kill()
        for member in self._members:
            shutil.rmtree(member.data, ignore_errors=True)
            self._etcdctl(
                [
                    *("snapshot", "restore", str(file), f"--name={member.name}", f"--data-dir={member.data}"),
                    *(f"--initial-cluster={self._initial}", f"--initial-advertise-peer-urls={member.peer_url}"),
                ]
            )
        self.start()

    def wipe(self) -> None:
        """Begin again from nothing, all members at once."""
        self.kill()
        for member in self._members:
            shutil.rmtree(member.data, ignore_errors=True)
        self.start()

    # Questions

    def ctl(self, *arguments: str, stdin: str | None = None, member: int | None = None) -> str:
        """What ``etcdctl`` prints, asking any member that can answer, or that one."""
        running = [each for each in self._members if each.process is not None and not each.is_frozen]
        asked = running if member is None else [self._members[member]]
        endpoints = ",".join(each.client_url for each in asked)
        return self._etcdctl(
            [f"--endpoints={endpoints}", *self._identity, *self.who, *arguments], stdin, asked[0].prefix
        )

    def attempt(self, *arguments: str, stdin: str | None = None) -> str | None:
        """The same, or None if etcd says no."""
        try:
            return self.ctl(*arguments, stdin=stdin)
        except AssertionError:
            return None

    def leader(self) -> int:
        """Which member leads; waits until one does."""
        give_up = time.monotonic() + _START_S
        while time.monotonic() < give_up:
            for index, member in enumerate(self._members):
                status = self._status(index) if member.process is not None and not member.is_frozen else None
                if status is not None and status.leader_id == status.member_id:
                    return index
            time.sleep(0.05)
        raise AssertionError("no leader")

    def revision(self) -> int:
        """Of the store, now."""
        found = json.loads(self.ctl("get", "--write-out=json", "nothing"))
        return int(found["header"]["revision"])

    def _status(self, index: int) -> _Status | None:
        """What a member says of itself; None if it does not."""
        try:
            told = json.loads(self.ctl("endpoint", "status", "--write-out=json", member=index))
        except AssertionError:
            return None
        status = told[0]["Status"]
        return _Status(status["header"]["member_id"], status.get("leader", 0))

    def _running(self, index: int) -> subprocess.Popen[bytes]:
        process = self._members[index].process
        assert process is not None
        return process

    def _spawn(self, member: _Member) -> None:
        assert member.process is None
        argv = [
            *(*member.prefix, "etcd", f"--name={member.name}", f"--data-dir={member.data}"),
            *(f"--listen-client-urls={member.client_url}", f"--advertise-client-urls={member.client_url}"),
            *(f"--listen-peer-urls={member.peer_url}", f"--initial-advertise-peer-urls={member.peer_url}"),
            *(f"--initial-cluster={self._initial}", "--log-level=warn", "--logger=zap", *self._arguments),
        ]
        with member.log.open("ab") as log:
            member.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def _wait_for(self, member: _Member) -> None:
        index = self._members.index(member)
        give_up = time.monotonic() + _START_S
        while (status := self._status(index)) is None or not status.leader_id:
            if self._running(index).poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise AssertionError(f"etcd {member.name} did not start: {member.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _etcdctl(self, arguments: Sequence[str], stdin: str | None = None, prefix: Sequence[str] = ()) -> str:
        command = [*prefix, "etcdctl", f"--command-timeout={_CTL_S}", f"--dial-timeout={_CTL_S}", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=self._environment)
        assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr}"
        return done.stdout
