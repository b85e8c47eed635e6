"""A page that is told only what changes knows what there is."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pyflannel.telemetry.document import ConditionPart, Document, HostPart, PeerPart, State, write
from pyflannel.telemetry.page.changes import all_of, changed
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
