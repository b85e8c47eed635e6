from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyflannel.settings import OPTIONS, RETIRED, EtcdApi, LogFormat, Offload, Settings, Source, config_line, describe

ETCD = "etcd-endpoints etcd-prefix etcd-keyfile etcd-certfile etcd-cafile etcd-username etcd-password"
GLOG = "v vmodule log_backtrace_at"
V08 = f"""{ETCD} {GLOG} iface iface-regex subnet-file public-ip subnet-lease-renew-margin ip-masq kube-subnet-mgr
    kube-api-url kubeconfig-file version healthz-ip healthz-port"""
VERSIONS = {
    "v0.1": "etcd-endpoint etcd-prefix iface subnet-file ip-masq version",
    "v0.7.1": f"""{ETCD} {GLOG} listen remote remote-keyfile remote-certfile remote-cafile kube-subnet-mgr version
        public-ip subnet-file subnet-dir iface networks subnet-lease-renew-margin watch-networks ip-masq
        alsologtostderr logtostderr stderrthreshold log_dir""",
    "v0.8.0": V08,
    "v0.11.0": f"{V08} kube-annotation-prefix iptables-resync iptables-forward-rules",
    "v0.21.0": "use-multi-cluster-cidr net-config-path public-ipv6 set-node-network-unavailable iface-can-reach",
    "v0.28.9": f"""{V08} kube-annotation-prefix iptables-resync iptables-forward-rules net-config-path public-ipv6
        set-node-network-unavailable iface-can-reach ip-blackhole-route ip-masq-fully-random-disable""",
}
OURS = {
    *("etcd-api", "store", "state-dir", "log-format", "compat-exit-codes", "dry-run", "release-on-exit"),
    *("vxlan-checksum-offload", "peer-filter", "status-ip", "status-port", "ui", "probe", "probe-port"),
}
GO_DEFAULTS = {
    "etcd-endpoints": "http://127.0.0.1:4001,http://127.0.0.1:2379",
    "etcd-prefix": "/coreos.com/network",
    "subnet-file": "/run/flannel/subnet.env",
    "subnet-lease-renew-margin": "60",
    "ip-masq": "false",
    "ip-masq-fully-random-disable": "false",
    "kube-subnet-mgr": "false",
    "kube-annotation-prefix": "flannel.alpha.coreos.com",
    "net-config-path": "/etc/kube-flannel/net-conf.json",
    "set-node-network-unavailable": "true",
    "iptables-resync": "5",
    "iptables-forward-rules": "true",
    "ip-blackhole-route": "false",
    "healthz-ip": "0.0.0.0",
    "healthz-port": "0",
    "version": "false",
    "v": "0",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_flag_of_a_flannel_is_known(version: str) -> None:
    assert set(VERSIONS[version].split()) <= OPTIONS.keys() | RETIRED.keys()


def test_every_option_is_a_flag_of_the_newest_flannel_or_declared_as_ours() -> None:
    assert OPTIONS.keys() == set(VERSIONS["v0.28.9"].split()) | OURS


def test_no_flag_is_both_alive_and_retired() -> None:
    assert not OPTIONS.keys() & RETIRED.keys()


def test_defaults_are_those_of_the_newest_flannel() -> None:
    shown = describe(Settings())
    assert {flag: shown[flag] for flag in VERSIONS["v0.28.9"].split() if shown[flag]} == GO_DEFAULTS


def test_defaults_of_our_own_options() -> None:
    settings = Settings()
    assert settings.etcd_api is EtcdApi.AUTO
    assert settings.log_format is LogFormat.TEXT
    assert settings.store == ""
    assert settings.state_dir == "/var/lib/flannel"
    assert not settings.compat_exit_codes
    assert not settings.dry_run
    assert not settings.release_on_exit
    assert settings.vxlan_checksum_offload is Offload.AUTO
    assert not settings.peer_filter


def test_flags_are_read_as_the_kind_go_gives_them() -> None:
    booleans = {flag for flag, option in OPTIONS.items() if option.kind is bool}
    numbers = {flag for flag, option in OPTIONS.items() if option.kind is int}
    assert booleans == {
        *("ip-masq", "ip-masq-fully-random-disable", "kube-subnet-mgr", "set-node-network-unavailable"),
        *("iptables-forward-rules", "ip-blackhole-route", "version", "compat-exit-codes", "dry-run", "release-on-exit"),
        *("peer-filter", "ui", "probe"),
    }
    assert numbers == {
        *("subnet-lease-renew-margin", "iptables-resync", "healthz-port", "status-port", "probe-port", "v"),
    }


@pytest.mark.parametrize("flag", OPTIONS)
def test_every_default_is_a_value_its_own_flag_accepts(flag: str) -> None:
    option = OPTIONS[flag]
    written = option.show(option.default) if option.kind is str else option.default
    assert isinstance(written, option.kind)
    assert option.read([written]) == option.default


def test_a_repeatable_option_keeps_all_in_order_and_drops_empty_ones() -> None:
    assert OPTIONS["iface"].read(["eth1", "", "10.0.0.1"]) == ("eth1", "10.0.0.1")


def test_of_other_options_the_last_one_counts() -> None:
    assert OPTIONS["public-ip"].read(["192.0.2.1", "192.0.2.2"]) == IPv4Address("192.0.2.2")


@pytest.mark.parametrize(
    ("flag", "bad", "expected"),
    [
        ("subnet-lease-renew-margin", 0, "from 1 to 1439"),
        ("subnet-lease-renew-margin", 1440, "from 1 to 1439"),
        ("iptables-resync", 0, "from 1 to"),
        ("iptables-resync", -5, "from 1 to"),
        ("healthz-port", 65536, "from 0 to 65535"),
        ("healthz-port", -1, "from 0 to 65535"),
    ],
)
def test_a_number_out_of_range_is_refused(flag: str, bad: int, expected: str) -> None:
    with pytest.raises(ValueError, match=f"expected a number {expected}"):
        OPTIONS[flag].read([bad])


@pytest.mark.parametrize(("flag", "value"), [("subnet-lease-renew-margin", 1), ("subnet-lease-renew-margin", 1439)])
def test_the_ends_of_a_range_belong_to_it(flag: str, value: int) -> None:
    assert OPTIONS[flag].read([value]) == value


def test_a_value_that_was_not_given_has_its_default_as_source() -> None:
    settings = Settings(sources={"v": Source.ENVIRONMENT})
    assert settings.source("v") is Source.ENVIRONMENT
    assert settings.source("iface") is Source.DEFAULT


def test_where_a_value_came_from_makes_no_difference() -> None:
    assert Settings(v=1) == Settings(v=1, sources={"v": Source.FLAG})


def test_the_line_at_start_tells_what_was_given_first_and_from_where() -> None:
    settings = Settings(etcd_prefix="/net", v=1, sources={"etcd-prefix": Source.FLAG, "v": Source.ENVIRONMENT})
    given, _, defaults = config_line(settings).partition("; defaults: ")
    assert given == "etcd-prefix=/net (flag) v=1 (environment)"
    assert "iptables-resync=5" in defaults
    assert "etcd-prefix" not in defaults


@given(st.text("0123456789xyz", min_size=8), st.text("0123456789xyz", min_size=8))
def test_a_password_is_in_no_description(password: str, of_url: str) -> None:
    settings = Settings(
        etcd_password=password,
        etcd_endpoints=(f"http://user:{of_url}@a:1", "http://b:2"),
        kube_api_url=f"https://{of_url}@api",
    )
    for text in (repr(settings), str(settings), str(describe(settings)), config_line(settings)):
        assert password not in text
        assert of_url not in text
