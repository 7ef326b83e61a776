import numpy as np
import pytest
from small_training import TRAINING

from bitcorn_ray.data_loader import load_market_data, open_cache, prepare_features
from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.reference import reference_volatility
from bitcorn_ray.learning.config import ModelConfig
from bitcorn_ray.learning.scaling import scale
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.training_inputs import inputs_from_frame, inputs_from_source

MODEL = ModelConfig(horizons=(1, 4), seq_len=16, reference_span=24)
BOTH = ("aaa/usdt", "BBBUSDT")


@pytest.fixture
def inputs(market_db):
    def make(symbols=BOTH, system="v2", **options):
        return inputs_from_source(market_db, symbols, "1h", system, MODEL, TRAINING, **options)

    return make


def expected(market_db, symbol, system="v2"):
    """What the front doors of single partitions give: closes of all bars, and features behind the warm-up."""
    bars = load_market_data(market_db, symbol, "1h").dataframe
    prepared = prepare_features(bars, system, use_cache=False)
    return bars["close"].to_numpy(), prepared.dataframe[prepared.feature_cols].to_numpy()


@pytest.mark.parametrize("system", ["v2", "v4"])
@pytest.mark.parametrize("times", [1, 2])
def test_each_partitions_rows_hold_its_features_cold_and_cached(inputs, market_db, system, times):
    for _ in range(times):
        given = inputs(system=system)
    data = given.data
    for place, symbol in enumerate(("AAAUSDT", "BBBUSDT")):
        close, features = expected(market_db, symbol, system)
        rows = slice(*data.partition_starts[place : place + 2])
        own = data.matrix[rows]
        assert len(own) == len(close)
        warmup = len(close) - len(features)
        finite = np.isfinite(features).all(1)
        np.testing.assert_array_equal(own[warmup:][finite], scale(features, given.scaler)[finite])
        assert (own[:warmup] == 0).all()
        reference = reference_volatility(np.log(close), 24)
        np.testing.assert_allclose(data.reference[rows][1:], reference[1:], rtol=1e-6)
        ends = data.train_ends[(data.train_ends >= rows.start) & (data.train_ends < rows.stop)] - rows.start
        assert ends[0] >= warmup + MODEL.seq_len - 1
    assert data.names == ("AAAUSDT 1h", "BBBUSDT 1h")
    assert given.about["feature_system"] == system
    assert len(set(given.about["cache_keys"])) == 2


def test_the_cache_is_brought_up_to_date_and_read(inputs, market_db, cache_dir):
    inputs()
    cache = open_cache()
    keys = {entry["key"] for entry in cache.entries()}
    assert keys == set(inputs().about["cache_keys"])
    bars = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    assert prepare_features(bars, db_path=str(market_db)).quality_report["cache_hit"]
    written = {path: path.stat().st_mtime_ns for path in (cache_dir / "features").iterdir()}
    inputs()
    assert {path: path.stat().st_mtime_ns for path in (cache_dir / "features").iterdir()} == written


def test_files_of_bars_give_what_the_database_gives(inputs, market_db, tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    for symbol in ("AAAUSDT", "BBBUSDT"):
        load_market_data(market_db, symbol, "1h").dataframe.to_parquet(folder / f"{symbol}_1h.parquet")
    data = inputs_from_source(folder, BOTH, "1h", "v2", MODEL, TRAINING).data
    expected = inputs().data
    np.testing.assert_array_equal(data.matrix, expected.matrix)
    np.testing.assert_array_equal(data.train_ends, expected.train_ends)


def test_a_damaged_chunk_is_computed_anew(inputs, cache_dir):
    whole = inputs().data.matrix.copy()
    for path in (cache_dir / "features").glob("*.parquet"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    np.testing.assert_array_equal(inputs().data.matrix, whole)


def test_the_parts_can_be_cut_at_rows(inputs):
    data = inputs(stops=[(900, 1_100, 1_300), (500, 700, 800)]).data
    assert data.train_ends[data.train_ends < data.partition_starts[1]].max() < 900
    assert data.validation_ends.max() < data.partition_starts[1] + 700 - 4 + 1
    assert len(data.test_ends)


def test_symbols_that_are_not_there_or_named_twice_are_refused(inputs):
    with pytest.raises(BitcornError, match="has no symbol 'NOPE': it has AAAUSDT, BBBUSDT"):
        inputs(("AAAUSDT", "NOPE"))
    with pytest.raises(BitcornError, match="a symbol is named twice in AAAUSDT, aaa/usdt"):
        inputs(("AAAUSDT", "aaa/usdt"))


def test_a_frame_gives_its_columns_in_the_asked_order(market_db):
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    columns = prepared.feature_cols[::-1]
    given = inputs_from_frame(prepared.dataframe, columns, Partition("AAAUSDT", "1h"), None, MODEL, TRAINING)
    features = prepared.dataframe[columns].to_numpy()
    finite = np.isfinite(features).all(1)
    np.testing.assert_array_equal(given.data.matrix[finite], scale(features, given.scaler)[finite])
    assert given.feature_cols == columns
    assert (given.about["feature_system"], given.about["cache_keys"]) == ("v2", [prepared.cache_key])
    assert given.about["features"]["name"] == "v2"


def test_a_frame_of_a_system_that_is_not_declared_here_is_taken_as_it_is(market_db):
    prepared = prepare_features(load_market_data(market_db, "AAAUSDT", "1h").dataframe)
    given = inputs_from_frame(
        prepared.dataframe, prepared.feature_cols, Partition("A", "1h"), "my_own", MODEL, TRAINING
    )
    assert (given.about["feature_system"], given.about["features"]) == ("my_own", None)


def test_absent_columns_are_named(market_db):
    df = load_market_data(market_db, "AAAUSDT", "1h").dataframe
    for columns, message in ((["nope"], "no column nope"), ([], "no feature named")):
        with pytest.raises(BitcornError, match=message):
            inputs_from_frame(df, columns, Partition("A", "1h"), None, MODEL, TRAINING)
