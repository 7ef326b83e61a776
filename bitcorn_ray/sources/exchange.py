"""Download bars of an exchange into a database, through ccxt.

1. Only missing bars are requested: those before the first stored one, back to the requested start, and those after the
   last stored one. An interrupted download resumes in this way.
2. Pages are requested one after another at ccxt's rate limit of the exchange. If the exchange cannot be reached, or
   reports too many requests, the request is repeated a few times, after the delay that the exchange asks for.
3. A bar is stored only after it has ended by the exchange's own clock.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.market.bars import BAR_COLUMNS, Bars, joined, show_time
from bitcorn_ray.market.partition import Partition, normalise_symbol
from bitcorn_ray.market.timeframe import timeframe_ms, timeframe_of_ms
from bitcorn_ray.sources.ingest import write_bars
from bitcorn_ray.sources.upsert import stored_span

_ATTEMPTS = 6
_LONGEST_WAIT = 120.0
_PAGE_BARS = 500  # requested if the exchange does not say its limit


@dataclass(frozen=True)
class DownloadedPartition:
    """Numbers of bars fetched, inserted and updated, and the time of the last stored bar."""

    partition: Partition
    rows: int
    inserted: int
    updated: int
    last_timestamp: str | None


def download_bars(
    exchange: Any,
    db_path: str | Path,
    symbols: Sequence[str],
    timeframes: Sequence[str],
    since: int,
    on_page: Callable[[Partition, int], None] = lambda *_: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[DownloadedPartition]:
    """Bring a database up to date with an exchange.

    exchange: of ccxt, see `opened_exchange`. symbols: in any spelling; a future by its settlement, BTC/USDT:USDT.
    since: milliseconds UTC of the first requested bar. on_page: called with each stored page's partition and number of
    bars. sleep: waits so many seconds.
    Each page is stored at once. Raises BitcornError for a symbol or timeframe that the exchange does not have, and
    if it cannot be reached.
    """
    _require_timeframes(exchange, timeframes)
    known = _requested(exchange, exchange.load_markets, sleep)
    partitions = [
        Partition(_market_of(exchange, known, symbol), timeframe_of_ms(timeframe_ms(timeframe)))
        for symbol in symbols
        for timeframe in timeframes
    ]
    return [_download(exchange, db_path, partition, since, on_page, sleep) for partition in partitions]


def opened_exchange(name: str, base_url: str | None = None) -> Any:
    """Return an exchange of ccxt that keeps to its rate limit.

    base_url: of a proxy or mirror, in place of the usual host.
    Raises BitcornError if ccxt is not installed, for an unknown exchange, and for one without bars.
    """
    try:
        import ccxt
    except ImportError:
        raise BitcornError("downloading needs ccxt: pip install 'bitcorn_ray[exchange]'") from None
    if name not in ccxt.exchanges:
        alike = difflib.get_close_matches(name.lower(), ccxt.exchanges, 3)
        raise BitcornError(f"unknown exchange {name!r}: give a name that ccxt knows{_such_as(alike)}")
    exchange = getattr(ccxt, name)({"enableRateLimit": True})
    exchange.requests_trust_env = True  # use proxies and certificates of the environment
    if not exchange.has.get("fetchOHLCV"):
        raise BitcornError(f"exchange {name} gives no bars: give another one")
    if base_url:
        exchange.urls["api"] = _redirected(exchange.urls["api"], base_url)
    return exchange


def _download(
    exchange: Any,
    db_path: str | Path,
    partition: Partition,
    since: int,
    on_page: Callable[[Partition, int], None],
    sleep: Callable[[float], None],
) -> DownloadedPartition:
    step = timeframe_ms(partition.timeframe)
    first_bar = -(-since // step) * step if step <= timeframe_ms("1d") else since
    done = DownloadedPartition(partition, 0, 0, 0, None)
    span = stored_span(db_path, partition)

    def stored(bars: Bars) -> None:
        nonlocal done
        [page] = write_bars([(exchange.id, partition, bars)], db_path)
        rows, inserted, updated = done.rows + page.rows, done.inserted + page.inserted, done.updated + page.updated
        done = replace(done, partition=page.partition, rows=rows, inserted=inserted, updated=updated)
        on_page(page.partition, page.rows)

    if span is not None and first_bar < span[0]:
        # Stored as a whole: a part of it would hide a gap before the first bar from the next call.
        earlier = list(_pages(exchange, partition, first_bar, span[0], step, sleep))
        if earlier:
            stored(joined(earlier))
    begin = first_bar if span is None else max(first_bar, span[1] + step)
    for page in _pages(exchange, partition, begin, _now(exchange, sleep) - step + 1, step, sleep):
        stored(page)
    span = stored_span(db_path, partition)
    return replace(done, last_timestamp=show_time(span[1]) if span else None)


def _pages(
    exchange: Any, partition: Partition, begin: int, end: int, step: int, sleep: Callable[[float], None]
) -> Iterator[Bars]:
    """Yield the bars that open from `begin` on and before `end`, page by page."""
    limit = _page_limit(exchange, partition.symbol)
    while begin < end:
        rows = _requested(
            exchange,
            partial(exchange.fetch_ohlcv, partition.symbol, partition.timeframe, since=begin, limit=limit),
            sleep,
        )
        bars = _bars_of(rows)
        fresh = bars.take(bars.timestamp >= begin)
        wanted = bars.take((bars.timestamp >= begin) & (bars.timestamp < end))
        if len(wanted):
            yield wanted
        # An empty page is a time without trades, or before the market began: later pages may have bars.
        begin = int(fresh.timestamp[-1]) + step if len(fresh) else begin + limit * step


def _bars_of(rows: Sequence[Sequence[Any]]) -> Bars:
    """Return the bars of ccxt's rows (time in ms, open, high, low, close, volume), ascending, one per time."""
    times = np.array([row[0] for row in rows], np.int64)
    times, rows_of_time = np.unique(times, return_index=True)
    values = np.array([[np.nan if value is None else value for value in row[1:6]] for row in rows], np.float64)
    columns = values.reshape(-1, 5)[rows_of_time].T
    named: Any = {name: np.ascontiguousarray(column) for name, column in zip(BAR_COLUMNS[1:], columns, strict=True)}
    return Bars(timestamp=times, **named)


