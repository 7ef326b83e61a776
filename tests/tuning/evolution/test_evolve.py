import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from killing import kill_driver, written
from small_evolutions import evolve_here, evolve_values

from bitcorn_ray import evolve, leaderboard, train_from_config
from bitcorn_ray.data_loader import load_market_data, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.report.evolution import evolution_page
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.training.config import RunConfig
from bitcorn_ray.training.run import load_run
from bitcorn_ray.tuning.evolution.config import EvolveConfig
from bitcorn_ray.tuning.evolution.importance import Importance
from bitcorn_ray.tuning.evolution.population import Individual
from bitcorn_ray.tuning.evolution.results import (
    EvaluatedIndividual,
    Evolution,
    Generation,
    choose_winner,
    write_results,
)
from bitcorn_ray.tuning.folder import SweepFolder


def plain(evolution):
    """An evolution without what says where and how it was run."""
    told = evolution.to_json()
    for generation in told["generations"]:
        del generation["trained"]
    return {name: value for name, value in told.items() if name != "evolution"}


def test_an_evolution_leaves_a_front_a_winner_and_its_system(market_db, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    out, lines = tmp_path / "evolved", []
    done = evolve(evolve_values(market_db, out), log_fn=lines.append)
    assert (done.ended, done.tried, len(done.generations)) == ("done", 8, 2)
    counts = [len(each.individual.features) for each in done.front]
    losses = [each.individual.loss for each in done.front]
    assert counts == sorted(set(counts))
    assert losses == sorted(losses, reverse=True)
    assert done.winner == choose_winner([each.individual for each in done.front]).name
    # The first generation has all features, and those of each system alone.
    whole, first, second = (set(each.features) for each in done.generations[0].individuals[:3])
    assert whole == first | second
    assert second == {"momentum", "range"}
    for generation in done.generations:
        assert len(generation.survivors) <= 4
        assert set(generation.survival) == whole
        assert all(0 <= share <= 1 for share in generation.survival.values())
    # EvaluatedIndividual on the fold that was held out, like the systems whole.
    assert all(len(each.held_out) == 1 and math.isfinite(each.held_out[0]) for each in done.front)
    assert [each.individual.name for each in done.compared] == ["v2", "own_systems:momentum:window=5", "all features"]
    winner = next(each for each in done.front if each.individual.name == done.winner)
    assert {each.feature for each in done.importance} == set(winner.individual.features)
    # One JSON, one Parquet, one page.
    told = json.loads((out / "evolution.json").read_text())
    assert told["winner"] == done.winner
    assert (len(told["folds"]["search"]), len(told["folds"]["held_out"])) == (1, 1)
    table = pq.read_table(out / "evolution.parquet").to_pandas()
    assert table["generation"].tolist() == [1] * 4 + [2] * 4
    assert (table.filter(like="feature.").sum(axis=1) == table["count"]).all()
    assert set(table["search.training.learning_rate"]) <= {0.001, 0.01}
    assert "plotly" in (out / "evolution.html").read_text()
    assert any("2 features own_systems:momentum:window=5" in line for line in lines)


def test_the_winner_is_a_feature_system_like_any_other(market_db, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    out = tmp_path / "evolved"
    done = evolve(evolve_values(market_db, out, evolve={"generations": 1}))
    winner = next(each for each in done.front if each.individual.name == done.winner).individual
    system = find_system(str(out / "system.json"))
    assert system.features == winner.features
    bars = load_market_data(str(market_db), "AAAUSDT", "1h").dataframe
    prepared = prepare_features(bars, str(out / "system.json"))
    theirs = prepare_features(bars, "v2").dataframe
    common = [name for name in winner.features if name in theirs]
    late = len(theirs) - len(prepared.dataframe)
    np.testing.assert_array_equal(prepared.dataframe[common].to_numpy(), theirs[common].to_numpy()[late:])
    # A training by its configuration is a run of that system, wherever the folder goes.
    config = RunConfig.load(out / "winner.yaml", {"workers": 0})
    train_from_config(config)
    assert load_run(config.out).metadata["feature_system"] == system.spec == done.system


def test_the_search_does_not_read_the_held_out_range(market_db, tmp_path, monkeypatch, random_bars):
    evolve_here(monkeypatch)
    first = evolve(evolve_values(market_db, tmp_path / "first"))
    start = json.loads((tmp_path / "first" / "evolution.json").read_text())["folds"]["held_out"][0]["test"]["span"][0]
    bars = random_bars(1_500, seed=1, gaps=2)
    other = random_bars(1_500, seed=9, gaps=2)
    late = bars.timestamp + 3_600_000 >= start
    assert 100 < late.sum() < 200
    changed = {name: values.copy() for name, values in bars.columns().items()}
    scale = bars.close[~late][-1] / other.close[0]
    for name in ("open", "high", "low", "close", "volume"):
        changed[name][late] = (getattr(other, name) * (1.0 if name == "volume" else scale))[: late.sum()]
    path = tmp_path / "changed.db"
    write_bars([("simulated", Partition("AAAUSDT", "1h"), type(bars)(**changed))], path)
    second = evolve(evolve_values(path, tmp_path / "second"))

    def searched(evolution):
        told = plain(evolution)
        front = [{name: v for name, v in each.items() if not name.startswith("held_out")} for each in told["front"]]
        return {"front": front, **{name: told[name] for name in ("winner", "system", "tried", "generations")}}

    assert searched(second) == searched(first)
    assert [each.held_out for each in second.front] != [each.held_out for each in first.front]


def test_a_resumed_evolution_repeats_no_training(market_db, tmp_path, monkeypatch):
    whole = evolve_values(market_db, tmp_path / "whole")
    evolve_here(monkeypatch)
    expected = evolve(whole)
    values = evolve_values(market_db, tmp_path / "cut")
    evolve_here(monkeypatch, stop_after=6)
    cut = evolve(values)
    assert (cut.ended, cut.winner, len(cut.generations), cut.tried) == ("interrupted", None, 1, 6)
    with pytest.raises(BitcornError, match="continue it with --resume"):
        evolve(values)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "records").iterdir()}
    ran = evolve_here(monkeypatch)
    assert plain(evolve(values, resume=True)) == plain(expected)
    assert ran[:2] == ["t0007", "t0008"]
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "records").iterdir()}
    assert before.items() <= after.items()
    more = evolve(values, generations=3, resume=True)
    assert [each.trained for each in more.generations][:2] == [0, 0]
    assert more.generations[:2] == tuple(type(each)(**{**vars(each), "trained": 0}) for each in expected.generations)
    with pytest.raises(BitcornError, match="another configuration"):
        evolve(evolve_values(market_db, tmp_path / "cut", evolve={"population": 5}), resume=True)


