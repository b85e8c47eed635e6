"""Making namespaces and running commands in them, with the host's own ``unshare``, ``nsenter`` and ``ip``.

Rules of this file
  1. A namespace lives as long as its holder, a ``sleep`` started inside it.  Nothing is pinned by a file, so nothing
     can be left behind once the process is gone.
  2. Whatever is to outlive us asks first: until it has been recorded it waits on a pipe, and ends if we are killed.
  3. The machine's file system is not written to.  Where a directory must be added (/run/flannel for hosts on a machine
     that has none), that happens in a private image of its parent directory.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pyflannel.lab import LabError
from pyflannel.lab.process import Process, namespace_of, start_time

PRIVATE: Final = ("/run/flannel", "/var/lib/flannel", "/run/wireguard")
"""What each host has for itself in its file system; the rest it shares with the machine."""

_PATIENCE_S: Final = 20.0

TOOLS: Final = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "util-linux, or mount on Debian and Ubuntu",
    "ip": "iproute2",
}
"""The programs no lab can do without, and the packages they are in."""

# A private /run and /var/lib for the whole lab, showing what the machine's hold, so that flannel's directories can be
# added to them.  xtables.lock stays out: without root iptables could not open the machine's, and with root the lab
# would make the machine's iptables wait.  So does netns: `ip netns add` in a host would leave files on the machine.
# mount -n: mount(8) would write to the machine's /run/mount.
_PRIVATE_PARENTS = """
for dir in /run /var/lib; do
    mount -n -t tmpfs -o mode=0755 tmpfs /tmp
    for entry in "$dir"/* "$dir"/.[!.]*; do
        copy=/tmp/${entry##*/}
        case ${entry##*/} in xtables.lock|netns) continue;; esac
        if [ -L "$entry" ]; then cp -P "$entry" "$copy"
        elif [ -d "$entry" ]; then mkdir "$copy"; mount -n --rbind "$entry" "$copy"
        elif [ -e "$entry" ]; then : >"$copy"; mount -n --bind "$entry" "$copy"
        fi
    done
    mkdir -p /tmp/flannel /tmp/wireguard
    mount -n --move /tmp "$dir"
done
"""
_PRIVATE_DIRECTORIES = """
for dir in {}; do mount -n -t tmpfs -o mode=0755 tmpfs "$dir"; done
""".format(" ".join(PRIVATE))
_STAY = """
hostname "$0" 2>/dev/null || :
echo ready
read -r answer
exec sleep infinity </dev/null >/dev/null 2>&1
"""


def environment() -> dict[str, str]:
    """Ours, without what would configure an agent or etcd by stealth, and with the administrator's programs found.

    Debian leaves /usr/sbin out of an ordinary user's PATH, and ``ip`` and ``iptables`` are there.
    """
    private = ("FLANNELD_", "ETCD_", "ETCDCTL_", "NOTIFY_SOCKET", "LISTEN_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(private)}
    env["PATH"] = os.pathsep.join([*filter(None, [env.get("PATH")]), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return env


def require(tools: Mapping[str, str]) -> None:
    """``LabError`` naming each of these programs that is not installed, and its package."""
    path = environment()["PATH"]
    absent = [f"{tool} (install {package})" for tool, package in tools.items() if shutil.which(tool, path=path) is None]
    if absent:
        raise LabError(f"not installed: {', '.join(absent)}")


def has(tool: str) -> bool:
    """Whether the program is installed."""
    return shutil.which(tool, path=environment()["PATH"]) is not None


def outermost(name: str, *, user: bool) -> list[str]:
    """The command of the holder that all others are made from; with ``user`` it needs no root."""
    identity = ["--user", "--map-root-user"] if user else []
    # slave: what the machine unmounts later is not kept busy by the lab, and nothing mounted here is seen out there.
    kinds = ["--net", "--uts", "--mount", "--propagation", "slave"]
    return ["unshare", *identity, *kinds, "sh", "-ec", _PRIVATE_PARENTS + _STAY, name]


def host_holder(name: str) -> list[str]:
    """The command, run from the outermost namespace, of a host's holder."""
    kinds = ["--net", "--uts", "--mount", "--propagation", "slave"]
    return ["unshare", *kinds, "sh", "-ec", _PRIVATE_DIRECTORIES + _STAY, name]


def container_holder(name: str) -> list[str]:
    """The command, run from its host's mount namespace, of a container's holder."""
    return ["unshare", "--net", "--uts", "sh", "-ec", _STAY, name]


def program(command: Sequence[str], log: Path) -> list[str]:
    """``command`` as one of those that ``staying`` starts; what it prints is added to ``log``."""
    wait = 'log=$1; shift; echo ready; read -r answer; exec "$@" </dev/null >>"$log" 2>&1'
    return ["sh", "-ec", wait, "sh", str(log), *command]


def entering(process: Process, *, user: bool) -> list[str]:
    """The words before a command that make it run where ``process`` is."""
    identity = ["--user", "--preserve-credentials"] if user else []
    return ["nsenter", f"--target={process.pid}", *identity, "--net", "--mount", "--uts", "--"]


def inside(directory: str, command: Sequence[str]) -> list[str]:
    """``command`` started in ``directory``: whoever enters a mount namespace finds himself in its root."""
    return ["sh", "-c", 'cd "$0" 2>/dev/null; exec "$@"', directory, *command]


def run(what: str, command: Sequence[str], stdin: str = "") -> str:
    """Run to the end and return what it printed; ``LabError``, starting with ``what``, if it fails."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, env=environment()
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: no answer in {_PATIENCE_S:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        raise LabError(f"{what}: {said or f'exit status {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def staying(
    commands: Mapping[str, Sequence[str]], env: Mapping[str, str] | None = None
) -> Iterator[dict[str, Process]]:
    """Start these holders and programs, by name, all at once, each in a session of its own; yields them once they wait.

    When the block ends they go on and outlive us; if it raises, they end.  ``LabError`` if one does not come up.
    """
    started: dict[str, _Starting] = {}
    try:
        for name, command in commands.items():
            started[name] = _Starting(command, environment() if env is None else env)
        deadline = time.monotonic() + _PATIENCE_S
        yield {name: one.ready(name, deadline) for name, one in started.items()}
        for one in started.values():
            one.go_on()
    except BaseException:
        for one in started.values():
            one.kill()
        raise
    finally:
        for one in started.values():
            one.close()


class _Starting:
    """A process that waits to be recorded.  It is our child and not reaped, so its pid cannot be somebody else's."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        out_end, self._answer = os.pipe()
        self._said, in_end = os.pipe()
        files = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in ((out_end, 0), (in_end, 1), (in_end, 2))]
        # Not subprocess.Popen: that insists on being waited for.  Python ignores SIGPIPE, which programs do not expect,
        # and a caller in the background may ignore others.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
        try:
            self._pid = os.posix_spawnp(
                command[0], list(command), env, file_actions=files, setsid=True, setsigdef=defaults
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(out_end)
            os.close(in_end)

    def ready(self, name: str, deadline: float) -> Process:
        said = b""
        while not said.endswith(b"ready\n"):
            if not select.select([self._said], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise LabError(f"cannot start {name}: no answer in {_PATIENCE_S:.0f} s")
            if not (part := os.read(self._said, 4096)):
                text = said.decode(errors="replace").strip().replace("\n", "; ")
                raise LabError(f"cannot start {name}: {text or 'it ended without a word'}")
            said += part
        started, namespace = start_time(self._pid), namespace_of(self._pid)
        if started is None or namespace is None:
            raise LabError(f"cannot start {name}: process {self._pid} is gone")
        return Process(self._pid, started, namespace)

    def go_on(self) -> None:
        os.write(self._answer, b"go on\n")

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def close(self) -> None:
        os.close(self._answer)
        os.close(self._said)


def why_no_user_namespace(failure: str, read: Callable[[str], str | None]) -> str:
    """What to tell somebody without root whose user namespace failed with ``failure``.

    ``read`` gives the content of a file under /proc/sys, or None.
    """
    advice = "or run it as root"
    if read("kernel/unprivileged_userns_clone") == "0":
        cause = "users may not make namespaces here: `sysctl -w kernel.unprivileged_userns_clone=1` allows it"
    elif read("user/max_user_namespaces") == "0":
        cause = "users may not make namespaces here: `sysctl -w user.max_user_namespaces=10000` allows it"
    elif read("kernel/apparmor_restrict_unprivileged_userns") == "1":
        cause = (
            "AppArmor restricts namespaces here: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` allows it"
        )
    elif "unrecognized option" in failure:
        cause = "this unshare is too old: install util-linux 2.26 or newer"
    else:
        cause = "a lab without root needs unprivileged user namespaces, which this kernel or container forbids"
    return f"{failure}\n{cause}, {advice}"


def read_sysctl(name: str) -> str | None:
    """The content of /proc/sys/``name``, None if the kernel has no such setting."""
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None
