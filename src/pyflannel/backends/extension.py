"""extension: what connects the hosts is done by commands of the administrator's (compat §5.6).

    PreStartupCommand     before there is a lease; what it prints goes into the lease, for the others
    PostStartupCommand    once there is one
    SubnetAddCommand      for each peer that comes
    SubnetRemoveCommand   for each peer that goes
    SubnetCheckCommand    our own: is what SubnetAddCommand made still there?  Status 0 says yes
    ShutdownCommand       at an orderly end: in flannel's examples from the first, and never run by flannel

Rules of this file
  1. A command is the administrator's, a value may be anybody's.  So no value ever becomes part of a command: subnets
     and addresses are in environment variables, what a peer publishes is on standard input, and a shell takes neither
     for anything but text.
  2. Each command is one text for ``sh -c``, as flannel had it up to v0.28.1 and documents it still.  Its later ways
     (no shell, words split at blanks) break all of its own examples.
  3. A variable about an address family which there is not is empty.  Go flannel writes ``::/0`` and ``<nil>`` there,
     and 0.0.0.0/0 into ``SUBNET``: nothing that one wants to find in an ``ip route add``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pyflannel.backends.api import Refused, View, WithoutMacs, refuse_strangers
from pyflannel.backends.options import Options
from pyflannel.host import Underlay
from pyflannel.lease.model import Attrs, JSONText, Lease
from pyflannel.lease.network import ConfigError, NetworkConfig
from pyflannel.state import Commands, Hook, Item, Mac, Scope

TYPE: Final = "extension"
LONGEST_DATA: Final = 16 * 1024
"""Bytes of what a peer publishes, in UTF-8.  A key or an address has less than a hundred."""
LIMIT: Final = 60
"""Seconds a command may take unless ``CommandTimeout`` says otherwise."""
MOST_AT_ONCE: Final = 64
_GO_ESCAPES: Final = str.maketrans({each: f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"})
"""What Go's encoder escapes and Python's does not."""


def from_config(config: NetworkConfig) -> Extension:
    """The backend for ``config``; ``ConfigError`` names the option that is wrong."""
    options = Options(config.backend_options)
    limit = float(options.integer("CommandTimeout", LIMIT, 1, 3600))
    at_once = options.integer("ParallelCommands", 1, 1, MOST_AT_ONCE)
    pre, post, shutdown, add, remove, check = (
        _command(options, f"{name}Command")
        for name in ("PreStartup", "PostStartup", "Shutdown", "SubnetAdd", "SubnetRemove", "SubnetCheck")
    )
    warnings = list(options.complaints())
    if add and not remove:
        warnings.append("Backend.SubnetRemoveCommand is missing: what is made for a host stays when the host is gone")
    return Extension(
        ipv4=config.ipv4 is not None,
        ipv6=config.ipv6 is not None,
        startup=Startup(pre, post, shutdown, limit),
        commands=Commands(add, remove, check, limit),
        at_once=at_once,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, slots=True)
class Startup:
    """The commands that are about this host; empty where there is none."""

    pre: str
    post: str
    shutdown: str
    limit: float
    """Seconds that each may take."""


@dataclass(frozen=True, slots=True)
class Extension(WithoutMacs):
    """extension in the families the network has."""

    ipv4: bool
    ipv6: bool
    startup: Startup
    commands: Commands
    at_once: int = 1
    """How many peers' commands may run at a time.  flannel runs one after the other, and scripts may count on that."""
    printed: str | None = None
    """What ``PreStartupCommand`` has printed; None as long as it has not been run, or if there is none."""
    warnings: tuple[str, ...] = ()

    @property
    def type(self) -> str:
        """As leases have it."""
        return TYPE

    @property
    def devices(self) -> tuple[str, ...]:
        """None that we know of."""
        return ()

    def mtu(self, underlay: Underlay) -> int:
        """That of the external interface, as in flannel: what the commands put around packets is not known."""
        return underlay.mtu

    def attrs(self, underlay: Underlay, macs: Mapping[str, Mac]) -> Attrs:
        """The interface's own addresses, whatever ``-public-ip`` says (compat §7.3), and what was printed."""
        return Attrs(
            public_ip=underlay.ipv4 if self.ipv4 else None,
            public_ipv6=underlay.ipv6 if self.ipv6 else None,
            backend_type=TYPE,
            backend_data=None if self.printed is None else json_text(self.printed),
        )

    def as_published(self, lease: Lease) -> Extension:
        """As it was when ``lease``, our own, was written: for who may not run ``PreStartupCommand`` to find out."""
        try:
            printed = read_data(lease.attrs.backend_data) if self.startup.pre else None
        except Refused:
            return self
        return replace(self, printed=printed)

    def scope(self, view: View) -> Scope:
        """What commands made; and what another backend left on the external interface."""
        return Scope(borrowed=frozenset((view.underlay.name,)), hooks=True)

    def self_items(self, view: View) -> tuple[Item, ...]:
        """Nothing: the commands about this host are run at its start and end."""
        return ()

    def peer_items(self, view: View, lease: Lease) -> tuple[Item, ...]:
        """A hook, if there is a command for it; ``Refused`` for what no command should have to read."""
        refuse_strangers(lease, TYPE, view.underlay)
        subnet, attrs = lease.subnet, lease.attrs
        ipv4 = self.ipv4 and subnet.ipv4 is not None and attrs.public_ip is not None
        ipv6 = self.ipv6 and subnet.ipv6 is not None and attrs.public_ipv6 is not None
        if not ipv4 and not ipv6:
            raise Refused("has no address family in common with us")
        hook = Hook(
            commands=self.commands,
            subnet=subnet.ipv4 if ipv4 else None,
            subnet_v6=subnet.ipv6 if ipv6 else None,
            host=attrs.public_ip if ipv4 else None,
            host_v6=attrs.public_ipv6 if ipv6 else None,
            data=read_data(attrs.backend_data),
        )
        return (hook,) if self.commands.add or self.commands.remove else ()


