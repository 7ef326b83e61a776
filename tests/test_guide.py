"""The examples of the older system's guide, changed in their imports only (and in their file names and sizes)."""

import pytest


@pytest.fixture
def db(market_db, tmp_path, monkeypatch):
    """The database at the place where the guide has it, and the guide's cache folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BITCORN_CACHE_DIR")
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "btcusdt_1h.db"
    market_db.rename(target)
    return "data/btcusdt_1h.db"


@pytest.fixture
def df(db):
    from bitcorn_ray.data_loader import load_market_data

    return load_market_data(db_path=db, symbol="AAAUSDT", timeframe="1h").dataframe


def test_loading_market_data(db, capsys):
    from bitcorn_ray.data_loader import load_market_data

    result = load_market_data(
        db_path="data/btcusdt_1h.db",
        symbol="AAAUSDT",
        timeframe="1h",
        limit=None,
        log_fn=print,
    )

    df = result.dataframe
    quality_report = result.quality_report

    print(f"Loaded {len(df)} rows")
    print(f"Quality: {quality_report}")
    assert "Loaded 14" in capsys.readouterr().out


@pytest.mark.parametrize(("system", "features"), [("v2", 14), ("v4", 46)])
def test_preparing_features_and_building_sequences(df, system, features):
    from bitcorn_ray.data_loader import build_sequences, prepare_features

    feature_result = prepare_features(
        df=df,
        feature_system=system,
        use_cache=True,
        db_path="data/btcusdt_1h.db",
        log_fn=print,
    )

    features_df = feature_result.dataframe
    feature_cols = feature_result.feature_cols
    cache_key = feature_result.cache_key
    assert len(feature_cols) == features
    assert feature_result.quality_report.get("cache_hit", False) is False

    seq_result = build_sequences(
        df=features_df,
        feature_cols=feature_cols,
        seq_len=64,
        horizon=1,
        fill_gaps_strategy="forward",
        max_gap_size=10,
        fit_scaler=True,
        log_fn=print,
    )

    X = seq_result.X
    y_ret = seq_result.y_ret
    y_vol = seq_result.y_vol
    assert X.shape == (len(y_ret), 64, features)
    assert len(y_vol) == len(y_ret)
    assert seq_result.scaler.n_features_in_ == features
    assert seq_result.metadata["windows"] == len(X)

    # Hyperparameter optimisation: the first trial computes, the next ones read.
    trial_2_features = prepare_features(df=df, feature_system=system, use_cache=True, db_path="data/btcusdt_1h.db")
    assert trial_2_features.quality_report["cache_hit"] is True
    assert trial_2_features.cache_key == cache_key


def test_training(df, tmp_path):
    from bitcorn_ray.data_loader import prepare_features
    from bitcorn_ray.training_service import MultiHorizonTrainingRequest, train_multihorizon_model

    feature_result = prepare_features(df, db_path="data/btcusdt_1h.db")
    request = MultiHorizonTrainingRequest(
        df=feature_result.dataframe,
        feature_cols=feature_result.feature_cols,
        horizons=[1, 4, 12],
        seq_len=64,
        hidden_size=16,
        num_layers=2,
        dropout=0.2,
        batch_size=64,
        epochs=1,
        learning_rate=1e-3,
        val_frac=0.2,
        symbol="BTCUSDT",
        timeframe="1h",
    )

    result = train_multihorizon_model(request=request, artifacts_dir="models/run_001", log_fn=print)

    assert result.model.horizons == (1, 4, 12)
    assert result.scaler.n_features_in_ == 14
    assert result.metadata["feature_cols"] == feature_result.feature_cols
    written = {path.name for path in (tmp_path / "models" / "run_001").iterdir()}
    assert {"metadata.json", "model.pt", "scaler.pkl"} <= written


def test_the_cache_has_the_guides_layout_and_is_managed_as_there(df, tmp_path):
    from bitcorn_ray.data_loader import invalidate_cache, prepare_features

    key = prepare_features(df, db_path="data/btcusdt_1h.db").cache_key
    folder = tmp_path / "cache" / "data_pipeline"
    for name in ("index.json", f"features/{key}.meta.json", f"data_quality/{key}.json"):
        assert (folder / name).is_file()
    assert len(list((folder / "features").glob("*.parquet"))) == 1
    assert invalidate_cache(db_path="data/btcusdt_1h.db") == 1
    prepare_features(df, db_path="data/btcusdt_1h.db")
    assert invalidate_cache() == 1

    import shutil

    shutil.rmtree("cache/data_pipeline")
    assert prepare_features(df, db_path="data/btcusdt_1h.db").quality_report["cache_hit"] is False


def test_feature_evolution(db):
    from bitcorn_ray.data_loader import load_market_data, prepare_features

    # Load once, reuse for all generations
    market_result = load_market_data(db_path="data/btcusdt_1h.db", symbol="AAAUSDT", timeframe="1h")
    hits = []
    for _generation in range(3):
        feature_result = prepare_features(
            df=market_result.dataframe,
            feature_system="v4",
            use_cache=True,
            db_path="data/btcusdt_1h.db",
            log_fn=print,
        )
        hits.append(feature_result.quality_report.get("cache_hit", False))
    assert hits == [False, True, True]


def test_switching_systems_and_changing_the_database_need_no_invalidation(db, df):
    import sqlite3

    from bitcorn_ray.data_loader import load_market_data, prepare_features

    for system in ("v2", "v4", "v2", "v4"):
        feature_result = prepare_features(df=df, feature_system=system, use_cache=True, db_path="data/btcusdt_1h.db")
    assert feature_result.quality_report["cache_hit"] is True
    with sqlite3.connect("data/btcusdt_1h.db") as connection:
        connection.execute("UPDATE ohlcv SET volume = volume * 2 WHERE ts = (SELECT max(ts) FROM ohlcv)")
    connection.close()
    changed = load_market_data("data/btcusdt_1h.db", "AAAUSDT", "1h").dataframe
    newer = prepare_features(df=changed, feature_system="v4", use_cache=True, db_path="data/btcusdt_1h.db")
    assert newer.quality_report["cache_hit"] is False
    assert newer.cache_key != feature_result.cache_key


def test_walk_forward_validation(db):
    from bitcorn_ray.data_loader import build_sequences, load_market_data, prepare_features

    market_result = load_market_data(db, "AAAUSDT", "1h")
    feature_result = prepare_features(
        df=market_result.dataframe, feature_system="v2", use_cache=True, db_path="data/btcusdt_1h.db"
    )
    for train_indices, val_indices in ((range(600), range(610, 900)), (range(900), range(910, 1_200))):
        train_df = feature_result.dataframe.iloc[train_indices]
        val_df = feature_result.dataframe.iloc[val_indices]
        train_seq = build_sequences(train_df, feature_result.feature_cols, seq_len=32, horizon=4)
        val_seq = build_sequences(
            val_df, feature_result.feature_cols, seq_len=32, horizon=4, fit_scaler=False, scaler=train_seq.scaler
        )
        assert val_seq.scaler is train_seq.scaler
        assert len(train_seq.X)
        assert len(val_seq.X)
