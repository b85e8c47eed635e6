"""Every trouble an agent can name, with what it means and what to do: docs/troubleshooting.md is made of this."""

from __future__ import annotations

from typing import Final

from pyflannel.health import Kind, Severity

_WARNING, _ERROR = Severity.WARNING, Severity.ERROR

STORE_DOWN: Final = Kind(
    "store-unreachable",
    _ERROR,
    "No member of the store answers, so leases are neither renewed nor heard of. Everything that was programmed stays "
    "and is kept in repair; hosts that join meanwhile are not reached.",
    "Look after etcd, and after the way to it: addresses, certificates, password (the text says what came back).",
)
CONFIG_REFUSED: Final = Kind(
    "config-refused",
    _ERROR,
    "The network configuration in the store cannot be used here. The one that was in force before stays so.",
    "Write a configuration that can be used: `flannelctl config check FILE` says what is wrong with one.",
)
CONFIG_MISSING: Final = Kind(
    "config-missing",
    _ERROR,
    "The store has no network configuration yet, so there is nothing to be part of.",
    "Write one, as the README shows; the agent waits for it.",
    blocks_ready=True,
)
LEASE_CONFLICT: Final = Kind(
    "address-twice",
    _ERROR,
    "Another host publishes our address in our lease, over and over: only one of the two can be reached.",
    "Give each host an address of its own. If one is a clone of the other, remove the subnet.env and the state "
    "directory it was cloned with.",
)
LEASE_UNREADABLE: Final = Kind(
    "lease-unreadable",
    _ERROR,
    "Somebody wrote something else into our record, so it can neither be renewed nor written again.",
    "Remove the key that is named: the agent writes it again.",
)
LEASE_MISSING: Final = Kind(
    "lease-missing",
    _ERROR,
    "This host has no lease in the store and gets none, so that no other host knows it, or sends anything to its "
    "containers.",
    "See what came back. Where etcd is full (`etcdctl alarm list`), compact and defragment it, then `etcdctl alarm "
    "disarm`; where it allows no writing, look after the agents' user; where no subnet is free, give the network more "
    "of them, or `flannelctl leases release` those of hosts that are gone. The agent goes on trying.",
    hidden_by=(STORE_DOWN,),
    blocks_ready=True,
)
LEASE_NOT_RENEWED: Final = Kind(
    "lease-not-renewed",
    _ERROR,
    "The store answers, and does not let us renew our lease. Once that has run out, within a day, other hosts forget "
    "this one.",
    "See what came back. Where etcd is full (`etcdctl alarm list`), compact and defragment it, then `etcdctl alarm "
    "disarm`; where it allows no writing, look after the agents' user. The agent goes on trying.",
    hidden_by=(STORE_DOWN, LEASE_MISSING),
)
RECORD_IGNORED: Final = Kind(
    "record-ignored",
    _WARNING,
    "A lease of another host is of no use to us, so that host is not reached; all others are.",
    "Look after the host that wrote it: the text says what is wrong with its record.",
)
UNDERLAY_DOWN: Final = Kind(
    "interface-unusable",
    _ERROR,
    "The external interface, over which all other hosts are reached, is gone, down or without an address.",
    "Bring it up again. The agent follows at once, under another name or address as well.",
    blocks_ready=True,
)
MTU_TOO_SMALL: Final = Kind(
    "mtu-too-small",
    _ERROR,
    "The external interface carries packets so small that nothing fits into the tunnel.",
    "Raise its MTU.",
    blocks_ready=True,
)
KERNEL_REFUSES: Final = Kind(
    "kernel-refuses",
    _ERROR,
    "The kernel refused something that should be there; it is tried again, ever more seldom, and nothing else waits.",
    "The text is the command as one would type it, and the kernel's answer.",
    hidden_by=(UNDERLAY_DOWN,),
)
KERNEL_UNREADABLE: Final = Kind(
    "kernel-unreadable",
    _ERROR,
    "The kernel's state could not be read, so it could not be put right either.",
    "See whether the agent may still do so (CAP_NET_ADMIN), and whether the machine is short of memory.",
)
EVENTS_LOST: Final = Kind(
    "kernel-deaf",
    _WARNING,
    "The kernel cannot tell us at the moment what happens. What breaks is found by looking, minutes later.",
    "See whether the machine is short of memory or of descriptors.",
)
FIREWALL: Final = Kind(
    "firewall-not-in-sync",
    _ERROR,
    "The firewall's rules are not what they should be: traffic of containers may be dropped, or not masqueraded.",
    "Try the command in the text by hand; see whether two variants of iptables are in use (legacy and nft).",
)
COMMAND_FAILS: Final = Kind(
    "command-fails",
    _WARNING,
    "A command of the extension backend fails, so its peer may not be reached. It is run again, ever more seldom.",
    "See what it printed, in the log before this; the commands are in the network configuration.",
    hidden_by=(UNDERLAY_DOWN,),
)
PEER_FILTER: Final = Kind(
    "peer-filter-off",
    _ERROR,
    "The filter of tunnel packets that -peer-filter asks for has no effect: those of anybody are let in.",
    "Install nftables, or see what the text says of the table; the agent goes on trying.",
)
SUBNET_FILE: Final = Kind(
    "subnet-file-unwritable",
    _ERROR,
    "The subnet file cannot be written, so Docker is told nothing, or something old.",
    "Make room, or make the directory writable: the agent goes on trying.",
    blocks_ready=True,
)
CACHE: Final = Kind(
    "cache-unwritable",
    _WARNING,
    "What is known cannot be saved. Nothing depends on it until this host starts while the store is down.",
    "Make room, or make the state directory writable: the agent goes on trying.",
)
FROM_MEMORY: Final = Kind(
    "from-memory",
    _WARNING,
    "This agent came up while no store answered, and goes by what was last known.",
    "Look after the store.",
    hidden_by=(STORE_DOWN,),
)

