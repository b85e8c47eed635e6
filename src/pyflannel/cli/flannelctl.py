"""``flannelctl``, the program for people.

Rules of this file
  1. It knows the names of the commands and what they are for, and imports a command when it is run: ``--help`` stays
     instant however many there will be.
  2. Exit status: 0 done, 1 tried and failed or found wrong, 2 asked wrongly; ``docker-opts`` and ``plan`` have their
     reasons to differ.
  3. Colours and tables are for terminals; a pipe gets plain text.  NO_COLOR (no-color.org) is honoured.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from pyflannel import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command, by name and purpose, not yet imported."""

    target: str
    """``module:attribute``."""
    purpose: str
    """One line for ``flannelctl --help``."""


COMMANDS: Final[Mapping[str, Lazy]] = {
    "capture": Lazy("pyflannel.cli.capture:capture", "Show the packets inside the tunnel to a peer."),
    "cleanup": Lazy("pyflannel.cli.cleanup:cleanup", "Remove what flanneld left on this host."),
    "completion": Lazy("pyflannel.cli.completion:completion", "Print the completion of a shell."),
    "config": Lazy("pyflannel.cli.config:config", "Check a network configuration."),
    "docker": Lazy("pyflannel.cli.docker:docker", "Make Docker use this host's subnet."),
    "docker-opts": Lazy("pyflannel.cli.docker:docker_opts", "Turn subnet.env into options for Docker."),
    "doctor": Lazy("pyflannel.cli.doctor:doctor", "Find what is wrong with this host, and say what to do."),
    "lab": Lazy("pyflannel.cli.lab:lab", "Build a whole cluster on this machine."),
    "leases": Lazy("pyflannel.cli.leases:leases", "See, release and reserve subnets."),
    "status": Lazy("pyflannel.cli.status:status", "Show how this host's network is."),
    "peers": Lazy("pyflannel.cli.peers:peers", "Show the other hosts, and how they answer."),
    "plan": Lazy("pyflannel.cli.plan:plan", "Show what flanneld would change on this host now."),
    "report": Lazy("pyflannel.cli.report:report", "Pack a support bundle, with secrets removed."),
    "trace": Lazy("pyflannel.cli.trace:trace", "Show at which hop a packet ends, and why."),
}


class LazyGroup(click.Group):
    """A group whose commands come from ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; None if there is none of that name."""
        if (lazy := COMMANDS.get(cmd_name)) is None:
            return None
        module, _, attribute = lazy.target.partition(":")
        command: object = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{lazy.target} is no command"
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What TAB offers, without importing a command."""
        from click.shell_completion import CompletionItem

        fitting = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        named = [CompletionItem(name, help=COMMANDS[name].purpose) for name in fitting]
        return named + super(click.Group, self).shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].purpose) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="flannelctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """See and set up a flannel network."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


def main() -> None:
    """Run the program."""
    cli(prog_name="flannelctl")


if __name__ == "__main__":
    main()
