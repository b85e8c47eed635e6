"""From what was given to settings, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyflannel.settings.options import OPTIONS, RETIRED, Settings, Source, Value


def environment_name(flag: str) -> str:
    """The variable that is asked for a flag which was not given (compat §1.2)."""
    return "FLANNELD_" + flag.replace("-", "_").upper()


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings, and what there is to say about them."""

    settings: Settings
    """An option with a problem has its default, so that the options about logging can be relied on to say so."""
    problems: tuple[str, ...]
    """What must be put right first; each names flag, value and expectation."""
    warnings: tuple[str, ...]


def resolve(flags: Mapping[str, Sequence[Value]], environment: Mapping[str, Value]) -> Resolved:
    """Make settings of what was given, by flag; the command line beats the environment.

    Flags must be in ``OPTIONS`` or ``RETIRED`` and values of their kind.
    """
    values: dict[str, object] = {}
    sources: dict[str, Source] = {}
    problems: list[str] = []
    for flag, option_ in OPTIONS.items():
        given: Sequence[Value]
        if flag in flags:
            given, source, spelling = flags[flag], Source.FLAG, f"-{flag}"
        elif flag in environment:
            given, source, spelling = (environment[flag],), Source.ENVIRONMENT, environment_name(flag)
        else:
            continue
        try:
            values[option_.attribute] = option_.read(given)
            sources[flag] = source
        except ValueError as error:
            problems.append(f"{spelling}={option_.show(given[-1])}: {error}")
    settings = _with(values, sources)
    retired = (*_retired(flags, "-{}".format), *_retired(environment, environment_name))
    return Resolved(settings, (*problems, *_conflicts(settings)), (*retired, *_doubts(settings)))


def _retired(given: Iterable[str], spell: Callable[[str], str]) -> Iterator[str]:
    return (f"{spell(flag)} is ignored: {RETIRED[flag].advice}" for flag in given if flag in RETIRED)


def _with(values: Mapping[str, object], sources: Mapping[str, Source]) -> Settings:
    # Each value was made by the parser that its own field declares, which is more than a type checker can follow.
    changed: Settings = replace(Settings(), sources=sources, **values)  # type: ignore[arg-type]
    return changed


def _conflicts(settings: Settings) -> Iterator[str]:
    given = settings.sources
    if bool(settings.etcd_keyfile) != bool(settings.etcd_certfile):
        yield "-etcd-keyfile and -etcd-certfile need each other: expected both or neither"
    if settings.store:
        for flag in ("etcd-endpoints", "etcd-api", "etcd-username", "etcd-certfile", "etcd-cafile"):
            if flag in given:
                yield f"-{flag} and -store={settings.store} exclude each other: expected one store"
        if settings.kube_subnet_mgr:
            yield f"-kube-subnet-mgr and -store={settings.store} exclude each other: expected one store"


def _doubts(settings: Settings) -> Iterator[str]:
    if settings.etcd_password and not settings.etcd_username:
        yield "-etcd-password has no effect without -etcd-username"
    if settings.kube_subnet_mgr and "etcd-endpoints" in settings.sources:
        yield "-etcd-endpoints has no effect with -kube-subnet-mgr"


def secrets(settings: Settings) -> frozenset[str]:
    """What must appear in no output: for the filter of the log, and for nothing else."""
    found = {settings.etcd_password}
    for url in (*settings.etcd_endpoints, settings.kube_api_url):
        userinfo = url.partition("://")[2].rpartition("@")[0]
        found |= {userinfo, userinfo.partition(":")[2]}
    return frozenset(found - {""})
