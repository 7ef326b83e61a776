import json
import sqlite3
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from reading import list_partitions, read_bars

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.partition import Partition
from bitcorn_ray.sources.exchange import download_bars, opened_exchange

ccxt = pytest.importorskip("ccxt", reason="the extra `exchange` is not installed")

HOUR = 3_600_000
START = 1_577_836_800_000  # 2020-01-01
BTC = Partition("BTC/USDT", "1h")


class Binance:
    """An exchange that speaks Binance's API on loopback, with a clock of its own.

    first: time of the market's first bar. missing: hours without a bar. failures: statuses to answer next with.
    """

    def __init__(self):
        self.first, self.now, self.missing = START, START + 2_500 * HOUR + 1, set()
        self.failures, self.requests = [], []
        exchange = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, body = exchange.answer(self.path)
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "7")
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path):
        parts = urlsplit(path)
        if parts.path == "/api/v3/klines":
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            self.requests.append(int(query["startTime"]))
            if self.failures:
                return self.failures.pop(0), {"code": -1003, "msg": "Too many requests"}
            return 200, self.klines(query)
        if parts.path == "/api/v3/time":
            return 200, {"serverTime": self.now}
        if parts.path == "/api/v3/exchangeInfo":
            return 200, {"symbols": [self.market("BTC"), self.market("ETH")]}
        return 200, {"symbols": []}  # no futures

    def klines(self, query):
        step = {"1h": HOUR, "4h": 4 * HOUR}[query["interval"]]
        begin = max(int(query["startTime"]), self.first)
        times = range(-(-begin // step) * step, self.now, step)
        times = [at for at in times if at not in self.missing][: int(query["limit"])]
        return [[at, *self.prices(at), at + step - 1, "1", 1, "1", "1", "0"] for at in times]

    @staticmethod
    def prices(at):
        base = 100 + (at - START) / HOUR / 8
        return [f"{value:.8f}" for value in (base, base + 2, base - 1, base + 1, base / 10)]

    @staticmethod
    def market(base):
        return {
            "symbol": f"{base}USDT",
            "status": "TRADING",
            "baseAsset": base,
            "quoteAsset": "USDT",
            "isSpotTradingAllowed": True,
            "permissions": ["SPOT"],
            "filters": [],
        }


@pytest.fixture
def binance():
    exchange = Binance()
    yield exchange
    exchange.server.shutdown()
    exchange.server.server_close()


@pytest.fixture
def download(binance, tmp_path):
    """A function that downloads into a database; what it waited is its attribute `waited`."""

    def run(symbols=("BTC/USDT",), timeframes=("1h",), since=START, **options):
        exchange = opened_exchange("binance", binance.url)
        assert exchange.enableRateLimit
        exchange.rateLimit = 1  # the server is ours
        return download_bars(
            exchange, tmp_path / "m.db", symbols, timeframes, since, sleep=run.waited.append, **options
        )

    run.waited = []
    return run


def times_of(path, symbol="BTC/USDT", timeframe="1h"):
    return read_bars(path, symbol, timeframe)[0].timestamp


def test_every_finished_bar_is_stored_and_the_unfinished_one_never(binance, download, tmp_path):
    seen = []
    [done] = download(on_page=lambda partition, rows: seen.append((partition, rows)))
    bars = read_bars(tmp_path / "m.db", "BTCUSDT", "1h")[0]
    # The bar that opened at START + 2500 hours goes on: the clock stands one millisecond behind its open.
    assert bars.timestamp.tolist() == list(range(START, START + 2_500 * HOUR, HOUR))
    expected = np.array([Binance.prices(at) for at in bars.timestamp], dtype=float).T
    for name, column in zip(("open", "high", "low", "close", "volume"), expected, strict=True):
        assert getattr(bars, name).tolist() == column.tolist()
    assert (done.partition, done.rows, done.inserted, done.updated) == (BTC, 2_500, 2_500, 0)
    assert done.last_timestamp == "2020-04-14T03:00:00Z"
    assert [rows for _, rows in seen] == [1_000, 1_000, 500]


def test_a_bar_that_ends_right_now_is_finished(binance, download, tmp_path):
    binance.now = START + 3 * HOUR
    download()
    assert len(times_of(tmp_path / "m.db")) == 3


def test_the_next_download_goes_on_where_the_database_ends(binance, download, tmp_path):
    download()
    binance.requests.clear()
    binance.now += 10 * HOUR
    [done] = download()
    assert binance.requests[0] == START + 2_500 * HOUR
    assert (done.rows, done.inserted) == (10, 10)
    assert np.diff(times_of(tmp_path / "m.db")).tolist() == [HOUR] * 2_509
    binance.requests.clear()
    assert download()[0].rows == 0
    assert binance.requests == []


def test_an_earlier_start_brings_what_is_missing_before(binance, download, tmp_path):
    download(since=START + 2_000 * HOUR)
    [done] = download(since=START + 100 * HOUR)
    assert done.inserted == 1_900
    assert np.diff(times_of(tmp_path / "m.db")).tolist() == [HOUR] * 2_399
    # A market that began later than was wished costs a request, no more.
    binance.first = START + 100 * HOUR
    binance.requests.clear()
    assert download(since=START)[0].rows == 0
    assert len(binance.requests) == 1


def test_what_was_fetched_before_a_failure_is_kept_and_the_rest_follows(binance, download, tmp_path):
    def fail_later(partition, rows):
        binance.failures[:] = [503] * 99

    with pytest.raises(BitcornError, match="binance cannot be reached"):
        download(on_page=fail_later)
    assert len(times_of(tmp_path / "m.db")) == 1_000
    binance.failures.clear()
    assert download()[0].inserted == 1_500


def test_an_exchange_that_is_asked_too_often_says_how_long_to_wait(binance, download, tmp_path):
    binance.failures[:] = [429, 503]
    download()
    assert download.waited[0] == 7.0
    assert len(download.waited) == 2
    assert len(times_of(tmp_path / "m.db")) == 2_500


def test_an_outage_is_left_out_and_passed_over(binance, download, tmp_path):
    binance.missing = set(range(START + 900 * HOUR, START + 2_100 * HOUR, HOUR))
    download()
    assert len(times_of(tmp_path / "m.db")) == 1_300


def test_symbols_and_timeframes_are_partitions_in_any_spelling(download, tmp_path):
    done = download(symbols=["btcusdt", "ETH-USDT"], timeframes=["60m", "4h"])
    assert [each.partition for each in done] == [
        Partition(symbol, timeframe) for symbol in ("BTC/USDT", "ETH/USDT") for timeframe in ("1h", "4h")
    ]
    assert list_partitions(tmp_path / "m.db") == sorted(each.partition for each in done)
    assert len(times_of(tmp_path / "m.db", "ETH/USDT", "4h")) == 625


def test_a_partition_goes_on_under_the_name_that_is_stored(download, tmp_path):
    download(since=START + 2_400 * HOUR)
    with closing(sqlite3.connect(tmp_path / "m.db")) as connection:
        connection.execute("UPDATE ohlcv SET symbol = 'BTCUSDT'")
        connection.commit()
    [done] = download(since=START + 2_400 * HOUR)
    assert (done.rows, done.last_timestamp) == (0, "2020-04-14T03:00:00Z")
    assert list_partitions(tmp_path / "m.db") == [Partition("BTCUSDT", "1h")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symbols": ["BTC/USD"]}, r"binance has no market 'BTC/USD': write it as ccxt does, such as BTC/USDT"),
        ({"timeframes": ["7m"]}, "binance has no bars of 7m: it has 1m, 3m"),
        ({"timeframes": ["1M"]}, "is a month"),
    ],
)
def test_what_the_exchange_does_not_have_is_refused_and_no_database_is_made(download, tmp_path, options, message):
    with pytest.raises(BitcornError, match=message):
        download(**options)
    assert not (tmp_path / "m.db").exists()


def test_an_exchange_must_be_known_and_installed(monkeypatch):
    with pytest.raises(BitcornError, match=r"unknown exchange 'binanse': .*such as binance"):
        opened_exchange("binanse")
    monkeypatch.setitem(__import__("sys").modules, "ccxt", None)
    with pytest.raises(BitcornError, match=r"needs ccxt: pip install 'bitcorn_ray\[exchange\]'"):
        opened_exchange("binance")


def test_no_host_but_the_given_one_is_asked():
    def hosts(urls):
        return (
            {host for each in urls.values() for host in hosts(each)}
            if isinstance(urls, dict)
            else {urlsplit(urls).netloc}
        )

    assert hosts(opened_exchange("binance", "http://127.0.0.1:9/mirror").urls["api"]) == {"127.0.0.1:9"}
