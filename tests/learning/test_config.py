import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.learning.config import ModelConfig, TrainingConfig


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (ModelConfig, "horizons", ()),
        (ModelConfig, "horizons", (1, 1)),
        (ModelConfig, "horizons", (0,)),
        (ModelConfig, "seq_len", 0),
        (ModelConfig, "hidden_size", -1),
        (ModelConfig, "num_layers", 0),
        (ModelConfig, "dropout", 1.0),
        (TrainingConfig, "epochs", 0),
        (TrainingConfig, "batch_size", 0),
        (TrainingConfig, "patience", 0),
        (TrainingConfig, "learning_rate", float("nan")),
        (TrainingConfig, "grad_clip", 0.0),
        (TrainingConfig, "loss", "huber"),
        (TrainingConfig, "val_frac", 0.0),
    ],
)
def test_what_is_impossible_is_refused_by_name(config, field, value):
    config()
    with pytest.raises(BitcornError, match=field):
        config(**{field: value})
