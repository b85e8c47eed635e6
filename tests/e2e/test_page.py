"""The page in a real browser, over the agent's own server: what is seen, what is live, and what cannot happen."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from pyflannel.lease.model import Subnet
from pyflannel.probes.rows import MAGIC, Cell, How, answer, read_question
from pyflannel.telemetry.document import (
    AgentPart,
    ConditionPart,
    DevicePart,
    Document,
    HostPart,
    KernelPart,
    NetworkPart,
    PeerPart,
    StorePart,
)
from tests.support.browser import Browser, Page, opened
from tests.support.page_stage import Stage, staged
from tests.support.screenshots import five_hosts, rows
from tests.support.status import PEER, document

pytestmark = pytest.mark.needs("chromium")

TROUBLE = ConditionPart(
    "store-unreachable", "error", "", "the store does not answer", "No member answers.", "Look after etcd.", time.time()
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged(five_hosts(time.time()), ask=rows) as stage:
        yield stage


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """Five hosts on a desk; nothing may be complained about, and nothing may be asked for elsewhere."""
    with opened(browser, stage.url) as page:
        yield page
        assert page.complaints() == []
        assert [url for url in page.asked() if not url.startswith(stage.url)] == []


def peers(count: int) -> list[PeerPart]:
    """Very many, a few of them not well."""
    states = dict(enumerate(("unreachable", "lossy", "lossy", "failed"), 100))
    return [
        replace(
            PEER,
            subnet=f"10.{number >> 8}.{number & 255}.0/24",
            public_ip=f"172.16.{number >> 8}.{number & 255}",
            state=states.get(number, "reachable"),
            rtt=0.0005 + number / 1e6,
        )
        for number in range(count)
    ]


def texts(page: Page, selector: str) -> list[str]:
    script = f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText)"
    return [" ".join(each.split()) for each in page.run(script)]


def count(page: Page, selector: str) -> int:
    return int(page.run(f"document.querySelectorAll({json.dumps(selector)}).length"))


def says(selector: str, text: str) -> str:
    """A script that finds out whether this is to be read there."""
    return f"document.querySelector({json.dumps(selector)})?.textContent.includes({json.dumps(text)})"


def test_this_host_its_peers_and_the_links_between_them_are_shown(page: Page) -> None:
    assert texts(page, "#hub") == ["host2 10.2.71.0/24 172.16.41.131"]
    assert texts(page, ".card") == [
        "10.2.41.0/24 0.41 ms 172.16.41.132 reachable",
        "10.2.65.0/24 18.3 ms 172.16.41.156 lossy, 23 %",
        "10.2.83.0/24 1.28 ms 172.16.41.174 reachable",
        "10.2.90.0/24 172.16.41.181 unreachable",
    ]
    links = page.run("[...document.querySelectorAll('#links > path')].map((each) => each.getAttribute('class'))")
    assert links == ["is-reachable", "is-lossy", "is-reachable", "is-unreachable"]
    dashes = {
        page.run(f"getComputedStyle(document.querySelector('#links > .{each}')).strokeDasharray") for each in links
    }
    assert len(dashes) == 3, "a link says how it is without its colour, too"
    first, second, *_ = texts(page, "#peers tbody tr")
    assert first.startswith("unreachable 10.2.90.0/24 172.16.41.181 100 % 2m")
    assert first.endswith("does not answer any more")
    assert "lossy 10.2.65.0/24 172.16.41.156 18.3 ms 23 % 1450" in second
    assert "fdb entry 4" in page.text("#facts")
    assert "interval 288" in page.text("#facts")


ALL_TOLD = """(() => {
  const rows = [...document.querySelectorAll("#matrix tbody tr")];
  return rows.length && rows.every((each) => !each.innerText.includes("not asked yet"));
})()"""


def test_who_reaches_whom_is_told_by_every_host_itself(page: Page) -> None:
    page.until(ALL_TOLD)
    assert page.text("#shown") == "5 hosts"
    names = ["10.2.41.0/24", "10.2.65.0/24", "10.2.71.0/24", "10.2.83.0/24", "10.2.90.0/24"]
    assert texts(page, "#matrix thead th") == names
    lines = texts(page, "#matrix tbody tr")
    assert [line.split()[0] for line in lines] == names
    assert lines[2] == "10.2.71.0/24 172.16.41.131 0.41 18 23 % 1.3 ✕ unreachable"
    assert lines[4] == "10.2.90.0/24 172.16.41.181 does not tell: no answer comes"
    # Packets pass from the first to the fourth, and not back.
    assert "→ arrives, but no answer comes back" in lines[0]
    assert lines[3].startswith("10.2.83.0/24 172.16.41.174 ✕ unreachable")
    assert texts(page, "#matrix .self") == [""] * 4
    assert page.run("[...document.querySelectorAll('#matrix thead th, #matrix tbody th')].every((each) => each.scope)")


def test_a_cell_that_one_points_at_is_put_in_words_and_its_row_and_column_stand_out(page: Page) -> None:
    page.until(ALL_TOLD)
    assert page.text("#way") == "Point at a cell, or walk there with the arrow keys."
    place = "document.querySelector('#matrix tbody tr:nth-child(3) td:nth-child(3)').getBoundingClientRect()"
    page.run("document.querySelector('#matrix').scrollIntoView()")
    x, y = page.run(f"[{place}.x + 5, {place}.y + 5]")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    page.until(says("#way", "→"))
    assert page.text("#way") == "10.2.71.0/24 (172.16.41.131) → 10.2.65.0/24 (172.16.41.156): 18.3 ms, 23 % lost"
    assert texts(page, "#matrix th.lit") == ["10.2.65.0/24", "10.2.71.0/24 172.16.41.131"]
    assert count(page, "#matrix td.lit:not(.self)") == 6
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y - 80)
    page.until(says("#way", "10.2.41.0/24 (172.16.41.132)"))
    assert page.run("/, \\d+ % lost, \\d+s ago$/.test(document.querySelector('#way').textContent)")


def test_a_row_that_is_old_is_faded(page: Page) -> None:
    page.until(ALL_TOLD)
    assert count(page, "#matrix .old") == 0
    page.run("{ const was = Date.now; Date.now = () => was() + 65_000; }")
    page.until("document.querySelectorAll('#matrix .old').length === 3")


def test_a_peer_that_tells_nonsense_alters_nothing_but_its_own_row(browser: Browser) -> None:
    async def ask(subnet: Subnet, question: bytes) -> bytes:
        asked = read_question(question)
        match str(subnet):
            case "10.2.0.0/24":
                return b"<img src=x onerror=harmed=1>" * 40
            case "10.2.1.0/24":
                return bytes((MAGIC, 1, 2, 200)) + b"\xff" * 1000
            case "10.2.2.0/24":
                return answer([Cell(How.ITSELF)] * len(asked))
            case "10.2.3.0/24":
                return answer([Cell(How.REACHED, 4000.0, 1.0)] * len(asked))
        return answer([Cell(How.ITSELF if each == subnet else How.REACHED, 0.001, 0.0) for each in asked])

    crowd = [replace(PEER, subnet=f"10.2.{number}.0/24") for number in range(5)]
    with staged(document(peers=crowd), ask=ask) as stage, opened(browser, stage.url) as page:
        page.until(ALL_TOLD)
        told = [line.split("172.16.41.13")[1][2:] for line in texts(page, "#matrix tbody tr")]
        assert told == [
            *["does not tell: its answer is not understood"] * 2,
            "? not known " * 4 + "? not known",
            "> 99 s 100 % " * 4 + "> 99 s 100 %",
            "1.0 " * 4 + "1.0",
            "1.2 " * 4 + "1.2",
        ]
        assert page.run("innerWidth === document.documentElement.scrollWidth")
        assert page.complaints() == []


def test_where_there_are_no_peers_there_is_no_matrix(browser: Browser) -> None:
    with staged(document(peers=())) as stage, opened(browser, stage.url) as page:
        page.until("document.querySelector('#live').innerText === 'live'")
        assert page.run("document.querySelector('#whom').hidden")


def test_a_condition_comes_and_goes_while_one_looks(page: Page, stage: Stage) -> None:
    said = stage.document
    assert page.text("#verdict") == "It works, with 2 troubles to see to"
    stage.document = replace(said, conditions=(TROUBLE, *said.conditions))
    page.until(says("#conditions", "store-unreachable"))
    assert texts(page, ".condition:first-child dl") == [
        "What it means No member answers. What to do Look after etcd.",
    ]
    assert page.text("#verdict") == "3 troubles to see to"
    assert page.run("document.title") == "✕ host2: 3 troubles to see to"
    assert page.run(says("#announced", "New error: the store does not answer"))
    stage.document = replace(said, conditions=())
    page.until("document.querySelector('#conditions').hidden")
    assert page.text("#verdict") == "All is well"
    assert page.run(says("#announced", "Over: store-unreachable"))


def test_peers_change_come_and_leave_while_one_looks(page: Page, stage: Stage) -> None:
    said = stage.document
    first, *others = said.peers
    stage.document = replace(said, peers=(replace(first, state="failed", reason="no buffer space"), *others))
    page.until("document.querySelector('.card').classList.contains('is-failed')")
    assert "no buffer space" in page.text("#peers")
    new = PeerPart("10.2.7.0/24", None, "172.16.41.7", None, "vxlan", "unknown")
    stage.document = replace(said, peers=(*others, new))
    page.until("document.querySelector('.card').innerText.includes('10.2.7.0/24')")
    assert count(page, ".card") == count(page, "#peers tbody tr") == count(page, "#links > path") == 4
    page.until("!document.querySelector('main').innerText.includes('10.2.41.0/24')")


def test_traffic_is_shown_as_it_passes(page: Page, stage: Stage) -> None:
    for seconds in range(1, 100):
        stage.document = five_hosts(time.time(), seconds * 10_000_000)
        page.wait(0.5)
        if "Mbit/s" in page.text("#traffic dl"):
            break
    assert page.run("document.querySelector('.chart .sent').getAttribute('d')").startswith("M")


HOSTILE = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>&lt;\'"`${window.harmed=1}\u202e\u0000'


def hostile() -> Document:
    """A document with markup wherever there is text."""
    bad = HOSTILE
    return replace(
        document(
            ConditionPart(bad, bad, bad, bad, bad, bad, time.time()),
            ConditionPart("record-ignored", "warning", bad, f"{bad} wrote this", "m", "r", time.time()),
            peers=(
                PeerPart(bad, bad, bad, bad, bad, bad, bad, 0.001, 0.0, 1450, time.time(), time.time(), 1, 1),
                PeerPart("javascript:harmed=1//", None, "1.2.3.4/;javascript:1", state="__proto__", reason=bad),
            ),
        ),
        agent=AgentPart(bad, 1, time.time(), "running"),
        host=HostPart(bad, bad, bad, bad, 1500),
        network=NetworkPart(bad, bad, bad, bad, bad, 1450, 8472, 1),
        store=StorePart(bad, (bad, "javascript:1"), True, time.time(), 0, None),
        kernel=KernelPart({bad: 1, "__proto__": 2}, {bad: 1}, {"constructor": 1}, {bad: 1}, True),
        devices=(DevicePart(bad, 1, 1, 1, 1),),
    )


def test_whatever_others_write_is_shown_as_text_and_does_nothing(browser: Browser) -> None:
    with staged(document()) as plain, opened(browser, plain.url) as page:
        scripts = count(page, "script, img, iframe, object, base, form")
    with staged(hostile()) as stage, opened(browser, stage.url) as page:
        page.until(says("#peers", "onerror"))
        assert page.run("window.harmed") is None
        assert count(page, "script, img, iframe, object, base, form") == scripts
        assert not page.run("[...document.querySelectorAll('main a')].filter((each) => !each.href.startsWith('http'))")
        for selector in ("h1", "#conditions h3", "#conditions li", "#peers td[data-of=reason]", "#facts", ".card"):
            assert page.run(says(selector, '<img src=x onerror="window.harmed=1"><script>')), selector
        assert page.complaints() == []
        assert [url for url in page.asked() if not url.startswith(stage.url)] == []


def test_the_browser_would_not_let_it_make_markup_of_text_or_ask_elsewhere(browser: Browser, stage: Stage) -> None:
    with opened(browser, stage.url) as page:
        for script, name in (
            ("document.body.innerHTML = '<p>'", "TrustedHTML"),
            ("await fetch('http://192.0.2.1/')", "connect-src"),
            ("const image = new Image(); image.src = 'http://192.0.2.1/'; await image.decode()", "img-src"),
        ):
            assert page.run(f"(async () => {{ try {{ {script} }} catch {{ return 'refused' }} }})()") == "refused"
            assert name in "".join(page.complaints())


def test_on_any_screen_everything_fits_and_can_be_read(browser: Browser, stage: Stage) -> None:
    long = "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"
    wide = PeerPart("10.255.255.0/24", f"{long}/64", "172.16.255.255", long, "vxlan", "ignored", "x" * 300, 0.2, 0.005)
    wide = replace(wide, heard=1.0, changed=1.0, tx_bytes=10**12, rx_bytes=10**12)
    said, trouble = stage.document, replace(TROUBLE, text="y" * 400)
    stage.document = replace(said, peers=(*said.peers, wide), conditions=(*said.conditions, trouble))
    with opened(browser, stage.url) as page:
        page.until(ALL_TOLD)
        for width, dark in product((320, 390, 768, 1070, 1400), (False, True)):
            page.look(width=width, dark=dark, phone=width < 600)
            page.run("new Promise(requestAnimationFrame)")
            assert page.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
            assert page.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
            assert page.run(CONTRAST) == []
        page.run("document.querySelector('h1').style.color = 'var(--line)'")
        assert len(page.run(CONTRAST)) == 1, "what is poor is found to be"


CONTRAST = """(() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const found = numbers(getComputedStyle(node).backgroundColor);
      if (found[3] !== 0) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !node.getClientRects().length || node.closest(".unseen, svg")) continue;
    const [one, other] = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${node.outerHTML.slice(0, 80)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""
"""What cannot be read well by everybody: text with a contrast below that of WCAG 2.2, 1.4.3 (AA)."""


WATCH_CELLS = """(() => {
  window.touched = new Set();
  const watch = new MutationObserver((all) => all.forEach(({ target }) => touched.add(target)));
  watch.observe(document.querySelector("#cells"), { subtree: true, childList: true, attributes: true });
})()"""


def test_a_thousand_peers_are_summed_up_found_and_redrawn_one_by_one(browser: Browser) -> None:
    crowd = peers(1000)
    with staged(document(peers=crowd)) as stage, opened(browser, stage.url) as page:
        assert texts(page, "#count") == ["1,000 peers"]
        assert texts(page, ".card")[-1] == "996 peers median 1.00 ms 0.50 ms to 1.50 ms reachable"
        assert len(texts(page, ".card")) == 5
        assert count(page, ".cell:not(i)") == 1000
        assert count(page, "#peers tbody tr") == 60
        assert texts(page, "#shown") == ["32 of 1,001 hosts: those in trouble first"]
        assert {"10.0.100.0/24", "10.0.103.0/24", "10.2.71.0/24"} < set(texts(page, "#matrix thead th"))
        assert count(page, "*") < 3200

        page.run("document.querySelector('#search').focus()")
        page.call("Input.insertText", text="172.16.3.201")
        page.until("document.querySelectorAll('#peers tbody tr').length === 1")
        assert texts(page, "#count") == ["1 of 1,000 peers"]
        page.run("document.querySelector('#search').select()")
        page.call("Input.insertText", text=" ")
        page.until("document.querySelectorAll('#peers tbody tr').length === 60")

        page.run(WATCH_CELLS)
        stage.document = document(peers=[replace(crowd[0], state="unreachable"), *crowd[1:]])
        page.until("document.querySelector('.cell').innerText === '×'")
        assert page.run("touched.size") == 1
        page.run("document.querySelector('#more').click()")
        page.until("document.querySelectorAll('#peers tbody tr').length === 360")
        assert page.complaints() == []


def test_where_it_is_there_for_others_it_leads_to_the_pages_of_other_hosts(browser: Browser, stage: Stage) -> None:
    links = "[...document.querySelectorAll('#peers td a')].map((each) => each.href)"
    with opened(browser, stage.url) as page:
        assert page.run(links) == []
    with opened(browser, f"http://host2.example:{stage.port}/") as page:
        assert f"http://172.16.41.132:{stage.port}/" in page.run(links)
        assert len(page.run(links)) == 4


def test_it_is_used_with_the_keyboard_alone(page: Page, stage: Stage) -> None:
    focus = "document.activeElement.textContent || document.activeElement.id"
    seen = []
    while (now := page.run(focus)) != "Loss":
        page.press("Tab", 9)
        seen.append(now)
        assert len(seen) < 40, seen
    assert "search" in seen
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter", 13)
    page.until("document.querySelector('th[data-of=loss]').getAttribute('aria-sort') === 'descending'")
    assert [row.split()[1] for row in texts(page, "#peers tbody tr")][:2] == ["10.2.90.0/24", "10.2.65.0/24"]
    stage.document = replace(stage.document, conditions=(TROUBLE,))
    page.until(says("#conditions", "store-unreachable"))
    assert page.run(focus) == "Loss", "news do not take the focus away"
    page.run("document.querySelector('#states .is-lossy').focus()")
    page.press("Enter", 13)
    page.until("document.querySelectorAll('#peers tbody tr').length === 1")
    assert page.run("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_one_walks_through_the_matrix_with_the_arrow_keys(page: Page) -> None:
    page.until(ALL_TOLD)
    page.run("document.querySelector('#matrix [tabindex]').focus()")
    for key, code, names in (
        ("ArrowDown", 40, "10.2.71.0/24 10.2.65.0/24"),  # past the diagonal
        ("ArrowRight", 39, "10.2.71.0/24 10.2.83.0/24"),
        ("ArrowUp", 38, "10.2.65.0/24 10.2.83.0/24"),
        ("ArrowLeft", 37, "10.2.65.0/24 10.2.71.0/24"),
        ("ArrowLeft", 37, "10.2.65.0/24 10.2.41.0/24"),
        ("ArrowLeft", 37, "10.2.65.0/24 10.2.41.0/24"),
    ):
        page.press(key, code)
        one, other = names.split()
        page.until(says("#way", f"{one} ("))
        assert f"→ {other} (" in page.text("#way")
        assert count(page, "#matrix [tabindex]") == 1
    for _ in range(3):
        page.press("ArrowDown", 40)
    page.until(says("#way", "does not tell: no answer comes"))


@pytest.mark.parametrize("width", [390, 1200])
def test_a_screen_reader_finds_headings_a_table_and_names(browser: Browser, stage: Stage, width: int) -> None:
    with opened(browser, stage.url, width=width, phone=width < 600) as page:
        page.until(ALL_TOLD)
        nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            found.setdefault(node["role"]["value"], []).append(str(node.get("name", {}).get("value", "")))
    assert {"host2", "Topology", "Who reaches whom", "Latency and loss", "This host", "Kernel"} <= set(found["heading"])
    assert sorted(found["table"]) == [
        "Round trips in milliseconds, from the host of a row to that of a column",
        "What this host sees of its peers, one row each",
    ]
    assert len(found["row"]) == 6 + 5
    assert len(found["columnheader"]) == 5 + 9
    assert len(found["rowheader"]) == 5
    assert found["searchbox"] == ["Search peers"]
    assert {"banner", "main", "contentinfo", "status"} <= set(found)
    assert all(found["button"])


def test_a_lost_agent_is_said_to_be_and_found_again(browser: Browser) -> None:
    with staged(document()) as stage:
        page = browser.page()
        page.open(stage.url)
        page.until("document.querySelector('#live')?.innerText === 'live'")
    page.until("document.querySelector('#live').dataset.is === 'lost'")
    assert page.text("#live").startswith("lost, as of ")
    with staged(document(TROUBLE), stage.port):
        page.until("document.querySelector('#live').innerText === 'live'")
        page.until(says("#conditions", TROUBLE.code))
        page.close()


def test_nothing_is_called_well_that_nobody_has_looked_at(browser: Browser) -> None:
    with staged(document(peers=[replace(PEER, state="unknown")])) as stage, opened(browser, stage.url) as page:
        assert page.text("#verdict") == "Nothing is wrong that is known of"
        assert ", up " in page.text("footer")


def test_an_agent_that_only_begins_has_a_page_as_well(browser: Browser) -> None:
    young = Document(agent=AgentPart("0.1.0", 1, time.time(), "waiting"), network=NetworkPart("/coreos.com/network"))
    with staged(young) as stage, opened(browser, stage.url) as page:
        assert page.text("#verdict") == "Waiting for a network configuration or a lease"
        assert page.text("#network") == "no network yet, looking at /coreos.com/network/config"
        assert page.complaints() == []
