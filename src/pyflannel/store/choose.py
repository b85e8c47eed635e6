"""Which of several stores holds the network: what ``--etcd-api=auto`` asks.

etcd keeps the records of its two APIs apart: a configuration written through one cannot be seen through the other, and
hosts that use different ones do not see each other (compat §12).  So we look where the configuration is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pyflannel.store.api import ConfigRecord, Store, Unavailable
from pyflannel.store.endpoints import NotOffered


@dataclass(frozen=True, slots=True)
class Missing:
    """No store has a configuration, and at least one of them said so."""

    details: tuple[str, ...]
    """For each store: which key was asked, in which API, where, and what came back."""

    def __str__(self) -> str:
        """All of it on one line, for people."""
        return "; ".join(self.details)


async def find_config(stores: Iterable[Store]) -> tuple[Store, ConfigRecord] | Missing:
    """The first store that holds a configuration, and that.

    A store whose API is switched off (``NotOffered``) has none; that is no outage as long as another one answers.  But
    while a store is out of reach those after it are not chosen, even if they hold one: it may be an old one that
    everybody else left behind.  ``Unavailable`` then, and if no store answers at all, with the details of each.
    """
    details: list[str] = []
    answered = out_of_reach = False
    for store in stores:
        try:
            record = await store.network_config()
        except NotOffered as reason:
            details.append(str(reason))
        except Unavailable as reason:
            details.append(str(reason))
            out_of_reach = True
        else:
            answered = True
            if record.text is not None and not out_of_reach:
                return store, record
            details.append(f"{record.where}: {'no such key' if record.text is None else 'is there, but not used yet'}")
    if out_of_reach or not answered:
        raise Unavailable("; ".join(details))
    return Missing(tuple(details))
