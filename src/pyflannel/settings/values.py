"""What the text of an option can mean, and how it is shown again.

Rules of this file
  1. A reader takes the text and returns the value, or raises ``ValueError`` whose message is what was expected.
     It never repeats the text: that may be a secret, and whoever asked knows it anyway.
  2. What Go flanneld accepts and can work with, we accept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import Final, TypeVar

Word = TypeVar("Word", bound=StrEnum)


_USERINFO: Final = re.compile(
    r"((?:^|,)\s*(?:[a-zA-Z][a-zA-Z0-9+.-]*://)?)(?:(?!,\s*[a-zA-Z][a-zA-Z0-9+.-]*://).)*@", re.S
)


def stars(text: str) -> str:
    """Hide all of it, except that there is something to hide."""
    return "***" if text else ""


def redact_urls(text: str) -> str:
    """Hide the ``user:password@`` of every URL in a comma separated list.

    Rather too much than too little: all between ``://`` and the last ``@`` before the next URL goes, so a password
    that was not percent-encoded as it should be stays hidden too.
    """
    return _USERINFO.sub(r"\1***@", text)


def ipv4(text: str) -> IPv4Address | None:
    """An IPv4 address; nothing is none."""
    try:
        return IPv4Address(text) if text else None
    except AddressValueError:
        raise ValueError("expected an IPv4 address such as 192.0.2.7") from None


def ipv6(text: str) -> IPv6Address | None:
    """An IPv6 address without a zone, which means nothing to other hosts; nothing is none."""
    try:
        return IPv6Address(text.replace("%", "!")) if text else None
    except AddressValueError:
        raise ValueError("expected an IPv6 address such as 2001:db8::7") from None


def ip(text: str) -> IPv4Address | IPv6Address | None:
    """An address of either family; nothing is none."""
    try:
        return ip_address(text) if text else None
    except ValueError:
        raise ValueError("expected an IP address such as 192.0.2.7 or 2001:db8::7") from None


def listen_ip(text: str) -> IPv4Address | IPv6Address:
    """An address to listen on; nothing means all of them, as it does to Go."""
    return ip({"localhost": "127.0.0.1"}.get(text, text)) or IPv4Address("0.0.0.0")


def path(text: str) -> str:
    """Any path, but not none."""
    if not text:
        raise ValueError("expected a path")
    return text


_ENDPOINT: Final = re.compile(
    r"(?:https?://)?(?:[^/\s]*@)?(?:\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?(?:/[^\s@]*)?"
)


def endpoints(text: str) -> tuple[str, ...]:
    """Comma separated URLs, at least one.  Without a scheme they mean ``http://``, as they do to etcd's own client."""
    urls = tuple(part.strip() for part in text.split(",") if part.strip())
    if not urls:
        raise ValueError("expected at least one URL such as http://192.0.2.1:2379")
    for number, url in enumerate(urls, 1):
        match = _ENDPOINT.fullmatch(url)
        if match is None or int(match["port"] or 0) > 65535:
            raise ValueError(f"expected URLs such as http://192.0.2.1:2379, separated by commas; no. {number} is none")
    return tuple(url if "://" in url else f"http://{url}" for url in urls)


def store_url(text: str) -> str:
    """Where leases are kept if not in etcd."""
    if text and not text.startswith("local:/"):
        raise ValueError("expected local:/path/to/file, or nothing for etcd")
    return text


def one_of(words: type[Word]) -> Callable[[str], Word]:
    """A reader for a handful of words."""

    def parse(text: str) -> Word:
        try:
            return words(text)
        except ValueError:
            raise ValueError(f"expected one of {', '.join(words)}") from None

    return parse


def read_vmodule(text: str) -> tuple[tuple[str, int], ...]:
    """Read ``pattern=N,…`` as klog does; ``ValueError`` says what was expected."""
    pairs = [part.rpartition("=") for part in text.split(",") if part]
    if not all(pattern and level.isascii() and level.isdecimal() for pattern, _, level in pairs):
        raise ValueError("expected pattern=N,… such as vxlan=2,etcd*=1")
    return tuple((pattern, int(level)) for pattern, _, level in pairs)


def vmodule(text: str) -> str:
    """What ``read_vmodule`` can read."""
    read_vmodule(text)
    return text


def backtrace_at(text: str) -> str:
    """``file:line``; glog's own ``:0`` stands for nowhere."""
    if text and not re.fullmatch(r"[^:]*:[0-9]+", text):
        raise ValueError("expected file:line such as vxlan.py:12")
    return text
