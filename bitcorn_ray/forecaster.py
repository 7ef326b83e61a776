"""Front door to forecasts: a trained run and bars in, one row a horizon out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.features.registry import find_system
from bitcorn_ray.features.system import FeatureSystem
from bitcorn_ray.learning.gaps import gap_before
from bitcorn_ray.learning.predict import predict_windows
from bitcorn_ray.learning.runs import Run, load_run
from bitcorn_ray.learning.scaling import scale
from bitcorn_ray.market.bars import Bars, show_time
from bitcorn_ray.market.partition import timeframe_ms

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Forecaster"]


class Forecaster:
    """A trained run, ready to forecast; no Ray needed."""

    def __init__(self, run: Run, system: FeatureSystem) -> None:
        self.run, self.system = run, system

    @classmethod
    def load(cls, folder: str | Path) -> Forecaster:
        """Load a run from its folder.

        Raises BitcornError where it is no run, or was trained on features that are not declared here.
        """
        run = load_run(folder)
        name, version = run.metadata["feature_system"], run.metadata["feature_version"]
        if name is None:
            raise BitcornError(f"the run in {folder} does not say its feature system: train it with feature_system set")
        system = find_system(name).on_grid(timeframe_ms(run.metadata["timeframe"]))
        if version not in (None, system.version) or set(run.metadata["feature_cols"]) - set(system.features):
            raise BitcornError(
                f"the run in {folder} was trained on {name} version {version} with features "
                f"{', '.join(run.metadata['feature_cols'])}; here {name} has version {system.version}: train it anew"
            )
        return cls(run, system)

    def predict(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Forecast from the last bar.

        bars: ascending bars of one partition on the run's timeframe, at least warm-up + seq_len of them.
        Returns a row a horizon: symbol, timeframe, cutoff (open time of the last bar), horizon (bars), time (open time
        of the bar forecast), return (log), volatility (of that return), price (last close x exp(return)), and the
        bands lo80, hi80, lo95, hi95 of the price (infinite where the validation data were too few to calibrate one).
        Raises BitcornError for too few bars, missing bars inside the last window, and bars without features.
        """
        import pandas as pd

        given = Bars.from_frame(bars)
        if given.timestamp is None:
            raise BitcornError("the bars have no timestamp: add one")
        metadata, config = self.run.metadata, self.run.config
        step = timeframe_ms(metadata["timeframe"])
        window = self._last_window(given, step)
        returns, volatilities = predict_windows(self.run.model, window, np.array([len(window) - 1]), config.seq_len)
        cutoff, close = int(given.timestamp[-1]), float(given.close[-1])
        rows = []
        for column, horizon in enumerate(config.horizons):
            forecast, volatility = float(returns[0, column]), float(volatilities[0, column])
            row: dict[str, Any] = {
                "symbol": bars.attrs.get("symbol") or metadata["symbol"],
                "timeframe": metadata["timeframe"],
                "cutoff": pd.Timestamp(cutoff, unit="ms", tz="UTC"),
                "horizon": horizon,
                "time": pd.Timestamp(cutoff + horizon * step, unit="ms", tz="UTC"),
                "return": forecast,
                "volatility": volatility,
                "price": close * math.exp(forecast),
            }
            for level, widths in metadata["calibration"]["bands"].items():
                half = math.inf if widths[column] is None else widths[column] * volatility
                name = f"{float(level) * 100:.0f}"
                row[f"lo{name}"], row[f"hi{name}"] = (
                    close * math.exp(forecast - half),
                    close * math.exp(forecast + half),
                )
            rows.append(row)
        return pd.DataFrame(rows)

    def _last_window(self, bars: Bars, step: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return the scaled features (L, F) of the last window."""
        seq_len, columns = self.run.config.seq_len, self.run.metadata["feature_cols"]
        need = self.system.warmup_bars + seq_len
        if len(bars) < need:
            raise BitcornError(
                f"{len(bars)} bars are too few to forecast: {self.system.name} and seq_len {seq_len} need {need}"
            )
        assert bars.timestamp is not None
        gaps = np.flatnonzero(gap_before(bars.timestamp[-seq_len:], step))
        if len(gaps):
            before, after = (show_time(int(t)) for t in bars.timestamp[-seq_len:][gaps[-1] - 1 : gaps[-1] + 1])
            raise BitcornError(
                f"bars are missing between {before} and {after}, inside the last {seq_len} bars: load what is "
                f"missing, or wait until {seq_len} bars follow the gap"
            )
        features = self.system.compute(bars)
        window = np.column_stack([features[name][-seq_len:] for name in columns])
        if not np.isfinite(window).all():
            unusable = [name for name, column in zip(columns, window.T, strict=True) if not np.isfinite(column).all()]
            raise BitcornError(f"the last {seq_len} bars have no finite {', '.join(unusable)}: the prices do not move")
        return scale(window, self.run.scaler)
