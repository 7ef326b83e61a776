"""Reading what reports show: the text of tables, and the titles, charts and tags of pages."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from io import StringIO

from rich.console import Console


def printed(*items, width=250):
    """Return what a console prints."""
    console = Console(width=width, file=StringIO())
    for item in items:
        console.print(item, markup=False)
    return console.file.getvalue()


def titles(page):
    return re.findall("<h2>(.*?)</h2>", page)


def charts(page):
    """Return the charts of a page as plain values."""
    return list(json.loads(re.search(r"const PAGE = (\{.*?\});", page)[1])["charts"].values())


class Tags(HTMLParser):
    """The tags of a page outside its scripts, those still open at its end, ids, and addresses that it would load."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.loaded, self.ids = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "i", "br"):
            self.open.append(tag)
        self.loaded += [value for name, value in attrs.items() if name in ("src", "href") and value[:1] != "#"]
        self.ids += [attrs["id"]] if "id" in attrs else []

    def handle_endtag(self, tag):
        if tag != "i":
            assert self.open.pop() == tag
