"""Every option of ``flanneld``, declared once (compat §1.3), and those that were (compat §1.4)."""
# ruff: noqa: RUF009 - option() is our dataclasses.field(): it returns a declaration, not a shared default

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias, TypeVar

from pyflannel.settings import values

Value: TypeAlias = bool | int | str
Kind: TypeAlias = type[bool] | type[int] | type[str]
T = TypeVar("T")

SECONDS: Final = range(1, 2**31)
PORTS: Final = range(2**16)


class Source(StrEnum):
    """Where a value came from; the earlier beats the later."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    DEFAULT = "default"


class EtcdApi(StrEnum):
    """Which generation of the etcd API to speak; what is written through one cannot be seen through the other."""

    AUTO = "auto"
    V2 = "2"
    V3 = "3"


class Offload(StrEnum):
    """Whether a task is left to hardware, or to the last moment."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


def option(
    default: T,
    text: str,
    *,
    since: str,
    flag: str = "",
    parse: Callable[[str], T] | None = None,
    span: range | None = None,
    repeatable: bool = False,
    hide: Callable[[str], str] | None = None,
) -> T:
    """Declare one option.

    ``text`` is its help; ``since`` the flannel, or pyflannel, that had it first.  The flag is the name of the field
    with dashes unless ``flag`` says otherwise.  ``parse`` turns what was written into the value and raises
    ``ValueError`` with what it expected; ``span`` is the same for numbers.  ``hide`` makes a value fit to be shown.
    """
    spec = {"help": text, "since": since, "flag": flag, "parse": parse, "span": span}
    return field(default=default, metadata={**spec, "repeatable": repeatable, "hide": hide})


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """What ``flanneld`` was told to do, checked and typed.  Its ``repr`` holds no secret."""

    etcd_endpoints: tuple[str, ...] = option(
        ("http://127.0.0.1:4001", "http://127.0.0.1:2379"),
        "comma separated list of etcd client URLs",
        since="v0.2",
        parse=values.endpoints,
        hide=values.redact_urls,
    )
    etcd_prefix: str = option("/coreos.com/network", "root of all our keys in etcd", since="v0.1")
    etcd_keyfile: str = option("", "file with the client's TLS key for etcd", since="v0.2")
    etcd_certfile: str = option("", "file with the client's TLS certificate for etcd", since="v0.2")
    etcd_cafile: str = option(
        "", "file with the certificates of the authorities that etcd's is checked by", since="v0.2"
    )
    etcd_username: str = option("", "user name for etcd", since="v0.5.6")
    etcd_password: str = option(
        "",
        "password for etcd; safer as FLANNELD_ETCD_PASSWORD, for every user of a host can read command lines",
        since="v0.5.6",
        hide=values.stars,
    )
    etcd_api: EtcdApi = option(
        EtcdApi.AUTO,
        "etcd API to speak: 2, 3, or auto, which asks where the network configuration is",
        since="pyflannel 0.1",
        parse=values.one_of(EtcdApi),
    )
    store: str = option(
        "",
        "where leases are kept if not in etcd: local:/path/to/file, shared by the agents of one machine",
        since="pyflannel 0.1",
        parse=values.store_url,
    )
    state_dir: str = option(
        "/var/lib/flannel",
        "directory for what outlives a restart, such as the last known leases",
        since="pyflannel 0.1",
        parse=values.path,
    )
    release_on_exit: bool = option(
        False,
        "give the lease back when the agent is told to stop, for hosts that do not come back",
        since="pyflannel 0.1",
    )
    iface: tuple[str, ...] = option(
        (),
        "interface, by name or address, for traffic between hosts; may be repeated, the first that fits is used",
        since="v0.1",
        repeatable=True,
    )
    iface_regex: tuple[str, ...] = option(
        (),
        "regular expression on addresses, then on names, to find that interface; may be repeated, tried after -iface",
        since="v0.8",
        repeatable=True,
    )
    iface_can_reach: IPv4Address | IPv6Address | None = option(
        None, "use the interface the kernel would use towards this address; tried last", since="v0.18", parse=values.ip
    )
    subnet_file: str = option(
        "/run/flannel/subnet.env", "file to write subnet and MTU to", since="v0.1", parse=values.path
    )
    public_ip: IPv4Address | None = option(
        None, "IPv4 address by which other hosts reach this one", since="v0.5.2", parse=values.ipv4
    )
    public_ipv6: IPv6Address | None = option(
        None, "IPv6 address by which other hosts reach this one", since="v0.15", parse=values.ipv6
    )
    subnet_lease_renew_margin: int = option(
        60, "minutes before a lease expires at which it is renewed", since="v0.7", span=range(1, 1440)
    )
    ip_masq: bool = option(False, "masquerade what leaves the network for elsewhere", since="v0.1")
    ip_masq_fully_random_disable: bool = option(
        False, "do not ask for fully random source ports when masquerading", since="v0.27.4"
    )
    kube_subnet_mgr: bool = option(False, "keep leases in the Kubernetes API, not in etcd", since="v0.7")
    kube_api_url: str = option("", "URL of the Kubernetes API server", since="v0.8", hide=values.redact_urls)
    kubeconfig_file: str = option("", "file with the location and credentials of the API server", since="v0.8")
    kube_annotation_prefix: str = option(
        "flannel.alpha.coreos.com", "prefix of our annotations on Kubernetes nodes", since="v0.11"
    )
    net_config_path: str = option(
        "/etc/kube-flannel/net-conf.json", "file with the network configuration under Kubernetes", since="v0.12"
    )
    set_node_network_unavailable: bool = option(
        True, "clear the NetworkUnavailable condition of the Kubernetes node once ready", since="v0.15"
    )
    vxlan_checksum_offload: Offload = option(
        Offload.AUTO,
        "whether the checksums of vxlan packets are left to hardware: on, off, or auto, which is off on kernels that "
        "are known to get them wrong, and otherwise as it is",
        since="pyflannel 0.1",
        parse=values.one_of(Offload),
    )
    peer_filter: bool = option(
        False, "drop tunnel packets that come from no known host; needs nft", since="pyflannel 0.1"
    )
    iptables_resync: int = option(5, "seconds between checks of the iptables rules", since="v0.11", span=SECONDS)
    iptables_forward_rules: bool = option(True, "accept the network's traffic in the FORWARD chain", since="v0.11")
    ip_blackhole_route: bool = option(False, "keep a blackhole route for the subnet of this host", since="v0.27.1")
    healthz_ip: IPv4Address | IPv6Address = option(
        values.listen_ip(""), "address on which health is served", since="v0.8", parse=values.listen_ip
    )
    healthz_port: int = option(0, "port on which health is served, 0 for none", since="v0.8", span=PORTS)
    status_ip: IPv4Address | IPv6Address = option(
        values.listen_ip("127.0.0.1"),
        "address on which status, metrics and the page are served, beside health",
        since="pyflannel 0.1",
        parse=values.listen_ip,
    )
    status_port: int = option(
        0, "port on which status, metrics and the page are served, 0 for none", since="pyflannel 0.1", span=PORTS
    )
    ui: bool = option(
        False, "serve a page for people as well: on -status-port, or on 8287 if there is none", since="pyflannel 0.1"
    )
    probe: bool = option(
        True, "find out which hosts answer, how fast, and how large packets may be", since="pyflannel 0.1"
    )
    probe_port: int = option(
        8286,
        "UDP port on which agents ask one another, the same on all hosts",
        since="pyflannel 0.1",
        span=range(1, 2**16),
    )
    log_format: LogFormat = option(
        LogFormat.TEXT, "how log lines look: text or json", since="pyflannel 0.1", parse=values.one_of(LogFormat)
    )
    v: int = option(0, "how much to log: 1 for details, up to 10", since="v0.1")
    vmodule: str = option("", "the same for single files: pattern=N,…", since="v0.1", parse=values.vmodule)
    log_backtrace_at: str = option(
        "",
        "dump the stack when this line logs: file:line",
        since="v0.1",
        flag="log_backtrace_at",
        parse=values.backtrace_at,
    )
    compat_exit_codes: bool = option(
        False, "exit as Go flanneld does: 0 after an error in the command line", since="pyflannel 0.1"
    )
    dry_run: bool = option(
        False,
        "print what a start would change and exit: 0 for nothing, 2 for changes, 1 if it cannot be told",
        since="pyflannel 0.1",
    )
    version: bool = option(False, "print the version and exit", since="v0.1")
    sources: Mapping[str, Source] = field(default_factory=dict, compare=False)
    """Where the values that were given came from, by flag."""

    def source(self, flag: str) -> Source:
        """Where the value of ``flag`` came from."""
        return self.sources.get(flag, Source.DEFAULT)

    def __repr__(self) -> str:
        """All options, none of them in the clear that should not be."""
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in describe(self).items())})"