CUT_OFF: Final = Kind(
    "cut-off",
    _ERROR,
    "None of the hosts that used to answer does so any more, neither through the overlay nor beside it: most likely it "
    "is this host that is cut off.",
    "See whether this host reaches anybody: its cable or virtual switch, its routes, its firewall.",
    hidden_by=(UNDERLAY_DOWN, LEASE_MISSING),
)
PEER_UNREACHABLE: Final = Kind(
    "peer-unreachable",
    _WARNING,
    "A host that used to answer does so no longer, neither through the overlay nor beside it. Its containers are not "
    "reached from here; all others are.",
    "See whether that host is up, and whether anything drops packets between this host and the address in the text.",
    hidden_by=(UNDERLAY_DOWN, CUT_OFF, LEASE_MISSING),
)
TUNNEL_BLOCKED: Final = Kind(
    "tunnel-blocked",
    _WARNING,
    "A host answers, but nothing comes through the overlay to it or back, so its containers are not reached. As a rule "
    "a firewall on the way, or a security group of a cloud, drops the tunnel's packets.",
    "Let what the text names pass in both directions between all hosts. If it passes already, see whether the agent of "
    "that host is well: it may lack the device, or the way back.",
    hidden_by=(UNDERLAY_DOWN, LEASE_MISSING),
)
ONE_WAY: Final = Kind(
    "one-way",
    _WARNING,
    "Packets pass between this host and a peer in one direction only; no connection comes about in either.",
    "Look at the direction in the text: a firewall's rule, a route back by another way, or reverse path filtering "
    "(rp_filter) on the host that they do not arrive at.",
    hidden_by=(UNDERLAY_DOWN, CUT_OFF, LEASE_MISSING),
)
SUBNET_SILENT: Final = Kind(
    "subnet-silent",
    Severity.NOTICE,
    "A host answers, but the first address of its subnet, Docker's bridge as a rule, does so no longer. Either Docker "
    "is stopped there, or packets for its containers are dropped on the way.",
    "See whether Docker runs on that host; if it does, whether anything between the hosts, such as a cloud's check of "
    "source and destination addresses, drops packets with addresses of containers.",
    hidden_by=(UNDERLAY_DOWN, LEASE_MISSING),
)
PEER_LOSSY: Final = Kind(
    "peer-lossy",
    _WARNING,
    "Many packets between this host and a peer get lost: connections work, and are slow.",
    "Look for a link that is overloaded or broken; the text says in which direction they get lost, if that is known.",
    hidden_by=(UNDERLAY_DOWN, MTU_TOO_SMALL),
)
PATH_MTU_SMALL: Final = Kind(
    "path-mtu-small",
    _WARNING,
    "Packets as large as containers may send do not come through to a peer, smaller ones do: connections come about, "
    "and hang as soon as much is sent.",
    "Raise the MTU of whatever is on the way, or lower that of the network on all hosts (`MTU` of `Backend` in the "
    "network configuration, or of the external interfaces) and restart Docker.",
    hidden_by=(UNDERLAY_DOWN, MTU_TOO_SMALL),
)
PEER_SILENT: Final = Kind(
    "peer-silent",
    Severity.NOTICE,
    "A host has never answered since this agent runs. It may be down and its lease not have run out yet; or it is "
    "well and its firewall answers nobody: of a host without an agent of ours there is only ICMP echo to go by.",
    "If the host is meant to be there, send something from container to container. To have it looked after, let it "
    "answer ICMP echo, or UDP port 8286 (-probe-port) where it runs this agent.",
    hidden_by=(UNDERLAY_DOWN, CUT_OFF, LEASE_MISSING),
)
PROBE_PORT_TAKEN: Final = Kind(
    "probe-port-taken",
    _WARNING,
    "The UDP port on which agents ask one another cannot be used here. Other hosts are asked by ICMP echo instead, and "
    "ask us so; which direction loses packets is not found out, nor can a trace be followed to the other end.",
    "Stop the program that has the port, or set another -probe-port on all hosts: the agent goes on trying.",
)
NOT_SERVED: Final = Kind(
    "not-served",
    _WARNING,
    "The agent cannot be asked where it should be: health, status, metrics, or flannelctl find nobody there. The "
    "network goes on as it is.",
    "Stop what listens there, or choose another port with -healthz-port or -status-port; the agent goes on trying.",
)

ALL: Final = tuple(each for each in vars().values() if isinstance(each, Kind))
"""In the order they have here."""
