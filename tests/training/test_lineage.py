import numpy as np
import pytest

from bitcorn_ray import MultiHorizonTrainingRequest, load_market_data, prepare_features, train_multihorizon_model
from bitcorn_ray.datasets.load import partition_record, recorded_source
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.identity import plan_entry
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.loading import load_bars
from bitcorn_ray.training.lineage import package_code, run_lineage
from bitcorn_ray.training.run import load_run, save_run


def test_chunks_of_a_partition_have_keys_and_digests_of_their_own_bars(random_bars):
    bars = random_bars(70_000)
    plan = plan_entry(bars, find_system("v2"))
    found = partition_record(Partition("X", "1h"), bars, plan)
    assert [each["key"] for each in found["chunks"]] == [chunk.key for chunk in plan.chunks]
    assert sum(each["rows"] for each in found["chunks"]) == found["bars"] == 70_000
    changed = bars.columns()
    changed["volume"] = changed["volume"].copy()
    changed["volume"][-1] += 1
    other = type(bars)(**changed)
    again = partition_record(Partition("X", "1h"), other, plan_entry(other, find_system("v2")))
    differs = [one["bars"] != two["bars"] for one, two in zip(found["chunks"], again["chunks"], strict=True)]
    assert differs == [False] * (len(differs) - 1) + [True]


def test_a_source_is_recorded_absolute_and_without_secrets(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert recorded_source("m.db") == str(tmp_path / "m.db")
    assert recorded_source("s3://key:hush@bucket/bars?region=r&secret_key=hush") == "s3://bucket/bars?region=r"


def test_code_is_recorded_by_room_without_cli_and_report():
    code = package_code()
    assert {"models", "features", "market", "fingerprint"} <= code.keys()
    assert not {"cli", "report"} & code.keys()


def test_a_run_of_a_frame_records_all_but_a_configuration(market_db, tmp_path):
    market = load_market_data(market_db, "AAAUSDT", "1h")
    features = prepare_features(market.dataframe, "v2", db_path=market_db)
    request = MultiHorizonTrainingRequest(
        features.dataframe, features.feature_cols, horizons=[1, 4], seq_len=16, hidden_size=4, epochs=1, seed=7
    )
    train_multihorizon_model(request, artifacts_dir=tmp_path / "run")
    found = run_lineage(tmp_path / "run")
    assert found["config"] is None
    assert found["seeds"] == {"training": 7}
    assert len(found["data"]["digest"]) == 32
    assert found["cluster"]["workers"][0]["gpu"] is None
    assert found["features"]["name"] == "v2"


def test_a_run_without_lineage_is_refused(market_db, tmp_path):
    market = load_market_data(market_db, "AAAUSDT", "1h")
    features = prepare_features(market.dataframe, "v2", db_path=market_db)
    request = MultiHorizonTrainingRequest(
        features.dataframe, features.feature_cols, horizons=[1], seq_len=16, hidden_size=4, epochs=1
    )
    train_multihorizon_model(request, artifacts_dir=tmp_path / "run")
    run = load_run(tmp_path / "run")
    del run.metadata["lineage"]
    save_run(run, tmp_path / "older")
    with pytest.raises(BitcornError, match=r"older recorded no lineage: it was imported, or trained by an older"):
        run_lineage(tmp_path / "older")


def test_bars_are_read_until_a_time_as_if_later_ones_were_not_there(market_db):
    whole = load_bars(market_db, "AAAUSDT", "1h").bars
    until = int(whole.timestamp[-10])
    np.testing.assert_array_equal(
        load_bars(market_db, "AAAUSDT", "1h", until=until).bars.timestamp, whole.timestamp[:-9]
    )
    higher = load_bars(market_db, "AAAUSDT", "4h").bars
    cut = load_bars(market_db, "AAAUSDT", "4h", until=int(higher.timestamp[-3])).bars
    np.testing.assert_array_equal(cut.timestamp, higher.timestamp[:-2])
    np.testing.assert_array_equal(cut.close, higher.close[:-2])
