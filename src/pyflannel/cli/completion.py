"""``flannelctl completion``: what a shell needs to complete our commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(epilog="Example: flannelctl completion bash > /etc/bash_completion.d/flannelctl")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of a shell: what TAB should offer.

    In bash: source <(flannelctl completion bash).  In zsh the same, or a file _flannelctl in a directory of $fpath.  In
    fish: flannelctl completion fish | source.
    """
    root = ctx.find_root()
    found = get_completion_class(shell)
    assert found is not None, f"click completes for {shell}"
    click.echo(found(root.command, {}, "flannelctl", "_FLANNELCTL_COMPLETE").source())
