"""What an operator sees of a real cluster: metrics, as Prometheus gets them, and the logs of its workers."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_SECONDS = 5  # gauges are there for four times as long


def scraped(cluster):
    """Values of all metrics of all nodes, by their names and labels.

    The ports of the dashboard itself and of the autoscaler are always the same, and may be another cluster's.
    """
    import requests

    found = {}
    for listed in Path(cluster.folder).glob("session_2*/prom_metrics_service_discovery.json"):
        for target in json.loads(listed.read_text())[0]["targets"]:
            with suppress(requests.RequestException):
                text = requests.get(f"http://{target}/metrics", timeout=60).text
                found |= {(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)}
    return found


@contextmanager
def watched(cluster):
    """Scrape while a block runs, and at its end; yields the last value of each series, those that go included."""
    seen, over = {}, threading.Event()

    def watch():
        while not over.wait(_SECONDS):
            seen.update(scraped(cluster))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    seen.update(scraped(cluster))


def total(seen, name, **labels):
    """Sum of the series of a metric that have some labels."""
    return sum(
        value
        for (own, text), value in seen.items()
        if own == name and labels.items() <= dict(_LABEL.findall(text)).items()
    )


def records(text):
    """The lines of a log that are JSON records."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    return [record for record in map(json.loads, lines) if "levelname" in record]


def worker_logs(cluster):
    """The records in the logs of all workers; nodes of one machine have one folder."""
    files = Path(cluster.folder).glob("session_2*/logs/worker-*")
    return [record for file in files for record in records(file.read_text())]
