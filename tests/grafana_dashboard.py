"""The dashboard for Grafana, as what reads it sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path

_PATH = Path(__file__).parent.parent / "cluster" / "grafana-dashboard.json"


def dashboard():
    return json.loads(_PATH.read_text())


def panels():
    """All panels that show something, which are not rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    """What the panels ask Prometheus, each with the variables as Grafana sets them."""
    values = {"$__range": "1h", "$__rate_interval": "1m", "$session": ".+"}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in values.items():
                text = text.replace(name, value)
            yield text


def metrics_named():
    """Names of all metrics that the panels ask for."""
    return {name for text in expressions() for name in re.findall(r"\b\w+(?=\{)", text)}
