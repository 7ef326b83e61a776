import pytest
from click.testing import CliRunner

from benchmarks import page as pages
from benchmarks.names import BENCHMARKS
from benchmarks.page import PAGE, format_value, put_sections, render_page, render_section
from benchmarks.results import Result, load_results
from benchmarks.timing import Figure

TEXT = """# Page
before | 1.5 ms |
<!-- benchmark:load -->
old numbers
<!-- /benchmark:load -->
between <!-- a remark -->
<!-- benchmark:read --><!-- /benchmark:read -->
after\\1
"""


def result(*figures):
    return Result.of("load", figures)


def test_the_page_is_what_the_results_give():
    held = PAGE.read_text(encoding="utf-8")
    assert render_page(held, load_results()) == held, "run python -m benchmarks.page"


def test_only_the_named_place_changes():
    put = put_sections(TEXT, {"load": "new \\1 numbers"})
    begin, end = "<!-- benchmark:load -->", "<!-- /benchmark:load -->"
    assert put == TEXT.replace(f"{begin}\nold numbers\n{end}", f"{begin}\n\nnew \\1 numbers\n\n{end}")
    assert put_sections(put, {"load": "new \\1 numbers"}) == put


def test_several_places_change_each_for_itself():
    put = put_sections(TEXT, {"read": "of read", "load": "of load"})
    assert put.index("before") < put.index("of load") < put.index("between") < put.index("of read") < put.index("after")


@pytest.mark.parametrize(
    "text",
    ["", "<!-- benchmark:load -->", "<!-- /benchmark:load --><!-- benchmark:load -->", TEXT + TEXT],
    ids=["none", "not ended", "ended before", "twice"],
)
def test_a_page_without_one_place_is_refused(text):
    with pytest.raises(ValueError, match="no place for the benchmark load"):
        put_sections(text, {"load": "new"})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A page with a place for each benchmark, beside a folder without results."""
    path = tmp_path / "page.md"
    path.write_text("".join(f"<!-- benchmark:{name} -->\n<!-- /benchmark:{name} -->\n" for name in BENCHMARKS))
    monkeypatch.setattr(pages, "PAGE", path)
    monkeypatch.setattr(pages, "load_results", lambda: load_results(tmp_path))
    return path


def test_a_stale_page_is_noticed_and_made_anew(kept):
    assert CliRunner().invoke(pages.main, []).exit_code == 0
    assert CliRunner().invoke(pages.main, ["--check"]).exit_code == 0
    result(Figure("ours", (0.004,))).save(kept.parent)
    before = kept.read_text()
    assert CliRunner().invoke(pages.main, ["--check"]).exit_code == 1
    assert kept.read_text() == before
    assert CliRunner().invoke(pages.main, []).exit_code == 0
    assert "| ours |  | 4.0 ms | 4.0 ms | 4.0 ms |" in kept.read_text()
    assert CliRunner().invoke(pages.main, ["--check"]).exit_code == 0


def test_a_number_edited_by_hand_is_noticed(kept):
    result(Figure("ours", (0.004,))).save(kept.parent)
    CliRunner().invoke(pages.main, [])
    kept.write_text(kept.read_text().replace("4.0 ms", "3.0 ms"))
    assert CliRunner().invoke(pages.main, ["--check"]).exit_code == 1


def test_a_row_says_target_spread_ratio_and_verdict():
    reference = Figure("theirs", (0.2,))
    section = render_section(result(Figure("ours", (0.1, 0.3, 0.2), 0.15).beside(reference, 1.5), reference))
    assert "| ours | 150 ms, 1.5 x | 200.0 ms | 100.0 ms | 300.0 ms | 1 x (0.5 – 1.5) | **no** |" in section
    assert "| *theirs* |" in section
    assert ", runs of each figure: 1 to 3;" in " ".join(section.split())


@pytest.mark.parametrize(("ours", "unit", "better"), [(3.0, "s", True), (1.0, "s", False), (1.0, "windows/s", True)])
def test_a_peer_that_is_better_is_named(ours, unit, better):
    peer = Figure("Peer 1.0", (2.0,), unit=unit, peer=True)
    section = render_section(result(Figure("ours", (ours,), unit=unit).beside(peer), peer))
    assert ("Peer 1.0 is better here" in section) == better


def test_a_library_call_that_is_faster_is_no_peer():
    bare = Figure("bare", (2.0,))
    assert "is better here" not in render_section(result(Figure("ours", (3.0,)).beside(bare), bare))


def test_a_curve_is_one_row_with_its_power():
    figures = []
    for size in (100, 10, 1_000):
        reference = Figure("bare", (2e-3 * size,), size=size)
        figures += [Figure("read", (4e-3 * size,), size=size).beside(reference), reference]
    section = render_section(result(*figures))
    assert "| what | 10 | 100 | 1,000 | grows with the power |" in section
    assert "| read | 40.0 ms | 400.0 ms | 4 s | 1.00 ± 0.00 |" in section
    assert "| *times bare* | 2 x | 2 x | 2 x |  |" in section


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0004, "s", "400 µs"),
        (0.0083, "s", "8.3 ms"),
        (1.0347, "s", "1,034.7 ms"),
        (11.7, "s", "11.7 s"),
        (1234.5, "s", "1,234 s"),
        (1682.4, "MiB", "1,682 MiB"),
        (429181.2, "rows/s", "429,181 rows/s"),
        (52.3456, "bp", "52.35 bp"),
        (1.01, "", "1.01"),
    ],
)
def test_values_are_told_in_their_unit(value, unit, text):
    assert format_value(value, unit) == text
