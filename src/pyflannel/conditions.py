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

ALL: Final = tuple(each for each in vars().values() if isinstance(each, Kind))
"""In the order they have here."""
