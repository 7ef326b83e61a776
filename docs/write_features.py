"""Writes the tables of docs/features.md from the docstrings of the feature systems: `python docs/write_features.py`.

A docstring tells of features as `- name, name: formula; source`, under titles, and of the rest in paragraphs. Both are
written between the marks `<!-- NAME -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.systems import v2, v4, vol

PAGE = Path(__file__).with_name("features.md")
DOCSTRINGS = {"v4": v4.__doc__ or "", "vol": vol.__doc__ or "", "v2": v2.__doc__ or ""}
CITATION = re.compile(r"[^,;()]+ \(\d{4}\)")

_HEAD = "| feature | formula | source |\n| --- | --- | --- |"


def written(page: str) -> str:
    """Return the page with all tables as the code has them."""
    for name in DOCSTRINGS:
        begin, end = f"<!-- {name} -->\n\n", f"\n<!-- end of {name} -->\n"
        before, _, rest = page.partition(begin)
        page = before + begin + section(name) + end + rest.partition(end)[2]
    return page


def section(name: str) -> str:
    """Return what the page says of a system: paragraphs, its table, and how many bars have no features."""
    paragraphs, rows = list[str](), list[str]()
    for block in DOCSTRINGS[name].strip().split("\n\n")[1:]:
        title, dash, entries = ("\n" + block).partition("\n- ")
        if not dash:
            paragraphs.append(block)
            continue
        family, of_family = _without_source(title.strip())
        if family:
            rows.append(f"| **{family}** | | |")
        for names, formula, source in _entries(entries):
            shown = ", ".join(f"`{each}`" for each in names)
            rows.append(f"| {shown} | {formula} | {source or of_family} |")
    warmup = f"The first {find_system(name).warmup_bars:,} bars have no complete row with the default parameters."
    return "\n\n".join([*paragraphs, "\n".join([_HEAD, *rows]), warmup]) + "\n"


def features_of(name: str) -> Iterator[str]:
    """Names of features that a docstring tells of, as it writes them."""
    for block in DOCSTRINGS[name].strip().split("\n\n")[1:]:
        dash, entries = ("\n" + block).partition("\n- ")[1:]
        if dash:
            yield from (each for names, _, _ in _entries(entries) for each in names)


def _entries(text: str) -> Iterator[tuple[list[str], str, str]]:
    for entry in text.split("\n- "):
        names, _, told = " ".join(entry.split()).partition(": ")
        yield [each.strip() for each in re.split(", (?=[a-z])", names)], *_without_source(told)


def _without_source(text: str) -> tuple[str, str]:
    """What stands before the source, as a cell of a table, and the source."""
    told, _, source = text.rpartition("; ")
    if not CITATION.search(source):
        told, source = text, ""
    return told.replace("|", "\\|"), source


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
