from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyflannel.cli.docker import installed_version
from pyflannel.cli.flannelctl import cli
from pyflannel.cli.units import DOCKERD, MARKER

SUBNET_ENV = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
NEXT = "systemctl daemon-reload && systemctl enable --now flanneld && systemctl restart docker"


@dataclass(frozen=True)
class Script:
    """``docker-opts`` with its files in one directory, and a host whose routes we choose."""

    directory: Path

    def run(self, *arguments: str, routes: str = "", **environment: str) -> Result:
        programs = self.directory / "bin"
        programs.mkdir(exist_ok=True)
        (programs / "ip").write_text(f"#!/bin/sh\ncat <<EOF\n{routes}\nEOF\n")
        (programs / "ip").chmod(0o755)
        (self.directory / "subnet.env").touch()
        files = ["-f", str(self.directory / "subnet.env"), "-d", str(self.target)]
        path = f"{programs}:/usr/bin:/bin"
        return CliRunner().invoke(cli, ["docker-opts", *files, *arguments], env={"PATH": path, **environment})

    @property
    def target(self) -> Path:
        return self.directory / "docker_opts.env"


@pytest.fixture
def script(tmp_path: Path) -> Script:
    (tmp_path / "subnet.env").write_text(SUBNET_ENV)
    return Script(tmp_path)


@pytest.mark.parametrize("arguments", [["-h"], ["-?"], ["-x"], ["-k"], ["-k", "two words"]])
def test_wrong_usage_exits_1_as_the_script_does(script: Script, arguments: list[str]) -> None:
    result = script.run(*arguments)
    assert result.exit_code == 1
    assert "Usage:" in result.stderr
    assert result.stdout == ""
    assert not script.target.exists()


def test_arguments_that_are_no_options_are_ignored(script: Script) -> None:
    assert script.run("-c", "extra", "-x").exit_code == 0
    assert script.target.read_text().startswith("DOCKER_OPTS=")


def test_a_bad_word_for_masquerading_stops_before_anything_is_written(script: Script) -> None:
    script.target.write_text("old")
    with (script.directory / "subnet.env").open("a") as file:
        file.write("FLANNEL_IPMASQ=maybe\n")
    result = script.run()
    assert (result.exit_code, result.stderr) == (1, "Error: Invalid value of FLANNEL_IPMASQ: maybe\n")
    assert script.target.read_text() == "old"


def test_a_subnet_that_is_routed_elsewhere_is_reported_after_the_file_is_written(script: Script) -> None:
    route = "10.1.74.0/24 via 192.0.2.7 dev eth0"
    result = script.run(routes=f"default via 192.0.2.1 dev eth0\n{route}")
    assert (result.exit_code, result.stderr) == (1, f"Error: Your routing table already contains the subnet: {route}\n")
    assert "--bip=10.1.74.1/24" in script.target.read_text()


def test_our_own_bridge_is_no_reason_to_complain(script: Script) -> None:
    assert script.run(routes="10.1.74.0/24 dev docker0 proto kernel scope link src 10.1.74.1").exit_code == 0


def test_a_host_without_ip_is_not_asked_for_its_routes(script: Script) -> None:
    assert script.run(PATH="/nowhere").exit_code == 0


def test_a_target_that_cannot_be_written_is_named(script: Script) -> None:
    script.target.mkdir()
    result = script.run()
    assert (result.exit_code, result.stderr) == (1, f"Error: cannot write {script.target}: Is a directory\n")


def test_a_link_is_written_through(script: Script) -> None:
    script.target.symlink_to("elsewhere.env")
    assert script.run().exit_code == 0
    assert script.target.is_symlink()
    assert "--bip=10.1.74.1/24" in (script.directory / "elsewhere.env").read_text()


