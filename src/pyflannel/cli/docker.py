"""``flannelctl docker-opts`` and ``flannelctl docker``: how Docker learns which subnet and MTU to use.

Rules of this file
  1. ``docker-opts`` is mk-docker-opts.sh under another name: same options, same output, same exit status (compat §4.3).
  2. ``docker configure`` looks at everything first and writes last: a reason not to write leaves no file changed.
  3. It never starts, stops or reloads anything; it says what to run.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from pyflannel.cli import units
from pyflannel.cli.terminal import StatusOneCommand
from pyflannel.outputs import DOCKER_FILE, SUBNET_FILE, docker_options, parse_env, route_through, write_atomic

UNIT_DIRECTORIES: Final = tuple(f"{top}/systemd/system" for top in ("etc", "run", "usr/local/lib", "usr/lib", "lib"))
"""Where units live, below the root; the first that has one wins (systemd.unit(5))."""
DROP_IN: Final = "flannel.conf"
TRUE_WORDS: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
"""What a boolean option of flanneld takes for true (compat §1.1)."""


def _usage(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(1)


def _variable_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
        raise click.BadParameter(f"{name!r} is no name of a variable")
    return name


@click.command(
    "docker-opts",
    cls=StatusOneCommand,
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
)
@click.option("-f", "source", metavar="FILE", default=SUBNET_FILE, show_default=True, help="Read flannel's variables.")
@click.option("-d", "target", metavar="FILE", default=DOCKER_FILE, show_default=True, help="Write Docker's options.")
@click.option("-i", "individual", is_flag=True, help="Write each option as a variable, e.g. DOCKER_OPT_MTU.")
@click.option("-c", "combined", is_flag=True, help="Write all options as one variable.  Neither -i nor -c: both.")
@click.option("-m", "no_ip_masq", is_flag=True, help="Leave --ip-masq out.")
@click.option(
    "-k",
    "key",
    metavar="KEY",
    default="DOCKER_OPTS",
    show_default=True,
    callback=_variable_name,
    help="Name of the variable for -c.",
)
@click.option("-h", is_flag=True, is_eager=True, expose_value=False, callback=_usage, help="Show this; exit 1.")
def docker_opts(source: str, target: str, individual: bool, combined: bool, no_ip_masq: bool, key: str) -> None:
    """Turn subnet.env into options for Docker.

    Same options, output and exit status as mk-docker-opts.sh.
    """
    variables = {**os.environ, **parse_env(_read(Path(source)) or "")}
    try:
        text = docker_options(
            variables,
            individual=individual or not combined,
            combined=combined or not individual,
            ip_masq=not no_ip_masq,
            key=key,
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    _write(Path(target), text)
    if route := route_through(variables.get("FLANNEL_SUBNET", ""), _routes()):
        raise click.ClickException(f"Your routing table already contains the subnet: {route}")


def _routes() -> str:
    """The IPv4 routes of this host; empty where there is no ``ip`` to ask."""
    try:
        return subprocess.run(["ip", "-4", "route", "show"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _read(path: Path) -> str | None:
    """The text of a regular file; None if there is none."""
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    """Put ``text`` into ``path``: a file is replaced as a whole, also behind a symbolic link; a pipe is written to."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors="surrogateescape")
        else:
            write_atomic(path.resolve(), text)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None


@click.group()
def docker() -> None:
    """Make Docker use this host's subnet."""


def _plain_path(_: click.Context, __: click.Parameter, path: str | None) -> str | None:
    if path is not None and re.fullmatch(r"/[\w./+@:-]*", path, re.ASCII) is None:
        raise click.BadParameter(f"{path!r} is no absolute path of letters, digits and ./_+@:-")
    return path


def _beside_us(ctx: click.Context, param: click.Parameter, path: str | None) -> str | None:
    if path != "":
        return _plain_path(ctx, param, path)
    for program in (Path(sys.argv[0]).absolute(), Path(sys.executable)):
        if os.access(beside := program.with_name("flanneld"), os.X_OK):
            return _plain_path(ctx, param, str(beside))
    if (found := shutil.which("flanneld")) is None:
        raise click.BadParameter("there is no flanneld beside flannelctl or in PATH; say where: --flanneld PATH")
    return _plain_path(ctx, param, found)


