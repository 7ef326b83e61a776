import json

import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main

pytest.importorskip("ccxt", reason="the extra `exchange` is not installed")


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def candles(monkeypatch):
    """An exchange without a network: a clock and bars by the hour."""
    import ccxt

    start = 1_577_836_800_000

    class Exchange(ccxt.Exchange):
        def describe(self):
            has = {"fetchOHLCV": True, "fetchTime": True}
            return self.deep_extend(super().describe(), {"id": "mine", "has": has, "timeframes": {"1h": "1h"}})

        def load_markets(self, *_):
            self.markets = {"BTC/USDT": {"symbol": "BTC/USDT"}}
            return self.markets

        def feature_value(self, *_):
            return 10

        def fetch_time(self, *_):
            return start + 25 * 3_600_000

        def fetch_ohlcv(self, symbol, timeframe, since=None, limit=None):
            times = [start + hour * 3_600_000 for hour in range(26)]
            return [[at, 1.0, 2.0, 0.5, 1.5, 7.0] for at in times if at >= since][:limit]

    monkeypatch.setattr(ccxt, "mine", Exchange, raising=False)
    monkeypatch.setattr(ccxt, "exchanges", ["mine"])


ARGUMENTS = ["--exchange", "mine", "--symbols", "BTCUSDT", "--timeframes", "1h", "--since", "2020-01-01"]


def test_download_says_what_became_of_the_bars(candles, tmp_path):
    done = json.loads(run("download", *ARGUMENTS, "--db", tmp_path / "m.db", "--json").stdout)
    assert done["partitions"] == [
        {
            "symbol": "BTC/USDT",
            "timeframe": "1h",
            "rows": 25,
            "inserted": 25,
            "updated": 0,
            "last_timestamp": "2020-01-02T00:00:00Z",
        }
    ]
    again = run("download", *ARGUMENTS, "--db", tmp_path / "m.db")
    assert again.exit_code == 0
    assert "2020-01-02 00:00" in again.stdout


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--exchange", "minee", "unknown exchange 'minee': give a name that ccxt knows, such as mine"),
        ("--symbols", "ETHUSDT", "mine has no market 'ETHUSDT'"),
        ("--symbols", ",", "nothing is named"),
        ("--timeframes", "5m", "mine has no bars of 5m: it has 1h"),
        ("--since", "yesterday", "--since holds 'yesterday'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(candles, tmp_path, option, value, message):
    arguments = list(ARGUMENTS)
    arguments[arguments.index(option) + 1] = value
    result = run("download", *arguments, "--db", tmp_path / "m.db")
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "m.db").exists()
