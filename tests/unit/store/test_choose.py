from __future__ import annotations

import pytest

from pyflannel.store.api import ConfigRecord, Store, Unavailable
from pyflannel.store.choose import Missing, find_config
from pyflannel.store.endpoints import NotOffered
from tests.support.loops import run
from tests.support.memory_store import MemoryData, MemoryStore, StoodClock


def store(config: str | None = None, fault: Exception | None = None) -> Store:
    data = MemoryData(StoodClock())
    data.config = config
    return MemoryStore(data, fault=lambda _operation: fault)


def test_first_store_that_holds_a_config_is_chosen() -> None:
    empty, full, other = store(), store("{}"), store("{}")
    found = run(find_config([empty, full, other]))
    assert not isinstance(found, Missing)
    assert found[0] is full
    assert found[1].text == "{}"


def test_missing_config_is_explained_store_by_store_on_one_line() -> None:
    missing = run(find_config([store(), store(fault=NotOffered("etcd v2 at x: switched off"))]))
    assert isinstance(missing, Missing)
    record: ConfigRecord = run(store().network_config())
    assert str(missing) == (f"{record.where}: no such key; etcd v2 at x: switched off")


def test_api_that_is_switched_off_does_not_keep_us_from_the_next() -> None:
    full = store("{}")
    found = run(find_config([store(fault=NotOffered("too old")), full]))
    assert not isinstance(found, Missing)
    assert found[0] is full


def test_store_behind_one_that_is_out_of_reach_is_not_chosen() -> None:
    with pytest.raises(Unavailable, match=r"connection refused; .*is there, but not used"):
        run(find_config([store(fault=Unavailable("connection refused")), store("{}")]))


@pytest.mark.parametrize("fault", [Unavailable("down"), NotOffered("too old")])
def test_without_any_answer_nothing_is_missing_but_everything_is_out_of_reach(fault: Unavailable) -> None:
    with pytest.raises(Unavailable, match=str(fault)):
        run(find_config([store(fault=fault), store(fault=fault)]))
