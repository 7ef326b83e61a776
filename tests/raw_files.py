"""Raw files as users have them, read by pandas alone."""

import numpy as np
import pandas as pd

from bitcorn_ray.market.bars import Bars
from bitcorn_ray.sources.frames import read_frame


def cryptodatadownload(data_dir):
    """Rows of the CryptoDataDownload file in its order, rows by unit of time, and rows by format of its dates."""
    frame = pd.read_csv(data_dir / "raw" / "CDD_Binance_BTCUSDT_1h.csv.gz")
    in_seconds = (frame["unix"] < 1e11).to_numpy()
    times = np.where(in_seconds, frame["unix"] * 1000, frame["unix"]).astype(np.int64)
    prices = {name: frame[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")}
    halves = int(frame["date"].str.contains("AM|PM").sum())
    return (
        Bars(timestamp=times, **prices, volume=frame["Volume BTC"].to_numpy(np.float64)),
        {"s": int(in_seconds.sum()), "ms": int((~in_seconds).sum())},
        {"date": {"YYYY-MM-DD HH-AM": halves, "YYYY-MM-DD HH:MM:SS": len(frame) - halves}},
    )


def real_bars(data_dir):
    """Every file of real bars: (name, timeframe, bars)."""
    for path in sorted((data_dir / "bars").glob("*.parquet")):
        yield path.stem, path.stem.split("_")[1], read_frame(pd.read_parquet(path))
