import subprocess
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.models.neural.config import LSTMConfig, TrainingConfig


def test_reading_a_configuration_loads_no_torch():
    code = "import sys, bitcorn_ray.models.neural.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("horizons", (), "horizons are"),
        ("horizons", (1, 1), "horizons are"),
        ("hidden_size", 0, "hidden_size is 0"),
        ("dropout", 1.0, "dropout is 1.0"),
        ("symbol_embedding", -1, "symbol_embedding is -1"),
        ("reference_span", -1, "reference_span is -1"),
        ("volatility_link", "relu", "volatility_link is 'relu'"),
    ],
)
def test_an_impossible_model_is_refused(field, value, message):
    with pytest.raises(BitcornError, match=message):
        LSTMConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs is 0"),
        ("batch_size", 0, "batch_size is 0"),
        ("patience", 0, "patience is 0"),
        ("checkpoint_epochs", 0, "checkpoint_epochs is 0"),
        ("checkpoint_minutes", -1.0, "checkpoint_minutes is -1.0"),
        ("learning_rate", float("nan"), "learning_rate is nan"),
        ("learning_rate", float("inf"), "learning_rate is inf"),
        ("grad_clip", 0.0, r"grad_clip is 0\.0"),
        ("weight_decay", -1.0, "weight_decay is -1.0"),
        ("loss", "huber", "loss is 'huber'"),
        ("schedule", "steps", "schedule is 'steps'"),
        ("precision", "float16", "precision is 'float16'"),
        ("val_frac", 1.0, r"val_frac is 1\.0"),
        ("test_frac", 0.8, r"test_frac is 0\.8"),
        ("test_frac", -0.1, r"test_frac is -0\.1"),
        ("degrees_of_freedom", 2.0, "degrees_of_freedom is 2.0"),
        ("directional_penalty", -1.0, "directional_penalty is -1.0"),
        ("ema", 1.0, "ema is 1.0"),
        ("horizon_weights", (1.0, 0.0), "horizon_weights are"),
        ("horizon_weights", "equal", "horizon_weights is 'equal'"),
    ],
)
def test_an_impossible_training_is_refused(field, value, message):
    with pytest.raises(BitcornError, match=message):
        TrainingConfig(**{field: value})