@dataclass(frozen=True, slots=True)
class Option:
    """What ``Settings`` declares about one flag."""

    flag: str
    attribute: str
    kind: Kind
    """How Go's flag package reads it; anything richer starts as a str."""
    default: object
    help: str
    since: str
    parse: Callable[[str], object] | None
    span: range | None
    repeatable: bool
    hide: Callable[[str], str] | None

    def read(self, given: Sequence[Value]) -> object:
        """The typed value of what was given, in order; ``ValueError`` says what was expected instead.

        The last one counts, except for repeatable options; there an empty one stands for nothing.
        """
        if self.repeatable:
            return tuple(str(value) for value in given if value != "")
        value = given[-1]
        if self.span is not None and value not in self.span:
            raise ValueError(f"expected a number from {self.span[0]} to {self.span[-1]}")
        return value if self.parse is None else self.parse(str(value))

    def show(self, value: object) -> str:
        """The value as text, fit to be logged: typed or as it was given."""
        match value:
            case None:
                text = ""
            case bool():
                text = "true" if value else "false"
            case tuple():
                text = ",".join(value)
            case _:
                text = str(value)
        return text if self.hide is None else self.hide(text)


def _declared() -> Iterator[tuple[str, Option]]:
    for each in fields(Settings):
        if not each.metadata:
            continue
        spec = dict(each.metadata)
        flag = spec.pop("flag") or each.name.replace("_", "-")
        kind: Kind = bool if isinstance(each.default, bool) else int if type(each.default) is int else str
        yield flag, Option(flag=flag, attribute=each.name, kind=kind, default=each.default, **spec)