def test_the_program_writes_into_a_pipe(script: Script) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyflannel.cli.flannelctl", "docker-opts", "-c", "-f", "/nowhere", "-d", "/dev/stdout"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if "DOCKER_OPT" not in name},
    )
    assert (done.returncode, done.stdout) == (0, 'DOCKER_OPTS=""\n')


@dataclass(frozen=True)
class Host:
    """A system below a directory, with Docker installed."""

    root: Path

    def put(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def configure(self, *arguments: str) -> Result:
        options = [] if "--docker-version" in arguments else ["--docker-version", "27.5.1"]
        return CliRunner().invoke(cli, ["docker", "configure", "--root", str(self.root), *options, *arguments])

    @property
    def drop_in(self) -> Path:
        return self.root / "etc/systemd/system/docker.service.d/flannel.conf"

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system/flanneld.service"

    @property
    def command(self) -> str:
        """How Docker will be started."""
        return self.drop_in.read_text().splitlines()[-1].removeprefix("ExecStart=")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.put("usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n")
    return host


def test_the_drop_in_is_written_and_what_to_run_is_said(host: Host) -> None:
    result = host.configure()
    assert result.exit_code == 0
    assert host.command == "/usr/sbin/dockerd -H fd:// $DOCKER_OPTS --bip=${FLANNEL_SUBNET} --mtu=${FLANNEL_MTU}"
    assert NEXT in result.stdout
    assert f"+++ {host.drop_in}" in result.stdout
    assert "+EnvironmentFile=/run/flannel/subnet.env" in result.stdout
    assert not host.unit.exists()


def test_a_second_time_changes_nothing(host: Host) -> None:
    host.configure("--flanneld", "/opt/flanneld")
    before = [path.stat().st_ctime_ns for path in (host.drop_in, host.unit)]
    result = host.configure("--flanneld", "/opt/flanneld")
    assert result.exit_code == 0
    assert f"{host.drop_in}: unchanged" in result.stdout
    assert [path.stat().st_ctime_ns for path in (host.drop_in, host.unit)] == before


def test_a_change_is_shown_as_a_difference(host: Host) -> None:
    host.configure()
    result = host.configure("--no-ip-masq")
    changed = [line for line in result.stdout.splitlines() if line[0] in "+-" and "ExecStart=/" in line]
    assert changed == ["-ExecStart=" + host.command.removesuffix(" --ip-masq=false"), "+ExecStart=" + host.command]


def test_a_dry_run_shows_all_and_writes_nothing(host: Host) -> None:
    result = host.configure("--dry-run", "--flanneld", "/opt/flanneld")
    assert result.exit_code == 0
    assert "+ExecStart=/opt/flanneld" in result.stdout
    assert NEXT not in result.stdout
    assert not (host.root / "etc").exists()


def test_a_file_of_somebody_else_is_left_alone_and_so_is_everything_else(host: Host) -> None:
    host.put("etc/systemd/system/flanneld.service", "[Service]\nExecStart=/mine\n")
    result = host.configure("--flanneld", "/opt/flanneld")
    assert result.exit_code == 1
    assert f"{host.unit} (--force overwrites)" in result.stderr
    assert host.unit.read_text() == "[Service]\nExecStart=/mine\n"
    assert not host.drop_in.exists()


def test_force_overwrites_a_file_of_somebody_else(host: Host) -> None:
    host.put("etc/systemd/system/flanneld.service", "[Service]\nExecStart=/mine\n")
    assert host.configure("--flanneld", "/opt/flanneld", "--force").exit_code == 0
    assert host.unit.read_text().splitlines()[0] == MARKER


def test_flanneld_is_looked_for_beside_flannelctl(host: Host) -> None:
    programs = host.root / "bin"
    flanneld = host.put("bin/flanneld", "#!/bin/sh\n")
    flanneld.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    script = (
        f"import sys; sys.argv[0] = {str(programs / 'flannelctl')!r}\n"
        "from pyflannel.cli.flannelctl import cli\n"
        f"cli(['docker', 'configure', '--root', {str(host.root)!r}, '--flanneld'])"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert f"\nExecStart={flanneld}\n" in host.unit.read_text()


@pytest.mark.parametrize("option", ["--flanneld", "--dockerd", "--subnet-file"])
@pytest.mark.parametrize("path", ["relative/path", "/with blank", "/with%specifier", "/with$variable"])
def test_a_path_systemd_would_read_otherwise_is_refused(host: Host, option: str, path: str) -> None:
    assert host.configure(option, path).exit_code == 2


def test_an_administrators_own_unit_goes_before_the_packages(host: Host) -> None:
    host.put("etc/systemd/system/docker.service", "[Service]\nExecStart=/opt/dockerd -D\n")
    host.configure()
    assert host.command.startswith("/opt/dockerd -D --bip=")


def test_a_drop_in_that_is_read_before_ours_is_honoured(host: Host) -> None:
    host.put("etc/systemd/system/docker.service.d/10-proxy.conf", "[Service]\nExecStart=\nExecStart=/opt/dockerd -D\n")
    host.configure()
    assert host.command.startswith("/opt/dockerd -D --bip=")


def test_a_drop_in_that_would_win_over_ours_is_named(host: Host) -> None:
    other = host.put("etc/systemd/system/docker.service.d/override.conf", "[Service]\nExecStart=\nExecStart=/x\n")
    result = host.configure()
    assert result.exit_code == 1
    assert f"{other} is read after flannel.conf" in result.stderr
    assert not host.drop_in.exists()


def test_a_later_drop_in_that_leaves_the_command_alone_may_stay(host: Host) -> None:
    host.put("etc/systemd/system/docker.service.d/proxy.conf", "[Service]\nEnvironment=A=1\n")
    assert host.configure().exit_code == 0


def test_without_docker_its_own_packages_are_assumed_and_that_is_said(tmp_path: Path) -> None:
    host = Host(tmp_path)
    result = host.configure("--dockerd", "/opt/dockerd")
    assert result.exit_code == 0
    assert "no docker.service below" in result.stderr
    assert host.command.startswith(DOCKERD.replace("/usr/bin/dockerd", "/opt/dockerd"))


@pytest.mark.parametrize("key", ["bip", "mtu", "bridge"])
def test_what_docker_would_not_start_with_is_refused_with_the_cure(host: Host, key: str) -> None:
    path = host.put("etc/docker/daemon.json", json.dumps({key: "x", "log-level": "warn"}))
    result = host.configure()
    assert result.exit_code == 1
    assert f'{path} sets "{key}"' in result.stderr
    assert f'Take "{key}" out of the file' in result.stderr
    assert not host.drop_in.exists()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_daemon_json_docker_cannot_read_is_named(host: Host, text: str) -> None:
    path = host.put("etc/docker/daemon.json", text)
    result = host.configure()
    assert result.exit_code == 1
    assert f"{path} is not " in result.stderr


def test_a_bridge_of_ones_own_excludes_ours(host: Host) -> None:
    host.put("etc/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd --bridge=br0\n")
    result = host.configure()
    assert result.exit_code == 1
    assert "Take --bridge out" in result.stderr


def test_docker_28_is_told_to_let_the_overlay_in(host: Host) -> None:
    result = host.configure("--docker-version", "Docker version 28.2.2, build e6534b4")
    assert host.command.endswith(" --mtu=${FLANNEL_MTU} --allow-direct-routing")
    assert "--allow-direct-routing lets the overlay in" in result.stderr


def test_docker_28_1_is_told_by_its_environment(host: Host) -> None:
    host.configure("--docker-version", "28.1")
    assert "\nEnvironment=DOCKER_INSECURE_NO_IPTABLES_RAW=1\n" in host.drop_in.read_text()
    assert "allow-direct-routing" not in host.command


def test_what_daemon_json_says_already_is_not_said_twice(host: Host) -> None:
    host.put("etc/docker/daemon.json", '{"allow-direct-routing": true, "ip-masq": false}')
    assert host.configure("--docker-version", "28.2.2", "--no-ip-masq").exit_code == 0
    assert host.command.endswith(" --mtu=${FLANNEL_MTU}")


def test_what_daemon_json_says_otherwise_is_refused(host: Host) -> None:
    host.put("etc/docker/daemon.json", '{"allow-direct-routing": false}')
    result = host.configure("--docker-version", "28.2.2")
    assert result.exit_code == 1
    assert 'sets "allow-direct-routing"' in result.stderr


def test_the_version_of_another_system_is_not_guessed(host: Host) -> None:
    result = CliRunner().invoke(cli, ["docker", "configure", "--root", str(host.root)])
    assert result.exit_code == 0
    assert "cannot tell Docker's version" in result.stderr


def test_the_daemon_that_would_be_started_is_asked_for_its_version(tmp_path: Path) -> None:
    dockerd = tmp_path / "dockerd"
    dockerd.write_text('#!/bin/sh\n[ "$*" = --version ] && echo Docker version 28.2.2, build e6534b4\n')
    dockerd.chmod(0o755)
    assert installed_version(f"-{dockerd} -H fd://") == (28, 2, 2)
    assert installed_version("/nowhere/dockerd -H fd://") is None


def test_a_version_without_a_number_is_refused(host: Host) -> None:
    assert host.configure("--docker-version", "newest").exit_code == 2


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/docker/daemon.json", '{"firewall-backend": "nftables"}'),
        (
            "etc/systemd/system/docker.service",
            "[Service]\nExecStart=/usr/bin/dockerd --firewall-backend=nftables -H fd://\n",
        ),
    ],
    ids=["in a file", "on the command line"],
)
def test_nftables_of_docker_are_warned_of(host: Host, path: str, text: str) -> None:
    host.put(path, text)
    said = host.configure().stderr
    assert "with firewall-backend nftables Docker drops" in said
    assert "with firewall-backend nftables Docker masquerades" in said