def peer_variables(hook: Hook) -> dict[str, str]:
    """The environment of the commands about a peer: the two variables of all flannels, and those of its manual."""
    return _variables(SUBNET=hook.subnet, IPV6SUBNET=hook.subnet_v6, PUBLIC_IP=hook.host, PUBLIC_IPV6=hook.host_v6)


def own_variables(view: View) -> dict[str, str]:
    """The environment of ``PostStartupCommand`` and ``ShutdownCommand``."""
    ipv4, ipv6 = view.config.ipv4, view.config.ipv6
    return _variables(
        NETWORK=ipv4.network if ipv4 is not None else None,
        IPV6NETWORK=ipv6.network if ipv6 is not None else None,
        SUBNET=view.own.ipv4,
        IPV6SUBNET=view.own.ipv6,
        PUBLIC_IP=view.underlay.ipv4 if ipv4 is not None else None,
        PUBLIC_IPV6=view.underlay.ipv6 if ipv6 is not None else None,
    )


def read_data(published: JSONText | None) -> str:
    """The text in a peer's BackendData, empty if there is none; ``Refused`` if it is anything but a decent text."""
    if published is None:
        return ""
    try:
        data = json.loads(published)
    except ValueError as exc:
        raise Refused(f"BackendData is no JSON: {exc}") from None
    if not isinstance(data, str):
        raise Refused("BackendData is no text: expected what a PreStartupCommand has printed")
    if flaw := data_flaw(data):
        raise Refused(f"BackendData {flaw}")
    return data


def data_flaw(data: str) -> str | None:
    """Why no command should read this; None if nothing is wrong with it."""
    if "\0" in data:
        return "has a NUL character in it, which shells pass over: expected a text"
    try:
        length = len(data.encode())
    except UnicodeEncodeError:
        return "has half a character in it (a lone surrogate): expected a text"
    return f"has {length} bytes: expected at most {LONGEST_DATA}" if length > LONGEST_DATA else None


def json_text(text: str) -> JSONText:
    """``text`` as a JSON string, byte for byte as Go's encoder writes it into a lease."""
    return json.dumps(text, ensure_ascii=False).translate(_GO_ESCAPES)


def _variables(**values: object) -> dict[str, str]:
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _command(options: Options, name: str) -> str:
    command = options.text(name, "").strip()
    if "\0" in command:
        raise ConfigError(f"Backend.{name} has a NUL character in it: expected a line for sh -c")
    try:
        command.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"Backend.{name} has half a character in it: expected a line for sh -c") from None
    return command