def _requested(exchange: Any, request: Callable[[], Any], sleep: Callable[[float], None]) -> Any:
    """Return the response. Raises BitcornError if the exchange refuses, or cannot be reached repeatedly."""
    import ccxt

    for attempt in range(_ATTEMPTS):
        try:
            return request()
        except ccxt.NetworkError as error:  # the rate limit, too many connections, maintenance, a timeout
            if attempt == _ATTEMPTS - 1:
                raise BitcornError(f"{exchange.id} cannot be reached: {_brief(error)}; try again later") from error
            sleep(_wait(exchange, attempt))
        except ccxt.BaseError as error:
            raise BitcornError(f"{exchange.id} refuses: {_brief(error)}") from error
    raise AssertionError("the last attempt returns or raises")


def _wait(exchange: Any, attempt: int) -> float:
    """Return the seconds before the next attempt: what the exchange asks for, else twice as long each time."""
    headers = {str(name).lower(): value for name, value in (exchange.last_response_headers or {}).items()}
    try:
        return min(float(headers["retry-after"]), _LONGEST_WAIT)
    except (KeyError, ValueError):
        return min(2.0**attempt, _LONGEST_WAIT)


def _now(exchange: Any, sleep: Callable[[float], None]) -> int:
    """Return milliseconds UTC by the exchange's clock if possible: a fast local one would store unfinished bars."""
    return int(
        _requested(exchange, exchange.fetch_time, sleep) if exchange.has.get("fetchTime") else time.time() * 1000
    )


def _page_limit(exchange: Any, symbol: str) -> int:
    limit = exchange.feature_value(symbol, "fetchOHLCV", "limit")
    return int(limit) if limit else _PAGE_BARS


def _require_timeframes(exchange: Any, timeframes: Sequence[str]) -> None:
    for timeframe in timeframes:
        name = timeframe_of_ms(timeframe_ms(timeframe))
        if name not in (exchange.timeframes or {}):
            exist = ", ".join(known for known in exchange.timeframes or {} if not known.endswith(("M", "s")))
            raise BitcornError(f"{exchange.id} has no bars of {timeframe}: it has {exist}")


def _market_of(exchange: Any, markets: dict[str, Any], symbol: str) -> str:
    """Return ccxt's name of a market."""
    if symbol in markets:
        return symbol
    found = [name for name in markets if normalise_symbol(name) == normalise_symbol(symbol)]
    if len(found) == 1:
        return found[0]
    alike = difflib.get_close_matches(symbol.upper(), list(markets), 3)
    raise BitcornError(f"{exchange.id} has no market {symbol!r}: write it as ccxt does{_such_as(alike)}")


def _redirected(urls: Any, base_url: str) -> Any:
    """Replace scheme and host of every address."""
    if isinstance(urls, dict):
        return {name: _redirected(url, base_url) for name, url in urls.items()}
    base, parts = urlsplit(base_url), urlsplit(str(urls))
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + parts.path, parts.query, ""))


def _such_as(names: Sequence[str]) -> str:
    return f", such as {', '.join(names)}" if names else ""


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