def _version(_: click.Context, __: click.Parameter, text: str | None) -> units.Version | None:
    if text is not None and units.docker_version(text) is None:
        raise click.BadParameter(f"{text!r} holds no version such as 28.2.2")
    return units.docker_version(text or "")


@dataclass(frozen=True, slots=True)
class Change:
    """One file, as it is and as it will be."""

    path: Path
    old: str | None
    new: str

    @property
    def foreign(self) -> bool:
        """Whether somebody else's file is in the way."""
        return self.old is not None and units.MARKER not in self.old.splitlines()

    def show(self) -> None:
        """Print what changes, as a unified diff."""
        if self.old == self.new:
            click.echo(f"{self.path}: unchanged")
            return
        before = "/dev/null" if self.old is None else str(self.path)
        old, new = (self.old or "").splitlines(), self.new.splitlines()
        for line in difflib.unified_diff(old, new, before, str(self.path), lineterm=""):
            colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[0])
            click.secho(line, fg=colour)


@docker.command()
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path("/"),
    show_default=True,
    help="Configure the system below this directory.",
)
@click.option("--subnet-file", metavar="PATH", default=SUBNET_FILE, show_default=True, callback=_plain_path)
@click.option(
    "--dockerd", metavar="PATH", callback=_plain_path, help="The Docker daemon, if not as docker.service has it."
)
@click.option("--docker-version", metavar="VERSION", callback=_version, help="Default: what dockerd --version says.")
@click.option(
    "--flanneld",
    metavar="[PATH]",
    is_flag=False,
    flag_value="",
    callback=_beside_us,
    help="Also write flanneld.service; default path: the flanneld beside flannelctl.",
)
@click.option(
    "--ip-masq/--no-ip-masq",
    default=None,
    help="Whether Docker masquerades.  Default: unless flanneld does, as its settings say.",
)
@click.option("--force", is_flag=True, help="Overwrite files that are not flannelctl's.")
def configure(
    dry_run: bool,
    root: Path,
    subnet_file: str,
    dockerd: str | None,
    docker_version: units.Version | None,
    flanneld: str | None,
    ip_masq: bool | None,
    force: bool,
) -> None:
    """Write the systemd drop-in that has Docker start after flanneld, on its subnet and with its MTU."""
    command = _docker_command(root, dockerd)
    if docker_version is None and root == Path("/"):
        docker_version = installed_version(command)
    access = units.direct_access(docker_version or (0, 0, 0))
    if ip_masq is None:
        ip_masq = not _flanneld_masquerades(root, subnet_file)

    wanted = dict.fromkeys(access.settings, True) | ({} if ip_masq else {"ip-masq": False})
    daemon_json = _daemon_json(root)
    switches = {name: on for name, on in wanted.items() if daemon_json.get(name) is not on}
    _refuse_conflicts(root, daemon_json, switches, command)

    texts = {
        f"docker.service.d/{DROP_IN}": units.docker_drop_in(command, switches, access.environment, subnet_file),
    }
    if flanneld is not None:
        texts["flanneld.service"] = units.flanneld_service(flanneld, subnet_file)
    paths = {root / UNIT_DIRECTORIES[0] / name: text for name, text in texts.items()}
    changes = [Change(path, _read(path), text) for path, text in paths.items()]
    if not force and (foreign := [str(change.path) for change in changes if change.foreign]):
        raise click.ClickException(f"not flannelctl's, so left alone: {', '.join(foreign)} (--force overwrites)")

    for change in changes:
        change.show()
        if not dry_run and change.old != change.new:
            _write(change.path, change.new)
    told = re.search(r"\s--firewall-backend[=\s]nftables\b", command) is not None
    native = told or daemon_json.get("firewall-backend") == "nftables"
    for note in _notes(root, docker_version, access, ip_masq, native):
        click.secho(f"note: {note}", fg="yellow", err=True)
    if dry_run:
        click.echo("Dry run: nothing was written.")
        return
    click.echo("Next, which restarts Docker and, unless it has live-restore, every container:")
    click.echo("  systemctl daemon-reload && systemctl enable --now flanneld && systemctl restart docker")


