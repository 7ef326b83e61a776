import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from small_evolutions import evolve_values

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.report.evolution import evolution_page
from bitcorn_ray.training.config import RunConfig
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


def individual(name, features, *losses):
    point = {"features": list(features), "training.learning_rate": 0.01}
    return Individual(name=name, point=point, losses=losses)


def test_the_winner_has_few_features_and_is_no_worse_than_chance():
    best = individual("best", "abcd", 1.0, 2.0, 3.0)
    near = individual("near", "ab", 1.2, 1.9, 3.05)  # mean +0.05, standard error 0.087
    worse = individual("worse", "a", 1.5, 2.5, 3.5)
    assert choose_winner([worse, near, best]).name == "near"
    assert choose_winner([worse, best]).name == "best"
    assert choose_winner([individual("x", "a", 1.0), individual("y", "ab", 0.9)]).name == "y"  # one fold: the best
    with pytest.raises(BitcornError, match="no individual was trained"):
        choose_winner([])


@pytest.fixture
def written(market_db, tmp_path):
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


def test_everything_is_written(written):
    folder, _, evolution = written
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
