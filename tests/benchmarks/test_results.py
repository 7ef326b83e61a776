import pytest

from benchmarks.results import RESULTS, Result, Row, load_results
from benchmarks.timing import Figure


def measured():
    reference = Figure("theirs", (2.0, 4.0), peer=True)
    figures = [Figure("ours", (1.0, 2.0, 9.0), target=3.0).beside(reference, 0.5), reference]
    curve = [Figure("read", (1e-6 * size,), size=size) for size in (1000, 10, 100)]
    return Result.of("load", [*figures, *curve])


def test_a_saved_result_is_read_as_it_was(tmp_path):
    result = measured()
    result.save(tmp_path)
    assert load_results(tmp_path) == {"load": result}


def test_a_row_has_what_its_figure_says():
    row = measured().rows[0]
    assert (row.median, row.best, row.worst, row.runs, row.target) == (2.0, 1.0, 9.0, 3, 3.0)
    assert (row.reference, row.ratio, row.limit, row.reached) == ("theirs", 2 / 3, 0.5, False)


def test_curves_ascend_and_have_their_exponents():
    result = measured()
    assert [row.size for row in result.curves()["read"]] == [10, 100, 1000]
    assert result.exponents()["read"].value == pytest.approx(1)
    assert result.to_json()["exponents"]["read"]["value"] == pytest.approx(1)


def test_remarks_go_when_it_is_measured_anew(tmp_path):
    old = Result(name="load", measured="2026-01-01", machine={}, versions={}, rows=(), remarks=("Of old numbers.",))
    old.save(tmp_path)
    measured().save(tmp_path)
    assert load_results(tmp_path)["load"].remarks == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"median": 1}]}', '{"rows": [], "unknown": 1}'])
def test_a_file_that_is_no_result_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "load.json").write_text(text)
    with pytest.raises(ValueError, match=r"load\.json is no result"):
        load_results(tmp_path)


def test_kept_results_agree_with_their_targets():
    """Verdicts follow from the numbers, wherever these were noted."""
    for result in load_results(RESULTS).values():
        for row in result.rows:
            assert verdict(row) == row.reached, f"{result.name}: {row.what}"


def verdict(row: Row):
    asked = [(row.median, row.target), (row.ratio, row.limit)]
    known = [(value, bound) for value, bound in asked if bound is not None]
    return all(v >= b if row.unit.endswith("/s") else v <= b for v, b in known) if known else None
