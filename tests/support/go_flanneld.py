"""What Go flanneld leaves on a host when it ends, made by hand with ip(8), bridge(8) and sysctl.

Two forms (compat §5.2): that of v0.9.0 and later, which is ours as well, and that of v0.7 and v0.8, where one route led
the whole network into the device and the agent answered for each address that was asked for.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from tests.support.pair import Host, Peer


def _device(host: Host, own: Peer) -> None:
    """flannel.1 as Go makes it: without a port, so on the kernel's own."""
    host.space.run(
        f"ip link add flannel.1 mtu 1450 address {own.mac} type vxlan id 1 dev ens33 local {own.host} nolearning"
    )
    host.space.run(f"ip address add {own.gateway}/32 dev flannel.1")
    host.space.run("ip link set flannel.1 up")


def leave_newest(host: Host, own: Peer, *peers: Peer) -> None:
    """A host of v0.21.3 or later, with its FORWARD chain and masquerading (compat §6.1): jumps are appended."""
    _device(host, own)
    host.space.shell("echo 0 >/proc/sys/net/ipv6/conf/flannel.1/accept_ra")
    for peer in peers:
        host.space.run(f"ip neigh replace {peer.gateway} lladdr {peer.mac} dev flannel.1 nud permanent")
        host.space.run(f"bridge fdb replace {peer.mac} dev flannel.1 self permanent dst {peer.host}")
        host.space.run(f"ip route replace {peer.subnet} via {peer.gateway} dev flannel.1 onlink")
    host.space.run("iptables-restore --noflush", stdin=_rules(own.subnet))


def _rules(subnet: str) -> str:
    masq, forward = (f'-m comment --comment "flanneld {what}"' for what in ("masq", "forward"))
    network = "10.2.0.0/16"
    return f"""*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING {masq} -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN
-A FLANNEL-POSTRTG -s {subnet} -d {network} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} -d {subnet} {masq} -j RETURN
-A FLANNEL-POSTRTG ! -s {network} -d {subnet} {masq} -j RETURN
-A FLANNEL-POSTRTG -s {network} ! -d 224.0.0.0/4 {masq} -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD {forward} -j FLANNEL-FWD
-A FLANNEL-FWD -s {network} {forward} -j ACCEPT
-A FLANNEL-FWD -d {network} {forward} -j ACCEPT
COMMIT
"""


def leave_v08(host: Host, own: Peer, *peers: Peer) -> None:
    """A host of v0.7 or v0.8, which has answered for the first container of each peer; it leaves no rules behind."""
    _device(host, own)
    host.space.run("ip route add 10.2.0.0/16 dev flannel.1")
    host.space.shell("echo 3 >/proc/sys/net/ipv4/neigh/flannel.1/app_solicit")
    for peer in peers:
        host.space.run(f"bridge fdb add {peer.mac} dev flannel.1 self static dst {peer.host}")
        container = IPv4Network(peer.subnet)[2]
        host.space.run(f"ip neigh replace {container} lladdr {peer.mac} dev flannel.1 nud reachable")


def record_of_v08(peer: Peer) -> str:
    """Its lease as v0.7 and v0.8 write it: no VNI, no PublicIPv6 (compat §3.2)."""
    return f'{{"PublicIP":"{peer.host}","BackendType":"vxlan","BackendData":{{"VtepMAC":"{peer.mac}"}}}}'
