"""Write the room table and the pictures of docs/architecture.md from the code: `python docs/write_architecture.py`.

`python docs/write_architecture.py count FOLDER` counts the rooms, imports, files and lines of the package in a folder.

The table and the pictures take the purpose of a room from the docstring of its `__init__.py`, and its imports from its
files.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "bitcorn_ray"
PAGE = DOCS / "architecture.md"
BEGIN, END = "<!-- rooms -->\n\n", "\n<!-- end of rooms -->\n"

# The floors of the house, from the top down. A room imports rooms of lower floors, and those to its right.
FLOORS = (
    ("cli", "report"),
    ("tuning", "evaluation"),
    ("forecasting", "training"),
    ("models", "datasets"),
    ("features", "sources"),
    ("market", "metrics", "on_ray"),
    ("cache", "fingerprint", "storage"),
)
# The steps of one job, from bars to a verdict: the step, its file, and the object that it returns.
STEPS = (
    ("Open the source", "sources/source.py", "Source"),
    ("Read and check bars", "sources/loading.py", "Bars"),
    ("Plan and compute chunks", "features/compute.py", "cache entries"),
    ("Load symbols and features", "datasets/load.py", "FeatureMatrix"),
    ("Split, scale, build targets", "datasets/dataset.py", "Dataset"),
    ("Fit a model", "models/base.py", "Model"),
    ("Save the run", "training/run.py", "Run"),
    ("Forecast with bands", "forecasting/forecaster.py", "Forecasts"),
    ("Evaluate on unseen bars", "evaluation/evaluate.py", "Evaluation"),
    ("Show", "report/write.py", "page or table"),
)

_STYLE = (
    "text{font-family:system-ui,sans-serif;fill:#1b2733}.name{font-weight:600;font-size:15px}"
    ".what{font-size:11.5px;fill:#44535f}.mark{font-size:10.5px;fill:#8a4b08}"
    ".box{fill:#f4f7fa;stroke:#9fb3c4;rx:6}.line{stroke:#5b7083;fill:none;marker-end:url(#head)}"
)
_HEAD = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#5b7083"/></marker></defs>'
)


def rooms() -> list[str]:
    """Return the rooms from the top floor to the lowest."""
    return [room for floor in FLOORS for room in floor]


def purpose(room: str) -> str:
    """Return the first sentence of a room's docstring."""
    text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def imported_rooms(room: str) -> list[str]:
    """Return the other rooms that a room imports, from the top floor to the lowest."""
    names = {name.split(".")[1] for path in (PACKAGE / room).rglob("*.py") for name in _imports(path)}
    return [other for other in rooms() if other in names - {room}]


def table() -> str:
    """Return the table of rooms in Markdown."""
    rows = ["| room | holds | imports |", "| --- | --- | --- |"]
    rows += [f"| `{room}` | {purpose(room)} | {', '.join(imported_rooms(room)) or 'none'} |" for room in rooms()]
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """Return the page with the table as the code has it."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


def draw_rooms() -> str:
    """Return a picture of the floors in SVG."""
    width, height, left, top = 860, 66, 24, 40
    parts = [f'<text class="what" x="{left}" y="24">Imports go down, or to the right within a floor.</text>']
    for level, floor in enumerate(FLOORS):
        box = (width - 2 * left - 12 * (len(floor) - 1)) / len(floor)
        for column, room in enumerate(floor):
            x, y = left + column * (box + 12), top + level * (height + 12)
            parts.append(f'<rect class="box" x="{x:.0f}" y="{y}" width="{box:.0f}" height="{height}"/>')
            parts.append(f'<text class="name" x="{x + 12:.0f}" y="{y + 22}">{room}</text>')
            if marks := _marks(room):
                parts.append(f'<text class="mark" x="{x + box - 12:.0f}" y="{y + 21}" text-anchor="end">{marks}</text>')
            parts += _lines(purpose(room).replace("`", ""), x + 12, y + 40, int(box / 6.4))
    return _svg(width, top + len(FLOORS) * (height + 12) + 8, "The rooms of bitcorn_ray, floor by floor", parts)


def draw_job() -> str:
    """Return a picture of the steps of one job in SVG."""
    width, step, left, box = 860, 52, 24, 270
    parts = []
    for number, (what, file, result) in enumerate(STEPS):
        y = 16 + number * step
        parts.append(f'<rect class="box" x="{left}" y="{y}" width="{box}" height="36"/>')
        parts.append(f'<text class="name" x="{left + 12}" y="{y + 23}">{number + 1}. {escape(what)}</text>')
        parts.append(f'<text class="what" x="{left + box + 24}" y="{y + 23}">{file}</text>')
        if number + 1 < len(STEPS):
            parts.append(f'<path class="line" d="M{left + box / 2} {y + 36}V{y + step - 1}"/>')
        parts.append(f'<text class="mark" x="{left + box + 270}" y="{y + 23}">returns: {escape(result)}</text>')
    return _svg(width, 16 + len(STEPS) * step, "The steps of one job, from bars to a verdict", parts)


def counts(package: Path) -> dict[str, int]:
    """Return the size of a package: rooms and loose modules, pairs with an import between them, files and lines.

    A relation between two files is counted once, also where an import is inside a function.
    """
    paths = {_module(path, package): path for path in package.rglob("*.py")}
    modules = {name for name, path in paths.items() if path.name != "__init__.py"}
    files = {(name, other) for name, path in paths.items() for other in _imports(path) if other in modules}
    rooms = {(name.split(".")[1], other.split(".")[1]) for name, other in files if name != "bitcorn_ray"}
    return {
        "rooms and loose modules": len({name.split(".")[1] for name in paths if "." in name}),
        "pairs of rooms": sum(room != other for room, other in rooms),
        "pairs of files": len(files),
        "files": len(paths),
        "lines": sum(len(path.read_text().splitlines()) for path in paths.values()),
    }


def _module(path: Path, package: Path) -> str:
    return ".".join(("bitcorn_ray", *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")


def _imports(path: Path) -> Iterator[str]:
    """Yield the modules of this package that a file names in imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.startswith("bitcorn_ray."))


def _marks(room: str) -> str:
    files = list((PACKAGE / room).rglob("*.py"))
    ray = room == "on_ray" or any(path.name == "distribute.py" for path in files)
    torch = any("import torch" in path.read_text() for path in files)
    return " · ".join(name for name, used in (("Ray", ray), ("torch", torch)) if used)


def _lines(text: str, x: float, y: int, most: int) -> Iterator[str]:
    """Yield the text in up to two lines of so many characters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= most:
            lines.append("")
        lines[-1] += f"{word} "
    for number, line in enumerate(lines[:2]):
        yield f'<text class="what" x="{x:.0f}" y="{y + 15 * number}">{escape(line.strip())}</text>'


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"><title>{title}</title>'
        f'<style>{_STYLE}</style>{_HEAD}<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def pictures() -> dict[str, str]:
    """Return the pictures by file name."""
    return {"rooms.svg": draw_rooms(), "job.svg": draw_job()}


if __name__ == "__main__":
    if sys.argv[1:2] == ["count"]:
        print("\n".join(f"{number:8,} {name}" for name, number in counts(Path(sys.argv[2])).items()))
        sys.exit()
    PAGE.write_text(written(PAGE.read_text()))
    for name, picture in pictures().items():
        (DOCS / "images" / name).write_text(picture)