OPTIONS: Final[Mapping[str, Option]] = dict(sorted(_declared()))
"""Every option, by flag, in alphabetical order."""


@dataclass(frozen=True, slots=True)
class Retired:
    """A flag that some flannel had and that means nothing to us: accepted, so that old unit files keep working."""

    kind: Kind
    advice: str


_OWN_SERVER: Final = "client and server mode ended with v0.7; let the agent talk to etcd itself"
_ONE_NETWORK: Final = (
    "several networks in one agent ended with v0.7; run one flanneld for each, with its own -etcd-prefix"
)
_STDERR: Final = "all log lines go to stderr"

RETIRED: Final[Mapping[str, Retired]] = {
    "etcd-endpoint": Retired(str, "say -etcd-endpoints"),
    "listen": Retired(str, _OWN_SERVER),
    "remote": Retired(str, _OWN_SERVER),
    "remote-keyfile": Retired(str, _OWN_SERVER),
    "remote-certfile": Retired(str, _OWN_SERVER),
    "remote-cafile": Retired(str, _OWN_SERVER),
    "networks": Retired(str, _ONE_NETWORK),
    "watch-networks": Retired(bool, _ONE_NETWORK),
    "subnet-dir": Retired(str, _ONE_NETWORK),
    "alsologtostderr": Retired(bool, _STDERR),
    "logtostderr": Retired(bool, _STDERR),
    "stderrthreshold": Retired(str, _STDERR),
    "log_dir": Retired(str, _STDERR),
    "use-multi-cluster-cidr": Retired(bool, "Kubernetes has dropped ClusterCIDR"),
}
"""Flags of former versions (compat §1.4).  ``help`` is none of them: the parser of the command line answers it."""


def describe(settings: Settings) -> dict[str, str]:
    """Every option by flag, as text without secrets."""
    return {flag: option_.show(getattr(settings, option_.attribute)) for flag, option_ in OPTIONS.items()}


def config_line(settings: Settings) -> str:
    """What the agent runs with, for one line of log: first what was given, and where, then defaults.  No secrets."""
    texts = {flag: text for flag, text in describe(settings).items() if text or flag in settings.sources}
    given = [f"{flag}={texts[flag]} ({settings.source(flag)})" for flag in texts if flag in settings.sources]
    defaults = [f"{flag}={texts[flag]}" for flag in texts if flag not in settings.sources]
    return f"{' '.join(given) or 'nothing given'}; defaults: {' '.join(defaults)}"