def test_a_trial_that_finished_out_of_order_keeps_its_name(market_db, tmp_path, monkeypatch):
    """Two trials ran when the driver died: the later one had finished."""
    evolve_here(monkeypatch)
    values = evolve_values(market_db, tmp_path / "cut")
    whole = evolve(values)
    journal = SweepFolder(tmp_path / "cut").journal
    kept = [trial for name, trial in journal.read().items() if name in ("t0001", "t0002", "t0003", "t0004", "t0006")]
    (tmp_path / "cut" / "trials.jsonl").unlink()
    for trial in kept:
        journal.write(trial)
    ran = evolve_here(monkeypatch)
    assert plain(evolve(values, resume=True)) == plain(whole)
    assert ran == ["t0005", "t0007", "t0008"]
    assert len(journal.read()) == 8


def test_failures_and_time_end_an_evolution(market_db, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    broken = {"learning_rate": 1e30, "grad_clip": 1e30}
    with pytest.raises(BitcornError, match="of each generation at most 0% may; the first, t0001"):
        evolve(
            evolve_values(market_db, tmp_path / "failed", training={**broken}, search={}, evolve={"max_failures": 0})
        )
    assert json.loads((tmp_path / "failed" / "evolution.json").read_text())["ended"] == "failures"
    with pytest.raises(BitcornError, match="no individual was trained on all folds"):
        evolve(evolve_values(market_db, tmp_path / "late"), max_hours=1e-12)


def test_impossible_evolutions_are_refused_before_any_trial(market_db, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(BitcornError, match="holds other files than a sweep or evolution"):
        evolve(evolve_values(market_db, tmp_path / "mine"))
    with pytest.raises(BitcornError, match=r"there are 4 folds and evolve\.held_out is 9: no fold is left"):
        evolve(evolve_values(market_db, tmp_path / "out", folds={"last": None, "train": "35d"}, evolve={"held_out": 9}))


def test_the_leaderboard_counts_all_individuals(market_db, tmp_path, monkeypatch):
    evolve_here(monkeypatch)
    done = evolve(evolve_values(market_db, tmp_path / "evolved", evolve={"generations": 1}))
    judged = leaderboard(tmp_path / "evolved")
    assert len(judged.trials) == done.tried
    assert yaml.safe_load((tmp_path / "evolved" / "winner.yaml").read_text())["features"] == done.system


@pytest.mark.slow
def test_after_a_killed_driver_nothing_is_repeated_and_the_result_is_the_same(
    ray_cluster, market_db, tmp_path, cache_dir, monkeypatch
):
    """On Ray, killed and gone on with, beside an undisturbed evolution in one process."""
    out, seen = tmp_path / "killed", []
    values = evolve_values(market_db, out, training={"epochs": 8}, evolve={"shuffles": 1})
    before = kill_driver("evolve", values, cache_dir, records=5)  # within the second generation of four
    assert len(before) >= 5
    with pytest.raises(BitcornError, match="continue it with --resume"):
        evolve(values)
    done = evolve(values, resume=True, on_generation=seen.append)
    assert [each.number for each in seen] == [1, 2]
    assert before.items() < written(out).items()  # some was left to do
    ran = evolve_here(monkeypatch)
    undisturbed = evolve({**values, "out": str(tmp_path / "undisturbed")})
    assert plain(done) == plain(undisturbed)
    assert len(written(out)) == len(written(tmp_path / "undisturbed"))
    # With all recorded nothing is trained again.
    ran.clear()
    assert plain(evolve(values, resume=True)) == plain(done)
    assert ran == []


def individual(name, features, *losses):
    point = {"features": list(features), "training.learning_rate": 0.01}
    return Individual(name=name, point=point, losses=losses)


def test_the_winner_has_few_features_and_is_within_one_standard_error():
    best = individual("best", "abcd", 1.0, 2.0, 3.0)
    near = individual("near", "ab", 1.2, 1.9, 3.05)  # mean +0.05, standard error 0.087
    worse = individual("worse", "a", 1.5, 2.5, 3.5)
    assert choose_winner([worse, near, best]).name == "near"
    assert choose_winner([worse, best]).name == "best"
    assert choose_winner([individual("x", "a", 1.0), individual("y", "ab", 0.9)]).name == "y"  # one fold: the best
    with pytest.raises(BitcornError, match="no individual was trained"):
        choose_winner([])


@pytest.fixture
def results(market_db, tmp_path):
    config = EvolveConfig.load(evolve_values(market_db, tmp_path / "evolved"))
    folder = SweepFolder(tmp_path / "evolved")
    few, many, failed = (
        individual("t0001", ["range"], 2.0),
        individual("t0002", ["rsi_14", "range"], 1.0),
        individual("t0003", ["rsi_14"]),
    )
    generation = Generation(
        number=1,
        individuals=(few, many, failed),
        survivors=("t0001", "t0002"),
        front=("t0001", "t0002"),
        trained=3,
        survival={name: float(name == "range") for name in config.features},
    )
    evolution = Evolution(
        folder=folder.storage.address,
        ended="done",
        tried=3,
        generations=(generation,),
        front=(EvaluatedIndividual(individual=few, held_out=(2.5,)), EvaluatedIndividual(individual=many)),
        winner="t0002",
        system=config.system_of(many.features).spec,
        compared=(EvaluatedIndividual(individual=individual("v2", ["rsi_14"]), held_out=(3.0,)),),
        importance=(Importance(feature="range", increase=0.1, standard_error=None),),
    )
    write_results(folder, config, {"search": [], "held_out": []}, evolution_page, evolution)
    return folder, config, evolution


def test_all_results_are_written(results):
    folder, _, evolution = results
    told = json.loads((Path(folder.storage.address) / "evolution.json").read_text())
    assert [each["held_out_loss"] for each in told["front"]] == [2.5, None]
    assert told["compared"][0]["loss"] is None  # nothing was searched with it
    assert told["generations"][0]["best"] == 1.0
    table = pq.read_table(Path(folder.storage.address) / "evolution.parquet").to_pydict()
    assert table["loss"] == [2.0, 1.0, None]
    assert table["front"] == table["survives"] == [True, True, False]
    assert table["feature.rsi_14"] == [False, True, True]
    assert find_system(str(Path(folder.storage.address) / "system.json")).features == ("rsi_14", "range")
    run = RunConfig.load(Path(folder.storage.address) / "winner.yaml", {})
    assert (run.features, run.training.learning_rate) == (evolution.system, 0.01)
    assert run.out == str(Path(folder.storage.address) / "run")
    assert (Path(folder.storage.address) / "evolution.html").is_file()
