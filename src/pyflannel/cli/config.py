"""``flannelctl config``: look at a network configuration before the agents do.

The rules are those of ``lease.network`` and of the backends; this file only reads, counts and prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

import click

from pyflannel import backends
from pyflannel.cli.terminal import Unsupported
from pyflannel.lease.network import ConfigError, IPv4Range, IPv6Range, NetworkConfig, parse_network_config


@click.group()
def config() -> None:
    """Check a network configuration."""


@config.command()
@click.argument("file", type=click.File(encoding="utf-8"))
def check(file: TextIO) -> None:
    """Check FILE (- for standard input) as flanneld would, and print what follows from it.

    Exit status: 0 it can be used, 1 it cannot, 3 it asks for a backend that is not supported.
    """
    try:
        network = parse_network_config(file.read())
        backend = backends.from_config(network)
    except (ConfigError, UnicodeDecodeError) as error:
        kind = Unsupported if isinstance(error, backends.NotSupported) else click.ClickException
        raise kind(f"{file.name}: {error}") from None
    for name, value in facts(network):
        click.echo(f"{name:<14} {value}")
    for warning in (*network.warnings, *backend.warnings):
        click.secho(f"warning: {warning}", fg="yellow", err=True)


def facts(network: NetworkConfig) -> Iterator[tuple[str, str]]:
    """What the agents derive from a configuration, as names and values in the words of the configuration."""
    if network.ipv4 is not None:
        yield from _range_facts("", network.ipv4)
    if network.ipv6 is not None:
        yield from _range_facts("IPv6", network.ipv6)
    yield "Backend", network.backend_type


def _range_facts(family: str, of: IPv4Range | IPv6Range) -> Iterator[tuple[str, str]]:
    size = 1 << (of.network.max_prefixlen - of.subnet_len)
    yield f"{family}Network", str(of.network)
    yield f"{family}SubnetLen", str(of.subnet_len)
    yield f"{family}SubnetMin", str(of.subnet_min)
    yield f"{family}SubnetMax", str(of.subnet_max)
    yield f"{family}Subnets", str((int(of.subnet_max) - int(of.subnet_min)) // size + 1)
