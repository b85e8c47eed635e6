"""The dashboard, the alert rules and docs/metrics.md name metrics that exist, and the document names all of them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyflannel.telemetry.metrics import FAMILIES, expose
from tests.support.metrics_page import FILE, render
from tests.support.status import document, watched

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "contrib/grafana/pyflannel.json"
ALERTS = ROOT / "contrib/prometheus/alerts.yml"
NAME = re.compile(r"\b(?:flannel|process)_[a-z0-9_]+")
SELECTOR = re.compile(r"\b((?:flannel|process)_[a-z0-9_]+)\{([^}]*)\}")
EVERYWHERE = {"instance", "job"}
"""Labels that Prometheus adds."""


def exported() -> dict[str, set[str]]:
    """Every name that a query may have, with its labels."""
    found = {}
    for family in FAMILIES:
        names = [f"{family.name}_{part}" for part in ("bucket", "sum", "count")]
        for name in names if family.type == "histogram" else [family.name]:
            found[name] = {*family.labels, *EVERYWHERE, *(["le"] if name.endswith("_bucket") else [])}
    return found


def queries(node: object) -> Iterator[str]:
    """Every query in a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query", "definition") and isinstance(value, str):
                yield value
            else:
                yield from queries(value)
    elif isinstance(node, list):
        for each in node:
            yield from queries(each)


def looked_at(path: Path) -> str:
    """All queries of a file, one on a line."""
    if path == DASHBOARD:
        return "\n".join(queries(json.loads(path.read_text())))
    return "\n".join(re.findall(r"^ +expr: (.*)$", path.read_text(), re.M))


@pytest.mark.parametrize("path", [DASHBOARD, ALERTS], ids=lambda path: path.name)
def test_every_metric_and_label_that_is_looked_at_is_exported(path: Path) -> None:
    text, known = looked_at(path), exported()
    assert NAME.findall(text)
    assert set(NAME.findall(path.read_text())) <= known.keys()
    for name, selector in SELECTOR.findall(text):
        assert set(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector)) <= known[name], f"{name}{{{selector}}}"


def test_every_metric_is_looked_at_or_is_a_detail() -> None:
    looked = set(NAME.findall(looked_at(DASHBOARD) + looked_at(ALERTS)))
    unseen = {family.name for family in FAMILIES if not any(name.startswith(family.name) for name in looked)}
    assert unseen == {
        # The sum of two others; of one peer; of the agent itself.
        *("flannel_kernel_items_wanted", "flannel_peer_heard_timestamp_seconds", "process_open_fds"),
        *("flannel_peer_transmit_packets_total", "flannel_peer_receive_packets_total"),
        "flannel_peer_dropped_packets_total",
    }


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


def test_the_document_is_made_of_the_metrics_own_texts() -> None:
    assert FILE.read_text() == render(), "run: python -m tests.support.metrics_page"


def promtool(*words: str, text: str | None = None) -> None:
    done = subprocess.run(["promtool", *words], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs("promtool")
def test_prometheus_objects_to_no_metric() -> None:
    promtool("check", "metrics", text="".join(expose(watched(document()))))


@pytest.mark.needs("promtool")
def test_prometheus_objects_to_no_rule(tmp_path: Path) -> None:
    promtool("check", "rules", str(ALERTS))
    rules = [
        f"  - record: query:{number}\n    expr: {json.dumps(query.replace('$instance', '.*'))}"
        for number, query in enumerate(
            each for each in looked_at(DASHBOARD).splitlines() if "label_values" not in each and "_" in each
        )
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text("groups:\n- name: dashboard\n  rules:\n" + "\n".join(rules) + "\n")
    promtool("check", "rules", str(file))
