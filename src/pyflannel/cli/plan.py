"""``flannelctl plan``: what the agent would change on this host right now.

What is found out is in ``pyflannel.plan``, how it is shown in ``plan_view``.
"""

from __future__ import annotations

import asyncio
import json

import click

from pyflannel.cli import plan_view
from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.terminal import StatusOneCommand, Unsupported
from pyflannel.plan import AnotherBackend, CannotTell, survey


@click.command(cls=StatusOneCommand)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_agent_settings
def plan(as_json: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Show what flanneld would change on this host now, without changing it.

    Where an agent runs that is what an audit would repair; where none does, what a start would do.

    FLAGS, after a --, are those of flanneld, so give those which your flanneld is started with; the rest comes from
    the FLANNELD_... variables of the environment, then from /etc/default/flanneld.

    Lines that begin with # explain; the others are the change.  Exit status: 0 there is nothing to do, 2 there is
    something, 1 it cannot be told, 3 the network is configured for a backend that is not supported.
    """
    settings = agent_settings(flags, defaults=None if no_defaults else DEFAULTS)
    try:
        found = asyncio.run(survey(settings))
    except AnotherBackend as error:
        raise Unsupported(str(error)) from None
    except CannotTell as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(plan_view.document(found), indent=2))
    else:
        for line in plan_view.lines(found):
            click.secho(line, dim=line.startswith("#"))
    if status := plan_view.status(found):
        raise SystemExit(status)
