"""``flannelctl leases``: see who has which subnet, give one back, reserve one.

What is found is judged in ``lease_book`` and shown by ``leases_view``.  A write compares with what was shown before it:
whoever was faster is not overwritten.  While a person thinks about a question no connection is kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias, TypeVar

import click

from pyflannel.cli import leases_view
from pyflannel.cli.agent_settings import DEFAULTS, agent_settings, takes_agent_settings
from pyflannel.cli.lease_book import EXAMPLE, Book, Entry, objection, open_book, parse_subnet
from pyflannel.cli.words import plain
from pyflannel.lease.model import LEASE_TTL, Attrs, Lease, Subnet
from pyflannel.lease.wire import subnet_name
from pyflannel.linux.errors import KernelError
from pyflannel.linux.facts import gather
from pyflannel.settings import Settings
from pyflannel.store.api import Conflict, Store, Unavailable
from pyflannel.store.candidates import candidates
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.keys import subnets_key

T = TypeVar("T")
IPAddress: TypeAlias = IPv4Address | IPv6Address


class ListByDefault(click.Group):
    """A group that lists when it is told nothing else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``list`` before options that are not the group's own."""
        if not args or (args[0].startswith("-") and args[0] not in self.get_help_option_names(ctx)):
            args = ["list", *args]
        return super().parse_args(ctx, args)


class Refused(click.ClickException):
    """What was asked for is not done, and why."""

    def __init__(self, why: str) -> None:
        """``why`` may quote what others wrote."""
        super().__init__(plain(why))


@dataclass(frozen=True, slots=True)
class Office:
    """Where the leases of this host's network are looked after."""

    settings: Settings

    def read(self) -> tuple[str, Book]:
        """What the store holds now, and the name of the store."""

        async def ask(store: Store) -> tuple[str, Book]:
            return store.name, open_book(await store.leases(), _addresses(self.settings))

        return self.visit(ask)

    def visit(self, deed: Callable[[Store], Awaitable[T]]) -> T:
        """Do something with the store; ``Refused`` if that fails."""

        async def visited() -> T:
            async with _opened(self.settings) as store:
                return await deed(store)

        try:
            return asyncio.run(visited())
        except Unavailable as error:
            raise Refused(str(error)) from None
        except Conflict as error:
            raise Refused(f"{error}: nothing was done; look again") from None

    def key(self, subnet: Subnet) -> str:
        """Where the record of ``subnet`` is."""
        return subnets_key(self.settings.etcd_prefix) + subnet_name(subnet)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    """The store that holds the network."""
    path = settings.store.removeprefix("local:")
    if path:
        try:
            Path(path).stat()  # asking a store that is not there would make it
        except OSError as error:
            raise Refused(f"there is no network configuration: {path}: {error.strerror}") from None
    stores = candidates(settings)
    try:
        found = await find_config(stores)
        if isinstance(found, Missing):
            raise Refused(f"there is no network configuration: {found}")
        yield found[0]
    finally:
        await stores.close()


def _addresses(settings: Settings) -> list[IPAddress]:
    """By which addresses others may know this host."""
    given = [address for address in (settings.public_ip, settings.public_ipv6) if address is not None]
    try:
        interfaces = gather().interfaces
    except (KernelError, OSError) as error:
        _warn(f"which leases are of this host is not known: {error}")
        return given
    return [*given, *(each.address.ip for interface in interfaces for each in interface.addresses)]


