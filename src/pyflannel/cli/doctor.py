"""``flannelctl doctor``: what is wrong with this host, why one can say so, and what to do.

What is looked at and how it is judged is in ``pyflannel.doctor``; this file shows it, asks, and has it put right.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.agent_socket import AgentSilent, status
from pyflannel.cli.words import plain
from pyflannel.doctor.checks import examine
from pyflannel.doctor.checks_agent import NOTICE
from pyflannel.doctor.facts import Facts
from pyflannel.doctor.findings import Argv, Finding
from pyflannel.doctor.gather import Answer, gather
from pyflannel.health import Severity
from pyflannel.linux.run import CommandFailed, run
from pyflannel.settings import Settings
from pyflannel.telemetry.address import control_socket

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTICE: "cyan"}
PATIENCE = 60.0
"""Seconds for one command: a unit that is started waits until it is ready."""
WIDTH = 100
"""Characters of a line of prose."""


@click.command()
@click.option("--fix", is_flag=True, help="Put right what can be put right safely, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_agent_settings
def doctor(fix: bool, yes: bool, as_json: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Find what is wrong with this host, and say what to do.

    Nothing is changed without --fix, and then nothing but what is shown and agreed to.

    FLAGS, after a --, are those of flanneld, so give those which your flanneld is started with; the rest comes from
    the FLANNELD_... variables of the environment, then from /etc/default/flanneld.

    Exit status: 0 nothing was found, or all of it is put right; 1 something is wrong; 2 asked wrongly.
    """
    if as_json and fix and not yes:
        raise click.UsageError("--json cannot ask, so --fix needs --yes with it")
    settings = settings_of(flags, no_defaults)
    facts = asyncio.run(look(settings))
    found = examine(facts)
    mended: list[Finding] = []
    if fix:
        mended = [each for each in found if each.fix is not None and mend(each, each.fix, yes, quiet=as_json)]
        if mended:
            facts = asyncio.run(look(settings))
            found = examine(facts)
    if as_json:
        click.echo(json.dumps(document(facts, found, mended), indent=2))
    else:
        show(facts, found, offer=not fix)
    if found:
        raise SystemExit(1)


def settings_of(flags: Sequence[str], no_defaults: bool) -> Settings:
    """The agent's settings; ``UsageError`` if they cannot be read, for this command's status 1 means something else."""
    try:
        return agent_settings(flags, defaults=None if no_defaults else DEFAULTS)
    except click.ClickException as error:
        raise click.UsageError(error.message) from None


async def look(settings: Settings) -> Facts:
    """Ask the agent, and gather the rest."""
    return await gather(settings, ask(control_socket(settings.subnet_file)))


def ask(socket: Path) -> Answer:
    """What the agent says, or why it does not."""
    try:
        return Answer(status(socket))
    except AgentSilent as silence:
        return Answer(None, str(silence))


def show(facts: Facts, found: Iterable[Finding], offer: bool) -> None:
    """Print it for people; ``offer`` says how to have it put right."""
    findings = list(found)
    for note in notes(facts):
        click.secho(f"note: {plain(note)}", dim=True)
    if not findings:
        click.echo("nothing found")
        return
    for each in findings:
        colour = COLOURS.get(each.severity)
        click.secho(f"{each.severity.name.lower()} {each.code}", fg=colour, bold=True, nl=False)
        click.echo(f": {plain(each.finding)}")
        _paragraph("seen", each.evidence)
        _paragraph("means", each.means)
        _paragraph("do", each.remedy)
        for argv in each.fix or ():
            click.echo(f"  fix    {plain(shlex.join(argv))}")
        click.echo()
    fixable = sum(each.fix is not None for each in findings)
    click.echo(f"{len(findings)} found", nl=False)
    click.echo(f"; `flannelctl doctor --fix` puts {fixable} of it right, after asking" if offer and fixable else "")


def notes(facts: Facts) -> Iterable[str]:
    """What a person should know who reads the findings, or that there are none."""
    agent = facts.agent
    if agent is not None and agent.status is None and agent.programs == ():
        missing = [f"nobody answers at {agent.socket}", "there is no process flanneld"]
        if facts.subnet_file is not None and facts.subnet_file.there is False:
            missing.append(f"no {facts.subnet_file.path}")
        yield f"no agent runs here: {', '.join(missing)}"
    elif agent is not None and agent.status is None and agent.programs:
        yield f"{' and '.join(agent.programs)} runs here and does not say how it is: {agent.silence}"
    for condition in () if agent is None or agent.status is None else agent.status.conditions:
        if condition.severity == NOTICE:
            yield f"{condition.code}: {condition.text}"
    for text in facts.unseen:
        yield f"not looked at: {text}"


def document(facts: Facts, found: Iterable[Finding], mended: Iterable[Finding] = ()) -> dict[str, object]:
    """The same for programs."""
    return {
        "findings": [_entry(each) for each in found],
        "fixed": [_entry(each) for each in mended],
        "notes": list(notes(facts)),
    }


def mend(finding: Finding, fix: tuple[Argv, ...], yes: bool, quiet: bool) -> bool:
    """Show the commands, ask unless ``yes``, and run them until one fails; whether all of it was done."""
    if not quiet:
        click.echo(f"{finding.code}: {plain(finding.finding)}")
        for argv in fix:
            click.echo(f"  {plain(shlex.join(argv))}")
    if not yes and not click.confirm("Run this?"):
        return False
    if not quiet:
        click.echo()
    for argv in fix:
        if (trouble := asyncio.run(_attempt(argv))) is not None:
            click.secho(f"Error: {plain(trouble)}", fg="red", err=True)
            return False
    return True


def _entry(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": finding.severity.name.lower(),
        "finding": finding.finding,
        "evidence": finding.evidence,
        "means": finding.means,
        "remedy": finding.remedy,
        "fix": None if finding.fix is None else [list(argv) for argv in finding.fix],
    }


def _paragraph(label: str, text: str) -> None:
    indent = " " * 9
    first = f"  {label:<7}"
    # Nothing that one may want to copy is broken: a rule, an option, a path.
    click.echo(
        textwrap.fill(
            plain(text),
            WIDTH,
            initial_indent=first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


async def _attempt(argv: Argv) -> str | None:
    """Run one command; why it failed, if it did."""
    try:
        done = await run(argv, timeout=PATIENCE)
    except CommandFailed as error:
        return str(error)
    return None if done.status == 0 else f"{shlex.join(argv)}: {done.err.strip() or f'exit status {done.status}'}"
