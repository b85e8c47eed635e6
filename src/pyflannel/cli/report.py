"""``flannelctl report``: one file for whoever is to help, with nothing in it that they should not see."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import time
from pathlib import Path

import click

from pyflannel import __version__
from pyflannel.cli.agent_settings import takes_agent_settings
from pyflannel.cli.agent_socket import AgentSilent, get
from pyflannel.cli.doctor import document, look, settings_of
from pyflannel.doctor import bundle
from pyflannel.doctor.checks import examine
from pyflannel.doctor.facts import Facts
from pyflannel.identity import FILE as MAC_FILE
from pyflannel.keyfile import FORMER, place
from pyflannel.settings import Settings, config_line, describe
from pyflannel.telemetry.address import control_socket


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write this file, which must not be there yet.  [default: flannel-report-HOST-TIME.tar.gz here]",
)
@takes_agent_settings
def report(output: Path | None, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Pack a support bundle, with secrets removed.

    It holds what the agent says of itself, what flannelctl doctor finds, what the kernel and the firewall hold, the
    agent's settings and its log.  Passwords, private and shared keys and tokens are taken out of all of it; names of
    hosts and addresses stay, for without them nobody could help.

    FLAGS, after a --, are those of flanneld, as with flannelctl doctor.
    """
    settings = settings_of(flags, no_defaults)
    now = time.time()
    title = f"flannel-report-{_fit(platform.node())}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    path = output if output is not None else Path(f"{title}.tar.gz")
    texts, secrets = asyncio.run(collect(settings))
    try:
        bundle.pack(path, title, texts, secrets, now)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    click.echo(f"{path}: {len(texts)} files, {path.stat().st_size // 1024} KiB")
    click.echo(
        "Passwords, keys and tokens have been taken out. Names and addresses are in it: look before you send it."
    )


async def collect(settings: Settings) -> tuple[dict[str, str], frozenset[str]]:
    """The texts of a bundle by name, not redacted yet, and what must be in none of them."""
    socket, state = control_socket(settings.subnet_file), Path(settings.state_dir)
    facts, printed = await asyncio.gather(look(settings), bundle.output())
    files = {"files/subnet.env": Path(settings.subnet_file), "files/vtep-macs.json": state / MAC_FILE}
    texts = {
        **printed,
        **bundle.written(files),
        "doctor.json": json.dumps(document(facts, examine(facts)), indent=2),
        "status.json": _asked(socket, "/status"),
        "metrics.txt": _asked(socket, "/metrics"),
        "settings.txt": _settings(settings),
        "network-configuration.txt": _configurations(facts),
    }
    configurations = [record.text for record in facts.records.values() if record.text]
    keys = [place(state, os.environ), FORMER]
    return texts, bundle.hidden(settings, configurations, keys)


def _settings(settings: Settings) -> str:
    lines = [f"pyflannel {__version__}, Python {platform.python_version()}", config_line(settings), ""]
    return "\n".join([*lines, *(f"{flag} = {value}" for flag, value in describe(settings).items()), ""])


def _configurations(facts: Facts) -> str:
    return "".join(
        f"{record.where}\n{record.text if record.text is not None else 'no such key'}\n"
        for record in facts.records.values()
    )


def _asked(socket: Path, target: str) -> str:
    try:
        return get(socket, target).decode(errors="replace")
    except AgentSilent as silence:
        return f"{silence}\n"


def _fit(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", name) or "host"
