"""``flannelctl cleanup``: this host as it was before its first flanneld.

What is ours is said in ``pyflannel.cleanup``; this file shows it, asks, and has it removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from shlex import quote

import click

from pyflannel.cleanup import Leftovers, find, remove
from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.plan_view import restoration
from pyflannel.cli.words import plain
from pyflannel.diff import Cut
from pyflannel.linux.kernel import KernelError
from pyflannel.linux.rights import may_administer_network
from pyflannel.linux.spelling import spell
from pyflannel.linux.xtables import FirewallError
from pyflannel.plan import CannotTell, network_of
from pyflannel.settings import Settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@takes_agent_settings
def cleanup(dry_run: bool, yes: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Remove what flanneld left on this host, and only that.

    Its devices with all that is on them, its chains and tables in the firewall, subnet.env and its state files.
    Containers can then no longer reach those of other hosts.  Stop flanneld first: a running one puts everything back.

    The lease stays in the store and, unless it is a reservation, runs out within 24 hours; until then this host gets
    the same subnet again.

    FLAGS, after a --, are those of flanneld, so give those which your flanneld is started with; the rest comes from
    the FLANNELD_... variables of the environment, then from /etc/default/flanneld.
    """
    settings = agent_settings(flags, defaults=None if no_defaults else DEFAULTS)
    if not may_administer_network():
        raise click.ClickException("this takes root, or the capability CAP_NET_ADMIN")
    try:
        found = asyncio.run(_find(settings))
    except (KernelError, FirewallError) as error:
        raise click.ClickException(str(error)) from None
    for remark in found.remarks:
        _note(remark)
    if not found.any:
        click.echo("nothing to remove")
        return
    for line in lines(found):
        click.secho(line, dim=line.startswith("#"))
    if dry_run:
        return
    if not yes:
        click.confirm("Remove all this?", abort=True)
    failures = asyncio.run(remove(found))
    for failure in failures:
        click.secho(f"Error: {plain(failure)}", fg="red", err=True)
    if failures:
        raise SystemExit(1)
    click.echo("removed; the lease stays in the store, where it runs out within 24 hours unless it is a reservation")


def lines(found: Leftovers) -> Iterator[str]:
    """What is to be removed, as commands."""
    for family, faults in found.firewall:
        yield f"# in the firewall for IPv{family}"
        yield from restoration(family, faults)
    if found.tables:
        yield "# in nftables"
        yield from (f"nft delete table inet {name}" for name in found.tables)
    if found.objects:
        yield "# in the kernel"
        yield from (spell(Cut(item)) for item in found.objects)
    if found.files:
        yield "# files"
        yield from (f"rm {quote(plain(str(path)))}" for path in found.files)


async def _find(settings: Settings) -> Leftovers:
    try:
        configured = (await network_of(settings)).backend.devices
    except CannotTell as error:
        _note(f"only devices which the state directory remembers are looked for: {error}")
        configured = ()
    return await find(settings, configured)


def _note(text: str) -> None:
    click.secho(f"note: {plain(text)}", fg="yellow", err=True)
