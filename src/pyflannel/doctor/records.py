"""What the store holds of the network, asked in every API there is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from pyflannel.backends import direct
from pyflannel.backends.udp import Udp
from pyflannel.backends.vxlan import Vxlan
from pyflannel.backends.wireguard import Wireguard
from pyflannel.doctor.facts import Network, Record
from pyflannel.footing import Configured, understand
from pyflannel.lease.network import ConfigError
from pyflannel.settings import EtcdApi, Settings
from pyflannel.store import cache
from pyflannel.store.api import Store, Unavailable
from pyflannel.store.candidates import candidates
from pyflannel.store.endpoints import Tls, parse_endpoint, tls_context
from pyflannel.store.http1 import BadAnswer, Client, tcp
from pyflannel.store.lastknown import BadCache

LIMIT: Final = 3.0
"""Seconds for one API."""
MEMBERS: Final = 3
"""How many are asked for the time, one after the other."""
APIS: Final = {"etcd v2": "2", "etcd v3": "3", "local": "local"}


@dataclass(frozen=True, slots=True)
class Told:
    """What the store said."""

    records: Mapping[str, Record]
    """By API: ``2``, ``3`` or ``local``; those that did not answer are not there."""
    failures: tuple[str, ...] = ()


async def ask(settings: Settings) -> Told:
    """The network configuration in each API, whichever of them the agent is told to speak."""
    path = settings.store.removeprefix("local:")
    if path and not Path(path).exists():
        # Asking would make it.
        return Told({}, (f"the store: no file {path}",))
    stores = candidates(settings if settings.store else replace(settings, etcd_api=EtcdApi.AUTO))
    try:
        kinds = [(stores.kind(store), store) for store in stores]
        answers = await asyncio.gather(*(_config(store) for _, store in kinds))
    finally:
        await stores.close()
    records = {APIS[kind]: found for (kind, _), found in zip(kinds, answers, strict=True) if isinstance(found, Record)}
    failures = tuple(found for found in answers if isinstance(found, str))
    return Told(records, () if records else (f"the store, which does not answer: {'; '.join(failures)}",))


async def _config(store: Store) -> Record | str:
    try:
        async with asyncio.timeout(LIMIT):
            record = await store.network_config()
    except (Unavailable, TimeoutError) as exc:
        return str(exc) or f"{store.name} did not answer within {LIMIT:g} s"
    return Record(record.text, record.where)


async def store_time(settings: Settings) -> float | None:
    """The time as a member of etcd has it, to the second; None if none says it."""
    if settings.store:
        return None
    tls = Tls(settings.etcd_cafile or None, settings.etcd_certfile or None, settings.etcd_keyfile or None)
    for url in settings.etcd_endpoints[:MEMBERS]:
        with suppress(OSError, BadAnswer, ValueError, Unavailable, TypeError):
            endpoint = parse_endpoint(url)
            context = tls_context(tls) if endpoint.secure else None
            client = Client(tcp(endpoint.host, endpoint.port, context), endpoint.authority, connect_s=1.0, answer_s=2.0)
            try:
                answer = await client.request("GET", "/version")
            finally:
                await client.close()
            return parsedate_to_datetime(answer.header("date") or "").timestamp()
    return None


def network(configured: Configured) -> Network:
    """What a configuration makes of this host."""
    config, backend = configured.config, configured.backend
    ports: dict[int, int] = {}
    match backend:
        case Vxlan(port=port):
            ports = {family: port for family, net in ((4, config.ipv4), (6, config.ipv6)) if net is not None}
        case Udp(port=port):
            ports = {4: port}
        case Wireguard(tunnels=tunnels):
            ports = {family: tunnel.port for tunnel in tunnels for family in tunnel.families}
    return Network(
        None if config.ipv4 is None else config.ipv4.network,
        None if config.ipv6 is None else config.ipv6.network,
        config.backend_type,
        backend.devices,
        ports.get(4, ports.get(6)),
        direct.wanted(config),
        ports.get(6),
    )


def configured(settings: Settings, records: Mapping[str, Record]) -> Configured | None:
    """The configuration that the agent goes by or, while no store answers, last knew; None if there is none."""
    spoken = ("local",) if settings.store else {"2": ("2",), "3": ("3",)}.get(settings.etcd_api, ("3", "2"))
    texts = [(records[api].where, records[api].text or "") for api in spoken if api in records and records[api].text]
    file = cache.path(Path(settings.state_dir), settings.etcd_prefix)
    with suppress(BadCache):
        if (known := cache.load(file, settings.etcd_prefix)) is not None:
            texts.append((str(file), known.snapshot.config))
    for where, text in texts:
        with suppress(ConfigError):
            return understand(where, text)
    return None
