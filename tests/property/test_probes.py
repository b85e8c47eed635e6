"""Laws of the probes: whatever comes in is read or refused, and whatever happens, the book keeps its bounds."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hypothesis import given, settings
from hypothesis import strategies as st

from pyflannel.lease.model import Subnet
from pyflannel.probes import echo, rows
from pyflannel.probes.errands import Errands
from pyflannel.probes.pathmtu import Search
from pyflannel.probes.schedule import MOST, PERIOD
from pyflannel.probes.sight import Reach
from pyflannel.probes.tally import Tally
from pyflannel.probes.track import Means, Path
from pyflannel.probes.wire import LARGEST_ERRAND, LONGEST_BODY, Arrivals, BadPacket, Kind, Packet, decode, encode
from tests.support.probe_world import World, end, host, lease, question, subnet

U32 = st.integers(0, 2**32 - 1)
arrivals = st.builds(Arrivals, U32, U32)
packets = st.builds(
    Packet,
    *(st.sampled_from(Kind), st.integers(0, 2**64 - 1), U32, U32, arrivals, arrivals),
    body=st.binary(max_size=LONGEST_BODY),
)


@given(packets, st.integers(0, 2000))
def test_what_is_written_reads_the_same(packet: Packet, size: int) -> None:
    assert decode(encode(packet, size)) == packet


@given(st.one_of(st.binary(max_size=100), packets.map(encode)), st.data())
def test_any_octets_are_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    where = draw.draw(st.integers(0, len(data)))
    data = data[:where] + draw.draw(st.binary(max_size=4)) + data[where:]
    with contextlib.suppress(BadPacket):
        packet = decode(data)
        assert len(encode(packet)) <= len(data)
    for version in (4, 6):
        nonce = echo.reply(version, data)
        assert nonce is None or nonce.to_bytes(8) in data


ipv4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda of: IPv4Network(of, strict=False))
ipv6 = st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda of: IPv6Network(of, strict=False))
subnets = st.builds(Subnet, ipv4, st.none() | ipv6) | st.builds(Subnet, st.none(), ipv6)
# As they are told: in microseconds and in percent.
cells = st.builds(
    rows.Cell,
    st.sampled_from(rows.How),
    st.none() | st.integers(0, 2**32 - 2).map(lambda rtt: rtt / 1e6),
    st.none() | st.integers(0, 100).map(lambda loss: loss / 100),
)
asked_rows = st.lists(subnets, max_size=rows.MOST)
told_rows = st.lists(cells, max_size=rows.MOST)


@given(asked_rows, told_rows)
def test_rows_read_as_they_were_written_and_fit_an_errand(asked: list[Subnet], told: list[rows.Cell]) -> None:
    question, answer = rows.question(asked), rows.answer(told)
    assert max(len(question), len(answer)) <= LONGEST_BODY
    assert rows.read_question(question) == tuple(asked)
    assert rows.read_answer(answer) == tuple(told)


@given(st.one_of(st.binary(max_size=60), asked_rows.map(rows.question), told_rows.map(rows.answer)), st.data())
def test_any_octets_are_a_row_or_refused_and_what_is_read_is_written_the_same(data: bytes, draw: st.DataObject) -> None:
    where = draw.draw(st.integers(0, len(data)))
    data = data[:where] + draw.draw(st.binary(max_size=4)) + data[where + draw.draw(st.integers(0, 4)) :]
    with contextlib.suppress(rows.BadRow):
        assert rows.question(rows.read_question(data)) == data
    with contextlib.suppress(rows.BadRow):
        assert rows.answer(rows.read_answer(data)) == data


@given(packets, st.integers(0, 2 * LARGEST_ERRAND))
def test_no_answer_is_larger_than_its_question(packet: Packet, size: int) -> None:
    async def answer(words: bytes) -> bytes:
        return words

    data = encode(packet, size)
    if Errands(answer).welcome(packet, len(data)):
        assert len(data) >= len(encode(Packet(Kind.RESULT, 0, 0, 0, body=bytes(LONGEST_BODY))))
    assert len(data) >= len(encode(Packet(Kind.ANSWER, 0, 0, 0)))


@given(st.lists(st.one_of(st.integers(0, 100), U32), max_size=60))
def test_the_report_is_right_about_all_that_it_covers(numbers: list[int]) -> None:
    tally = Tally()
    for number in numbers:
        tally.note(7, number)
    told = tally.of(7)
    assert told.newest == max(numbers, default=0)
    assert told.seen < 2**32
    covered = range(max(told.newest - 31, 1), told.newest + 1)
    # What comes more than 31 behind is forgotten, and so nothing is claimed that did not come in.
    assert {number for number in covered if told.has(number)} <= set(numbers)
    recent = [number for place, number in enumerate(numbers) if number > max(numbers[:place], default=0) - 32]
    assert {number for number in covered if number in recent} <= {number for number in covered if told.has(number)}


@given(st.integers(100, 9000), st.integers(72, 9000))
def test_the_search_for_the_path_mtu_ends_at_the_limit(device: int, most: int) -> None:
    search, now = Search(device, 72), 0.0
    for _ in range(60):
        if (size := search.wants(now)) is None:
            break
        assert search.least < size <= device
        if size <= most:
            search.passed(size, now, 60.0)
        else:
            search.lost(size, now)
    else:
        raise AssertionError("the search does not end")
    assert search.best == min(device, most)
    assert search.small == (most < device)


deeds = st.lists(
    st.tuples(
        st.sampled_from(["die", "return", "block", "agent off", "hail", "loss", "narrow", "leave", "join", "quiet"]),
        st.integers(1, 12),
    ),
    max_size=12,
)


def carry_out(world: World, deed: str, number: int, present: set[int]) -> None:
    match deed:
        case "die":
            world.dead |= {host(number), end(number)}
        case "return":
            world.dead -= {host(number), end(number)}
        case "block":
            world.dead.add(end(number))
        case "agent off":
            world.without_agent |= {host(number), end(number)}
        case "hail":
            world.book.hail(host(number), Path.UNDERLAY, question(5, number), world.now)
        case "loss":
            world.loss = number / 20
        case "narrow":
            world.most = 100 * number
        case "leave":
            present.discard(number)
        case "join":
            present.add(number)
        case _:
            world.run(number)
    world.look(*map(lease, sorted(present)))
    world.run(1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), deeds)
def test_whatever_happens_the_bound_holds_and_all_is_well_in_the_end(seed: int, done: list[tuple[str, int]]) -> None:
    world, present = World(8, seed=seed), set(range(1, 9))
    for deed, number in done:
        carry_out(world, deed, number, present)
    world.dead.clear()
    world.without_agent.clear()
    world.loss, world.most = 0.0, 9000
    world.run(130)
    assert world.troubles() == {}
    sights = world.book.sights(world.now, world.now)
    assert {str(subnet(number)) for number in present} == {str(each) for each in sights}
    assert all(sight.reach is Reach.REACHED and not sight.reason for sight in sights.values())
    times = [time for time, _ in world.sent]
    assert all(sum(start <= time < start + PERIOD for time in times) <= MOST for start in times)


@given(st.integers(0, 2**64 - 1), st.sampled_from(Means), st.integers(0, 2**32 - 1))
def test_no_guess_is_taken_for_an_answer(nonce: int, means: Means, source: int) -> None:
    world = World(3)
    world.tick()
    asked = {question.nonce: question for _, question in world.sent}
    taken = world.book.answered(nonce, means, IPv4Address(source), world.now)
    assert not taken or (asked[nonce].target == IPv4Address(source) and asked[nonce].ask.means is means)
