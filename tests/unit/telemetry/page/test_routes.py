"""The files of the page: all are there, and none asks for anything else or makes markup of what it is told."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyflannel.health import Health
from pyflannel.settings import Settings
from pyflannel.telemetry.desk import Desk
from pyflannel.telemetry.document import Document
from pyflannel.telemetry.http import Request, Response
from pyflannel.telemetry.page import routes as module
from pyflannel.telemetry.page.routes import FILES, POLICY, SCRIPTS, routes
from tests.support.loops import run
from tests.support.status import document

STATIC = Path(module.__file__).with_name("static")


async def look() -> Document:
    return document()


def get(path: str) -> Response:
    async def scenario() -> Response:
        return await routes(look)[path].view(Desk(Settings(), Health()), Request("GET", path))

    return run(scenario())


def read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


class Markup(HTMLParser):
    """Tags with their attributes, and what is written inside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style"):
            self.inline += data.strip()


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_as_what_it_is_under_the_policy(path: str) -> None:
    name, kind = FILES[path]
    answer = get(path)
    assert (answer.status, answer.type, answer.body) == (200, kind, (STATIC / name).read_bytes())
    assert ("Content-Security-Policy", POLICY) in answer.headers


def test_whatever_is_in_the_folder_is_served() -> None:
    assert sorted(name for name, _ in FILES.values()) == sorted(path.name for path in STATIC.iterdir())


def test_the_whole_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.iterdir()) < 60_000


def test_events_are_a_stream() -> None:
    answer = get("/events")
    assert (answer.status, answer.type) == (200, "text/event-stream; charset=utf-8")
    assert not isinstance(answer.body, bytes)


def test_the_policy_allows_our_own_files_and_nothing_else() -> None:
    allowed = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert allowed["default-src"] == "'none'"
    assert {allowed[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert "unsafe" not in POLICY
    assert "*" not in POLICY
    assert allowed["require-trusted-types-for"] == "'script'"
    assert allowed["trusted-types"] == "'none'"


def test_nothing_is_written_into_the_page_that_the_policy_forbids() -> None:
    markup = Markup(read("index.html"))
    assert not markup.inline
    names = {name for _, attributes in markup.tags for name in attributes}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


def test_the_page_leads_to_nothing_but_what_is_served_beside_it() -> None:
    markup = Markup(read("index.html"))
    leads = [attributes.get(name) for _, attributes in markup.tags for name in ("src", "href") if name in attributes]
    served = {path.removeprefix("/") for path in FILES} | {"status", "metrics"}
    assert {each for each in leads if each and not each.startswith("#")} <= served
    assert "url(" not in read("page.css")
    assert "@import" not in read("page.css")


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_makes_text_and_never_markup(name: str) -> None:
    text = read(f"{name}.js")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc|setHTML"
    assert not re.findall(forbidden, text)
    # The name of a namespace, and the pages of other hosts, which somebody has to follow.
    assert set(re.findall(r"https?://[^`\"]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://${peer.public_ip}${location.port ? ",
    }
    imported = set(re.findall(r'from "(.*)";', text))
    assert imported <= {f"./{other}.js" for other in SCRIPTS}
