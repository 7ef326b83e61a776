"""What an operator sees of a real cluster: metrics, as Prometheus gets them, and the logs of its workers."""

from __future__ import annotations

import json
from pathlib import Path


def scraped(cluster):
    """Values of all metrics of all nodes: a list of labels and value by name."""
    import requests
    from prometheus_client.parser import text_string_to_metric_families

    (listed,) = Path(cluster.folder).glob("session_2*/prom_metrics_service_discovery.json")
    found = {}
    for target in json.loads(listed.read_text())[0]["targets"]:
        answer = requests.get(f"http://{target}/metrics", timeout=10)
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def total(found, name, **labels):
    """Sum of the series of a metric that have some labels."""
    return sum(value for own, value in found.get(name, []) if labels.items() <= own.items())


def records(text):
    """The lines of a log that are JSON records."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    return [record for record in map(json.loads, lines) if "levelname" in record]


def worker_logs(cluster):
    """The records in the logs of all workers, as the dashboard serves them."""
    found = []
    for node in json.loads(cluster.asked("/nodes?view=summary"))["data"]["summary"]:
        asked = f"node_id={node['raylet']['nodeId']}"
        listed = json.loads(cluster.asked(f"/api/v0/logs?{asked}&glob=worker*"))["data"]["result"]
        for name in (name for names in listed.values() for name in names):
            found += records(cluster.asked(f"/api/v0/logs/file?{asked}&filename={name}&lines=-1") or "")
    return found
