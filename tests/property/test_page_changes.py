"""A page that is told only what changes knows what there is."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.probes.rows import Cell, How
from pyflannel.telemetry.document import ConditionPart, Document, HostPart, PeerPart, State, write
from pyflannel.telemetry.matrix import Matrix, Name, Row
from pyflannel.telemetry.page.changes import all_of, changed, redrawn
from tests.support.sse import events, follow

texts = st.text(max_size=8)
peers = st.builds(
    PeerPart,
    subnet=st.sampled_from([f"10.2.{number}.0/24" for number in range(6)]) | st.none(),
    ipv6_subnet=st.sampled_from(["fc00::/64", None]),
    state=st.sampled_from(State),
    reason=texts,
    rtt=st.none() | st.floats(0, 1),
)
documents = st.builds(
    Document,
    host=st.builds(HostPart, name=texts),
    peers=st.lists(peers, unique_by=lambda peer: (peer.subnet, peer.ipv6_subnet), max_size=6).map(tuple),
    conditions=st.lists(st.builds(ConditionPart, code=texts, text=texts), max_size=2).map(tuple),
)


@given(st.lists(documents, min_size=1, max_size=5))
def test_following_the_changes_leads_to_what_there_is(history: list[Document]) -> None:
    stream = b"".join(all_of(history[0]))
    for before, after in pairwise(history):
        stream += b"".join(changed(before, after))
    last = b"".join(write(history[-1]))
    assert follow(events(stream)) == follow([("all", json.loads(last))])


names: st.SearchStrategy[Name] = st.sampled_from([(f"10.2.{number}.0/24", None) for number in range(5)])
cells = st.builds(Cell, st.sampled_from(How), st.none() | st.floats(0, 1), st.none() | st.floats(0, 1))
rows = st.builds(Row, st.dictionaries(names, cells), st.none() | st.floats(0, 2e9), st.sampled_from(["", "no answer"]))
matrices = st.builds(
    Matrix, st.lists(names, unique=True).map(tuple), st.integers(0, 9), st.dictionaries(names, rows, max_size=5)
)


@given(st.lists(matrices, min_size=1, max_size=5))
def test_following_what_is_redrawn_leads_to_the_matrix_there_is(history: list[Matrix]) -> None:
    stream = b"".join(piece for pair in pairwise([Matrix(), *history]) for piece in redrawn(*pair))
    begun = [("all", {"peers": []}), ("hosts", {"hosts": [], "of": 0})]
    last = b"".join(redrawn(Matrix(), history[-1]))
    assert follow([*begun, *events(stream)]) == follow([*begun, *events(last)])
