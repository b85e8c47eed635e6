"""The settings of this host's agent, for commands that look at what it does.

How an agent was started is written in no one place: its unit reads /etc/default/flanneld, and a person may have given
flags.  So these commands take all that flanneld takes, from where it takes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import click

from pyflannel.cli import goflags
from pyflannel.cli.flanneld import KINDS, from_environment
from pyflannel.outputs import parse_env
from pyflannel.settings import Settings, resolve

DEFAULTS: Final = Path("/etc/default/flanneld")
"""What the unit that ``flannelctl docker configure --flanneld`` writes reads."""

Command = TypeVar("Command", bound=Callable[..., None])


def takes_agent_settings(command: Command) -> Command:
    """Give a command the parameters ``no_defaults`` and ``flags``."""
    command = click.argument("flags", nargs=-1, type=click.UNPROCESSED, metavar="[-- FLAGS...]")(command)
    return click.option("--no-defaults", is_flag=True, help=f"Do not read {DEFAULTS}.")(command)


def agent_settings(
    flags: Sequence[str],
    *,
    defaults: Path | None = DEFAULTS,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """What flanneld would make of ``flags`` in this environment, with the variables of ``defaults`` behind it.

    ``click.ClickException`` says what is wrong with them, and warnings go to standard error.
    """
    try:
        parsed = goflags.parse(flags, KINDS)
    except goflags.HelpRequested:
        raise click.ClickException("flanneld -help lists the options of flanneld") from None
    except goflags.UsageError as error:
        raise click.ClickException(str(error)) from None
    values, unread = from_environment({**(_read(defaults) if defaults else {}), **environ})
    resolved = resolve(parsed.values, values)
    for warning in (*filter(None, [parsed.warning]), *unread, *resolved.warnings):
        click.secho(f"warning: {warning}", fg="yellow", err=True)
    if resolved.problems:
        raise click.ClickException("; ".join(resolved.problems))
    return resolved.settings


def _read(path: Path) -> dict[str, str]:
    try:
        return parse_env(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}; --no-defaults goes on without") from None
