import numpy as np
import pytest
from rendered import printed
from small_evaluations import EVALUATION

from bitcorn_ray.report.evaluation import (
    Track,
    calibration_section,
    evaluation_tables,
    skill_section,
    track_sections,
)


def test_the_tables_have_every_verdict_partition_horizon_and_baseline():
    text = printed(*evaluation_tables(EVALUATION))
    assert "1 bar ahead\n  volatility: better than <log-HAR>\n  direction: a coin" in text
    assert "4 bars ahead\n  volatility: " in text
    assert "GARCH of [A]: too few" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["EWMA", "-0.5000", "*", "-0.5000", "*"] in lines
    assert ["GARCH", "+0.2500", "+0.2500"] in lines
    first, second = (line for line in lines if line[:2] == ["[A]", "1h"])
    assert first[2:] == ["1", "100", "2026-01-01", "0.5000", "75.0", "%", "0.01", "0.5"]
    assert second[2:4] == ["4", "100"]


def test_skill_has_an_interval_for_each_baseline_with_a_standard_error():
    _, volatility, _, returns, _ = skill_section(EVALUATION).parts
    one = volatility.data[0]
    assert (one["name"], one["y"], one["x"]) == ("1 bar ahead", ("EWMA",), (-0.5,))
    assert one["error_x"]["array"] == (pytest.approx(0.195996),)
    assert returns.data[1]["x"] == (0.125,)


def test_coverage_and_pit_are_those_of_all_windows():
    coverage, _, pit, table = calibration_section(EVALUATION).parts
    ideal, one, four = coverage.data
    assert ideal["x"] == ideal["y"] == (0, 100)
    assert one["x"] == (80, 95)
    assert one["y"] == (90.0, None)  # a quarter of 75 %, three quarters of 95 %
    assert four["y"] == (50.0, None)
    assert pit.data[0]["y"][0] == pytest.approx(5)
    assert len(pit.data[0]["x"]) == 21
    assert "75.0 %" in table.html()


def test_tracks_are_root_mean_squares_of_known_outcomes():
    rng = np.random.default_rng(0)
    forecast, realised = rng.uniform(0.01, 0.02, 4_000), rng.uniform(0, 0.03, 4_000)
    realised[-12:] = np.nan
    times = 3_600_000 * np.arange(4_000)
    track = Track(name="A 1h", horizon=12, times=times, forecast=forecast, realised=realised)
    (section,) = track_sections([track])
    outcomes, forecasts = section.parts[-1].data
    assert len(outcomes["x"]) == len(outcomes["y"]) == len(forecasts["y"]) == 498
    assert outcomes["x"][-1] == times[-13]
    assert "3,988 windows drawn as 498 stretches" in outcomes["name"]
    counts = np.diff(np.append(np.unique(np.linspace(0, 3_988, 498, endpoint=False).astype(int)), 3_988))
    total = np.sqrt(np.average(np.square(np.array(outcomes["y"]) / 100), weights=counts))
    assert total == pytest.approx(np.sqrt(np.mean(realised[:-12] ** 2)), rel=1e-4)


def test_ticks_of_a_logarithmic_axis_do_not_overlap():
    def ticks(low, high):
        forecast = np.geomspace(low, high, 100) / 100
        track = Track(name="A 1h", horizon=1, times=np.arange(100), forecast=forecast, realised=forecast)
        return track_sections([track])[0].parts[-1].layout["yaxis"]["ticktext"]

    assert {"0.1", "0.2", "0.5", "1", "2"} <= set(ticks(0.15, 3))
    assert "0.2" not in ticks(0.00001, 300)


def test_each_partition_has_a_section_even_without_known_outcomes():
    unknown = np.full(3, np.nan)
    tracks = [
        Track(name=name, horizon=h, times=np.arange(3), forecast=np.ones(3), realised=unknown)
        for name in ("A 1h", "B 1h")
        for h in (1, 12)
    ]
    sections = track_sections(tracks)
    assert [section.title for section in sections] == [f"Volatility of {n} 1h, forecast and realised" for n in "AB"]
    assert len(sections[0].parts) == 5
