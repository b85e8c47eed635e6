"""Which stores the settings allow, opened when they are first needed.

Why not at once: a client of the API that nobody uses would cost start-up time and memory on every host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from pyflannel.settings import EtcdApi, Settings
from pyflannel.store.api import Store

if TYPE_CHECKING:
    from pyflannel.store.etcd2 import Etcd2Store
    from pyflannel.store.etcd3 import Etcd3Store


class Candidates:
    """Stores in the order in which they are to be asked, each opened when an iteration first reaches it."""

    def __init__(
        self, openers: Mapping[str, Callable[[], Store]], seen: Callable[[Store], Store] = lambda store: store
    ) -> None:
        """Nothing is opened yet.  ``openers`` have names that mean the same kind of store in every run.

        ``seen`` says what is handed out for a store that was opened.
        """
        self._openers, self._seen = openers, seen
        self._opened: dict[str, Store] = {}

    def __iter__(self) -> Iterator[Store]:
        for kind in self._openers:
            yield self._open(kind)

    def of_kind(self, kind: str) -> Store | None:
        """The store of that kind; None if it is none of the candidates."""
        return self._open(kind) if kind in self._openers else None

    def kind(self, store: Store) -> str:
        """Which of the candidates ``store`` is."""
        return next(kind for kind, opened in self._opened.items() if opened is store)

    async def close(self) -> None:
        """Close those that were opened."""
        for store in self._opened.values():
            await store.close()

    def _open(self, kind: str) -> Store:
        if kind not in self._opened:
            self._opened[kind] = self._seen(self._openers[kind]())
        return self._opened[kind]


def candidates(settings: Settings, seen: Callable[[Store], Store] = lambda store: store) -> Candidates:
    """The store named by ``-store``, or etcd by way of the APIs that ``-etcd-api`` allows, the newer one first."""
    if settings.store:
        return Candidates({"local": lambda: _local(settings)}, seen)
    etcd: dict[EtcdApi, tuple[str, Callable[[], Store]]] = {
        EtcdApi.V3: ("etcd v3", lambda: _etcd3(settings)),
        EtcdApi.V2: ("etcd v2", lambda: _etcd2(settings)),
    }
    return Candidates(dict(opener for api, opener in etcd.items() if settings.etcd_api in (EtcdApi.AUTO, api)), seen)


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
