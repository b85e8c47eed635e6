"""With a real ``sh``: what the commands about this host get, and what comes of what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pyflannel.backends import from_config
from pyflannel.backends.api import Backend
from pyflannel.hooks.host import CommandFailed, prepare, settle, shut_down
from tests.support.builders import backend, config, underlay, view
from tests.support.loops import run


def extension(**commands: str) -> Backend:
    return from_config(config(json.dumps({"Type": "extension", "CommandTimeout": 20, **commands})))


def data(made: Backend) -> str | None:
    return made.attrs(underlay(), {}).backend_data


def test_what_the_first_command_prints_is_published_without_blanks_around_it() -> None:
    made = extension(PreStartupCommand="read X; test -z \"$X\"; printf '\\n c6:d2 \\n\\n'; echo a warning >&2")
    assert data(run(prepare(made))) == '"c6:d2"'


def test_each_start_asks_anew(tmp_path: Path) -> None:
    made = extension(PreStartupCommand=f"echo x >>{tmp_path}/starts; wc -l <{tmp_path}/starts")
    assert data(run(prepare(run(prepare(made))))) == '"2"'


def test_without_a_first_command_nothing_is_published() -> None:
    made = extension()
    assert run(prepare(made)) is made
    assert data(made) is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo reason >&2; exit 4", "PreStartupCommand: exit status 4"),
        ("printf 'a\\0b'", "PreStartupCommand: what it printed has a NUL character in it"),
        ("yes | head -c 20000", "PreStartupCommand: what it printed has 19999 bytes: expected at most 16384"),
    ],
)
def test_a_first_command_that_fails_or_prints_what_nobody_could_read_stops_the_start(
    command: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(CommandFailed, match=said):
        run(prepare(extension(PreStartupCommand=command)))
    assert ("PreStartupCommand: reason" in caplog.messages) == ("reason" in command)


def test_the_later_commands_know_network_subnet_and_address(tmp_path: Path) -> None:
    line = f"echo $NETWORK $SUBNET $PUBLIC_IP >>{tmp_path}/told"
    made = extension(PostStartupCommand=line, ShutdownCommand=f"{line}; exit 1")
    run(settle(made, view()))
    run(shut_down(made, view()))
    assert (tmp_path / "told").read_text() == "10.2.0.0/16 10.2.71.0/24 172.16.41.131\n" * 2


def test_a_second_command_that_fails_stops_the_start_and_a_last_one_nothing(caplog: pytest.LogCaptureFixture) -> None:
    made = extension(PostStartupCommand="exit 4", ShutdownCommand="exit 5")
    with pytest.raises(CommandFailed, match="PostStartupCommand: exit status 4"):
        run(settle(made, view()))
    run(shut_down(made, view()))
    assert caplog.messages == ["ShutdownCommand: exit status 5"]


def test_other_backends_have_no_such_commands() -> None:
    vxlan = backend()
    assert run(prepare(vxlan)) is vxlan
    run(settle(vxlan, view()))
    run(shut_down(vxlan, view()))
