"""docs/metrics.md, as the metrics themselves have it.

    python -m tests.support.metrics_page

writes it.
"""

from __future__ import annotations

from pathlib import Path

from pyflannel.telemetry.metrics import FAMILIES

FILE = Path(__file__).parents[2] / "docs" / "metrics.md"
HEAD = """\
# Metrics

The agent tells Prometheus about itself and its network at `/metrics`, if it is asked to:

```console
$ flanneld -status-port=9100 -status-ip=192.0.2.7 …
$ curl http://192.0.2.7:9100/metrics
```

Without `-status-ip` that is at 127.0.0.1, for a Prometheus or a proxy on the same host. Root can always look without
any port: `curl --unix-socket /run/flannel/flanneld.sock http://flanneld/metrics`.

```yaml
scrape_configs:
  - job_name: flannel
    static_configs:
      - targets: ["192.0.2.7:9100", "192.0.2.8:9100"]
```

[contrib/prometheus/alerts.yml](../contrib/prometheus/alerts.yml) has alert rules, and
[contrib/grafana/pyflannel.json](../contrib/grafana/pyflannel.json) a dashboard to import into Grafana.

Names begin with `flannel_`, like the network's devices, chains and variables. What is not known has no sample: a peer
that was never asked has no round trip, and vxlan, ipip and host-gw have no octets by peer, for the kernel counts those
for whole devices. Peers are labelled with their subnet. Counters begin anew with the agent.
"""


def render() -> str:
    """The whole document."""
    rows = [
        f"| `{family.name}` | {family.type} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]
    return "\n".join([HEAD, "| metric | type | labels | what it says |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    FILE.write_text(render())