def test_nftables_of_docker_are_not_warned_of_where_flanneld_masquerades(host: Host) -> None:
    host.put("etc/docker/daemon.json", '{"firewall-backend": "nftables"}')
    host.put("etc/default/flanneld", "FLANNELD_IP_MASQ=true")
    assert "Docker masquerades" not in host.configure().stderr


@pytest.mark.parametrize(
    ("default", "subnet_env", "masquerades"),
    [
        (None, None, True),
        (None, "FLANNEL_IPMASQ=false", True),
        (None, "FLANNEL_IPMASQ=true", False),
        ("FLANNELD_IP_MASQ=1", "FLANNEL_IPMASQ=false", False),
        ("FLANNELD_IP_MASQ=false", "FLANNEL_IPMASQ=true", True),
    ],
)
def test_docker_masquerades_unless_flanneld_is_set_to(
    host: Host, default: str | None, subnet_env: str | None, masquerades: bool
) -> None:
    if default is not None:
        host.put("etc/default/flanneld", default)
    if subnet_env is not None:
        host.put("run/flannel/subnet.env", subnet_env)
    result = host.configure()
    assert host.command.endswith(" --ip-masq=false") is not masquerades
    # It does not hide containers from each other (docs/adr/0005), so there is nothing to say.
    assert "masquerade" not in result.stderr


def test_who_masquerades_can_be_decided(host: Host) -> None:
    host.put("etc/default/flanneld", "FLANNELD_IP_MASQ=true")
    host.configure("--ip-masq")
    assert "--ip-masq" not in host.command


def test_the_program_runs(host: Host) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyflannel.cli.flannelctl", "docker", "configure", "--root", host.root, "--dry-run"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Dry run: nothing was written." in done.stdout
    assert "\x1b" not in done.stdout
