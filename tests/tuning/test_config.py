import json

import pytest
import yaml
from small_sweeps import sweep_values

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.tuning.config import Resources, SweepConfig, SweepOptions, TrialConfig


def config(**changes):
    return SweepConfig.load(sweep_values("market.db", "out", **changes))


def test_overrides_replace_the_fields_of_a_file(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep_values("market.db", "out")))
    loaded = SweepConfig.load(path, {"out": "other", "trials": 7, "max_hours": None})
    assert (loaded.run.out, loaded.sweep.trials, loaded.folds.last) == ("other", 7, 2)
    assert SweepConfig.load(loaded, {"trials": 3}).sweep.trials == 3
    again = SweepConfig.load({k: v for k, v in json.loads(json.dumps(loaded.to_json())).items() if v not in (None, [])})
    assert again == loaded


def test_a_point_changes_the_fields_that_it_names():
    made = config(
        features="v4",
        search={
            "seq_len": {"int": [8, 16]},
            "training.horizon_weights": {"choice": ["learned", [1, 2]]},
            "system.short": {"int": [6, 12, 6]},
            "features": {"choice": [list(_v4()[:2])]},
        },
    )
    setting = made.at({"seq_len": 16, "training.horizon_weights": [1, 2], "system.short": 12, "features": ["a"]})
    assert setting.model.seq_len == 16
    assert setting.training.horizon_weights == (1, 2)
    assert setting.system == "v4:short=12"
    assert setting.features == ("a",)
    assert TrialConfig.from_json(json.loads(json.dumps(setting.to_json()))) == setting
    assert made.variants() == ("v4:short=6", "v4:short=12")


def _v4():
    from bitcorn_ray.features.registry import find_system

    return find_system("v4").features


def test_a_parameter_is_given_to_the_systems_that_have_it():
    made = config(search={"system": {"choice": ["v2", "v4"]}, "system.short": {"choice": [6, 12]}})
    assert made.variants() == ("v2", "v4:short=6", "v4:short=12")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"search": {"hidden": {"int": [1, 2]}}}, "search.hidden is not a field"),
        ({"search": {"model.hidden": {"int": [1, 2]}}}, "search.model.hidden is not a field"),
        ({"search": {"model.horizons": {"choice": [[1], [2]]}}}, "cannot be compared"),
        ({"search": {"training.seed": {"int": [1, 2]}}}, "sweep.seeds"),
        ({"search": {"training.loss": {"choice": ["mse", "msee"]}}}, "loss is 'msee'"),
        ({"search": {"model.dropout": {"uniform": [0, 1.5]}}}, "dropout is 1.5"),
        ({"search": {"system": {"choice": ["v2", "v9"]}}}, "unknown feature system 'v9'"),
        ({"search": {"system.short": {"int": [1, 2]}}}, "none of the systems v2 has a parameter short"),
        ({"features": "v4", "search": {"system.short": {"uniform": [1, 2]}}}, "give a choice or an int"),
        ({"features": "vol", "search": {"system.day": {"int": [12, 99]}}}, "more than 64 variants"),
        ({"search": {"features": {"choice": [["rsi_14", "rsi"]]}}}, "rsi is missing"),
        ({"search": {"features": {"choice": ["rsi_14"]}}}, "lists of feature names"),
        ({"folds": {"validation": 0}}, "give a length"),
        ({"sweep": {"trails": 3}}, "sweep: unknown field trails"),
        ({"out": None}, "out is missing"),
    ],
)
def test_impossible_sweeps_are_refused(changes, match):
    with pytest.raises(BitcornError, match=match):
        config(**changes)


def test_by_default_a_trial_takes_a_cpu():
    assert SweepOptions().resources == Resources(cpu=1, gpu=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"scheduler": "best"}, "use none, asha"),
        ({"objective": "mse"}, "use qlike"),
        ({"search": "best"}, "use tpe"),
        ({"trials": 0}, "trials is 0"),
        ({"seeds": 0}, "seeds is 0"),
        ({"max_hours": 0}, "max_hours is 0"),
        ({"max_failures": 2}, "max_failures is 2"),
    ],
)
def test_impossible_options_are_refused(changes, match):
    with pytest.raises(BitcornError, match=match):
        SweepOptions(**changes)
    with pytest.raises(BitcornError, match="0 CPUs"):
        Resources(cpu=0)