def _unit_files(root: Path, name: str) -> Iterator[Path]:
    """The unit and its drop-ins, in the order systemd reads them; ours is left out."""
    places = [root / directory for directory in UNIT_DIRECTORIES]
    yield from [place / name for place in places if (place / name).is_file()][:1]
    drop_ins: dict[str, Path] = {}
    for place in places:
        for path in place.glob(f"{name}.d/*.conf"):
            drop_ins.setdefault(path.name, path)
    yield from (path for _, path in sorted(drop_ins.items()) if path.name != DROP_IN)


def _docker_command(root: Path, dockerd: str | None) -> str:
    """How Docker is started now, but for our drop-in; with the program at ``dockerd`` if that is given."""
    files = list(_unit_files(root, "docker.service"))
    command = units.exec_start(_read(path) or "" for path in files)
    if command is None:
        click.secho(f"note: no docker.service below {root}: assuming {units.DOCKERD!r}", fg="yellow", err=True)
        command = units.DOCKERD
    for path in files:
        if (
            path.name > DROP_IN
            and path.parent.name == "docker.service.d"
            and units.exec_start([_read(path) or ""]) is not None
        ):
            raise click.ClickException(
                f"{path} is read after {DROP_IN} and its ExecStart would win: "
                f"take ExecStart out of it, or give it a name before {DROP_IN}, such as 10-{path.name}"
            )
    return command if dockerd is None else re.sub(r"^([-@:+!]*)\S+", rf"\g<1>{dockerd}", command)


def installed_version(command: str) -> units.Version | None:
    """The version of the Docker daemon which ``command``, an ExecStart, starts; None if it does not say.

    The daemon is asked, not the client: the two can be of different age.
    """
    try:
        done = subprocess.run(
            [command.split()[0].lstrip("-@:+!"), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return units.docker_version(done.stdout)


def _flanneld_masquerades(root: Path, subnet_file: str) -> bool:
    """What flanneld is told, or else what it did when it ran last."""
    for name, variable in (("etc/default/flanneld", "FLANNELD_IP_MASQ"), (subnet_file.lstrip("/"), "FLANNEL_IPMASQ")):
        if word := parse_env(_read(root / name) or "").get(variable):
            return word in TRUE_WORDS
    return False


def _daemon_json(root: Path) -> Mapping[str, object]:
    path = root / "etc/docker/daemon.json"
    try:
        found: object = json.loads(_read(path) or "{}")
    except ValueError as error:
        raise click.ClickException(f"{path} is not JSON, so Docker cannot start: {error}") from None
    if not isinstance(found, dict):
        raise click.ClickException(f"{path} is not a JSON object, so Docker cannot start")
    return found


def _refuse_conflicts(
    root: Path, daemon_json: Mapping[str, object], switches: Mapping[str, bool], command: str
) -> None:
    """Stop before anything is written that Docker would not start with."""
    if keys := units.conflicts(daemon_json, switches):
        quoted = ", ".join(f'"{key}"' for key in keys)
        raise click.ClickException(
            f"{root / 'etc/docker/daemon.json'} sets {quoted}: Docker does not start with that beside the options "
            f"that come from flannel.  Take {quoted} out of the file and run this again."
        )
    if re.search(r"\s(-b|--bridge)[=\s]", command):
        raise click.ClickException(
            f"docker.service starts {command!r}: --bridge and --bip exclude each other.  Take --bridge out."
        )


def _notes(
    root: Path,
    version: units.Version | None,
    access: units.DirectAccess,
    ip_masq: bool,
    native: bool,
) -> Iterator[str]:
    """What a person should know beside what was written; ``native``: Docker keeps its rules with nftables itself."""
    if version is None:
        yield "cannot tell Docker's version; if it is 28 or newer, say so with --docker-version"
    if access.note:
        yield access.note
    if native:
        # An accept in one nftables table does not undo a drop in another (moby #50476).
        yield (
            "with firewall-backend nftables Docker drops what no container publishes, whatever flannel accepts: take "
            "that out, or have Docker let marked packets pass (--bridge-accept-fwmark)"
        )
        if ip_masq:
            # Nor does it end a masquerading there (docs/adr/0005).
            yield (
                "with firewall-backend nftables Docker masquerades also what goes to containers on other hosts.  To "
                "have flanneld masquerade instead, which keeps addresses inside the network, set "
                f"FLANNELD_IP_MASQ=true in {root / 'etc/default/flanneld'} and run this again"
            )