def _read_subnet(ctx: click.Context, parameter: click.Parameter, value: str) -> Subnet:
    try:
        return parse_subnet(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected a subnet such as {EXAMPLE}: {error}", ctx, parameter) from None


def _read_address(ctx: click.Context, parameter: click.Parameter, value: str | None) -> IPAddress | None:
    try:
        # A zone means nothing to other hosts.
        return None if value is None else ip_address(value.replace("%", "!"))
    except ValueError:
        raise click.BadParameter(f"{value!r}: expected the IP address of a host", ctx, parameter) from None


@click.group(cls=ListByDefault)
def leases() -> None:
    """See, release and reserve subnets.

    Without a command: list.  FLAGS, after a --, are those of flanneld, so give those which your flanneld is started
    with; the rest comes from the FLANNELD_... variables of the environment, then from /etc/default/flanneld.
    """


def _office(flags: Sequence[str], no_defaults: bool) -> Office:
    return Office(agent_settings(flags, defaults=None if no_defaults else DEFAULTS))


@leases.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_agent_settings
def list_(as_json: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """List all leases.

    TTL is the time after which a lease runs out unless its host renews it, where a list of the store says that.
    CREATED is the revision of the store at which it appeared.  The last column says which lease is this host's, and
    which ones agents leave out, and why.
    """
    store, book = _office(flags, no_defaults).read()
    if as_json:
        click.echo(json.dumps(leases_view.book_document(store, book), indent=2))
        return
    for record in book.unreadable:
        _warn(f"{record.key} cannot be read: {record.reason}")
    for remark in book.remarks:
        _warn(remark)
    if book.entries:
        leases_view.echo_book(book)
    else:
        click.echo(f"no leases in {store}")


@leases.command()
@click.argument("subnet", callback=_read_subnet)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@takes_agent_settings
def show(subnet: Subnet, as_json: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Show all that is known of one lease."""
    office = _office(flags, no_defaults)
    store, book = office.read()
    entry = _found(book, subnet, store)
    key = office.key(entry.lease.subnet)
    record = office.visit(lambda store: store.inspect(entry.lease.subnet))
    if as_json:
        click.echo(json.dumps(leases_view.show_document(entry, key, record), indent=2))
        return
    for name, value in leases_view.details(entry, key, record):
        click.echo(f"{name:<13} {value}")


@leases.command()
@click.argument("subnet", callback=_read_subnet)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Release it even if it is reserved.")
@takes_agent_settings
def release(subnet: Subnet, yes: bool, force: bool, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Give a subnet back.

    Other hosts no longer route to it, and any host may get it.  If the agent of the host that has it is alive, that
    takes it back within seconds: stop it first.
    """
    office = _office(flags, no_defaults)
    store, book = office.read()
    lease = _found(book, subnet, store).lease
    if lease.reservation and not force:
        raise Refused(
            f"{lease.subnet} is reserved for {_host(lease)}: --force releases it all the same, and "
            "flannelctl leases unreserve makes it a lease that runs out"
        )
    click.echo(
        f"{lease.subnet} belongs to {_host(lease)}.  Released, other hosts no longer route to it, and any host may get "
        f"it.\nIf the agent of {_host(lease)} is alive, it takes the subnet back within seconds: stop it first."
    )
    if not yes:
        click.confirm("Release it?", abort=True)
    office.visit(lambda store: store.release(lease))
    click.echo(f"released {lease.subnet}")


@leases.command()
@click.argument("subnet", callback=_read_subnet)
@click.option(
    "--public-ip", callback=_read_address, metavar="IP", help="The host it is for; needed where the subnet is free."
)
@takes_agent_settings
def reserve(subnet: Subnet, public_ip: IPAddress | None, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Keep a subnet for a host, for good.

    A lease becomes a reservation, and says what it said.  A free subnet is written down for the host with that
    address, which takes it when its agent next starts.
    """
    office = _office(flags, no_defaults)
    _, book = office.read()
    if (entry := book.find(subnet)) is not None:
        _reserve_lease(office, entry.lease, public_ip)
    elif (record := book.unreadable_at(subnet)) is not None:
        raise Refused(f"{subnet} cannot be reserved: {record.key} is there, and cannot be read: {record.reason}")
    elif public_ip is None:
        raise Refused(f"{subnet} is free: say with --public-ip for which host it is to be reserved")
    else:
        _reserve_free(office, book, subnet, public_ip)


def _reserve_lease(office: Office, lease: Lease, public_ip: IPAddress | None) -> None:
    if public_ip not in (None, lease.attrs.public_ip, lease.attrs.public_ipv6):
        raise Refused(f"{lease.subnet} is taken: it belongs to {_host(lease)}")
    if not lease.reservation:
        office.visit(lambda store: store.set_ttl(lease, None))
    click.echo(f"reserved {lease.subnet} for {_host(lease)}")


def _reserve_free(office: Office, book: Book, subnet: Subnet, public_ip: IPAddress) -> None:
    attrs = Attrs(public_ip) if isinstance(public_ip, IPv4Address) else Attrs(None, public_ip)
    if (why := objection(book, subnet, attrs)) is not None:
        raise Refused(f"{subnet} cannot be reserved: {why}")
    office.visit(lambda store: store.create(subnet, attrs, None))
    click.echo(f"reserved {subnet} for {public_ip}")
    if (other := book.held_by(public_ip)) is not None:
        _warn(f"{public_ip} has {other.lease.subnet} too, and keeps to that until it is released")


@leases.command()
@click.argument("subnet", callback=_read_subnet)
@takes_agent_settings
def unreserve(subnet: Subnet, no_defaults: bool, flags: tuple[str, ...]) -> None:
    """Make a reservation a lease like any other.

    Its host keeps it by renewing it; without one it runs out after 24 hours.
    """
    office = _office(flags, no_defaults)
    store, book = office.read()
    lease = _found(book, subnet, store).lease
    if not lease.reservation:
        click.echo(f"{lease.subnet} is not reserved")
        return
    office.visit(lambda store: store.set_ttl(lease, LEASE_TTL))
    click.echo(f"{lease.subnet} is a lease now: it runs out in 24 hours unless {_host(lease)} renews it")


def _found(book: Book, subnet: Subnet, store: str) -> Entry:
    entry = book.find(subnet)
    if entry is not None:
        return entry
    if (record := book.unreadable_at(subnet)) is not None:
        raise Refused(f"{record.key} cannot be read: {record.reason}")
    raise Refused(f"there is no lease of {subnet} in {store}")


def _host(lease: Lease) -> str:
    return leases_view.host(lease.attrs) or "a host that publishes no address"


def _warn(text: str) -> None:
    click.secho(f"warning: {plain(text)}", fg="yellow", err=True)
