"""Which stores the settings allow, opened when they are first needed.

Why not at once: a client of the API that nobody uses would cost start-up time and memory on every host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from pyflannel.settings import EtcdApi, Settings
from pyflannel.store.api import Store

if TYPE_CHECKING:
    from pyflannel.store.etcd2 import Etcd2Store
    from pyflannel.store.etcd3 import Etcd3Store


class Candidates:
    """Stores in the order in which they are to be asked, each opened when an iteration first reaches it."""

    def __init__(self, openers: Sequence[Callable[[], Store]]) -> None:
        """Nothing is opened yet."""
        self._openers = openers
        self._opened: list[Store] = []

    def __iter__(self) -> Iterator[Store]:
        for index, opener in enumerate(self._openers):
            if index == len(self._opened):
                self._opened.append(opener())
            yield self._opened[index]

    async def close(self) -> None:
        """Close those that were opened."""
        for store in self._opened:
            await store.close()


def candidates(settings: Settings) -> Candidates:
    """The store named by ``-store``, or etcd by way of the APIs that ``-etcd-api`` allows, the newer one first."""
    if settings.store:
        return Candidates([lambda: _local(settings)])
    etcd: dict[EtcdApi, Callable[[], Store]] = {
        EtcdApi.V3: lambda: _etcd3(settings),
        EtcdApi.V2: lambda: _etcd2(settings),
    }
    return Candidates([opener for api, opener in etcd.items() if settings.etcd_api in (EtcdApi.AUTO, api)])


def _local(settings: Settings) -> Store:
    from pyflannel.store import local

    return local.open_url(settings.store, settings.etcd_prefix)


def _etcd3(settings: Settings) -> Store:
    from pyflannel.store.etcd3 import Etcd3Store

    return _opened(Etcd3Store, settings)


def _etcd2(settings: Settings) -> Store:
    from pyflannel.store.etcd2 import Etcd2Store

    return _opened(Etcd2Store, settings)


def _opened(client: type[Etcd2Store] | type[Etcd3Store], settings: Settings) -> Store:
    from pyflannel.store.endpoints import Credentials, Tls

    user = Credentials(settings.etcd_username, settings.etcd_password) if settings.etcd_username else None
    tls = Tls(settings.etcd_cafile or None, settings.etcd_certfile or None, settings.etcd_keyfile or None)
    return client(settings.etcd_endpoints, settings.etcd_prefix, credentials=user, tls=tls)
