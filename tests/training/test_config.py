import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.training.config import RunConfig

NEEDED = {"db": "market.db", "symbol": "BTCUSDT", "timeframe": "1h", "out": "models/run"}


@pytest.fixture
def yaml(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_options_alone_make_a_configuration_with_the_documented_defaults():
    config = RunConfig.load(None, NEEDED)
    assert (config.features, config.workers, config.gpus) == ("v2", 1, 0)
    assert (config.model.horizons, config.model.seq_len, config.model.hidden_size) == ((1, 4, 12), 64, 64)
    assert config.training.epochs == 5


def test_options_go_before_the_file_and_none_leaves_the_files_value(yaml):
    path = yaml(
        "db: a.db\nsymbol: X\ntimeframe: 4h\nout: o\nmodel: {seq_len: 32, horizons: [2]}\ntraining: {epochs: 7}"
    )
    config = RunConfig.load(path, {"db": "b.db", "symbol": None, "model": {"seq_len": None, "hidden_size": 8}})
    assert (config.db, config.symbol) == ("b.db", "X")
    assert (config.model.seq_len, config.model.hidden_size, config.model.horizons) == (32, 8, (2,))
    assert config.training.epochs == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dbs: x", "unknown field dbs"),
        ("model: {layers: 2}", "unknown field model.layers"),
        ("model: {seq_len: many}", "model.seq_len"),
        ("training: {loss: huber}", "training: loss is 'huber'"),
        ("workers: -1", "workers is -1"),
        ("workers: [2, 1]", r"workers is \[2, 1\]: give the least"),
        ("gpus: -1", "gpus is -1"),
        ("training: {horizon_weights: [1, -1]}", "horizon_weights are"),
        ("- a\n- b", "holds list"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_wrong_fields_are_named(yaml, text, message):
    with pytest.raises(BitcornError, match=message):
        RunConfig.load(yaml(text), NEEDED)


def test_a_training_has_a_symbol_or_several():
    assert RunConfig.load(None, NEEDED).all_symbols == ("BTCUSDT",)
    several = {**NEEDED, "symbol": None, "symbols": ["BTCUSDT", "ETHUSDT"]}
    assert RunConfig.load(None, several).all_symbols == ("BTCUSDT", "ETHUSDT")
    with pytest.raises(BitcornError, match="has no symbol: give symbol, or symbols for several"):
        RunConfig.load(None, {**NEEDED, "symbol": None})
    with pytest.raises(BitcornError, match="has symbol BTCUSDT and symbols ETHUSDT"):
        RunConfig.load(None, {**NEEDED, "symbols": ["ETHUSDT"]})


def test_symbols_given_as_options_go_before_those_of_the_file(yaml):
    path = yaml("symbols: [AAA, BBB]")
    assert RunConfig.load(path, NEEDED).all_symbols == ("BTCUSDT",)
    assert RunConfig.load(path, {**NEEDED, "symbol": None}).all_symbols == ("AAA", "BBB")


def test_a_file_may_set_every_field_of_model_and_training(yaml):
    config = RunConfig.load(
        yaml(
            "workers: [1, 4]\n"
            "model: {cell: gru, skip: true, symbol_embedding: 4, reference_span: 24}\n"
            "training: {loss: student_t, horizon_weights: learned, schedule: cosine, test_frac: 0.1, "
            "checkpoint_minutes: 5}"
        ),
        NEEDED,
    )
    assert config.workers == (1, 4)
    assert (config.model.kind, config.model.skip, config.model.symbol_embedding) == ("gru", True, 4)
    assert (config.training.horizon_weights, config.training.checkpoint_minutes) == ("learned", 5)
    weighted = RunConfig.load(yaml("training: {horizon_weights: [1, 2, 3]}"), NEEDED)
    assert weighted.training.horizon_weights == (1, 2, 3)


def test_what_is_missing_is_named():
    with pytest.raises(BitcornError, match="db is missing: give it in the file or as an option"):
        RunConfig.load(None, {**NEEDED, "db": None})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BitcornError, match=r"no configuration at .*none\.yaml"):
        RunConfig.load(tmp_path / "none.yaml", NEEDED)
