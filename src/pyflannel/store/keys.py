"""Where a network's records are in etcd; the same names in both APIs (compat §3.1)."""

from __future__ import annotations


def config_key(prefix: str) -> str:
    """The record which the administrator writes."""
    return _joined(prefix, "config")


def subnets_key(prefix: str) -> str:
    """What the key of every lease begins with, its last slash included.

    Go flanneld leaves the slash out when it lists and watches, and so also sees ``<prefix>/subnets-old/…``.  No flannel
    ever wrote a lease there, and a copy that somebody put aside must not program routes: we see less, on purpose.
    """
    return _joined(prefix, "subnets") + "/"


def _joined(prefix: str, name: str) -> str:
    """Join as Go's ``path.Join`` does: double and trailing slashes collapse, a missing leading slash stays missing."""
    parts = [part for part in prefix.split("/") if part not in ("", ".")]
    return ("/" if prefix.startswith("/") else "") + "/".join([*parts, name])
