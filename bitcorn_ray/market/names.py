"""What the name of a table or file says about its bars: `klines_5m`, `BTCUSDT_F_1d`, `candles_USDT_BTC`.

1. A name is cut at what separates words. Words that every market database has (ohlcv, klines, an exchange) and dates
   say nothing and are left out; a word such as 1h, 15min or 4H is a timeframe.
2. Of what is left, a word that ends with a currency that others are priced in (BTCUSDT) is a symbol, and so are two
   words of which one is such a currency, in either order (BTC_USDT; Gekko's USDT_BTC). What marks another market than
   spot (F, PERP, a settlement currency) belongs to it.
3. Before a timeframe any other word is a symbol (AAPL_1d). Without one it is only perhaps one (`perhaps`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from bitcorn_ray.market.timeframe import timeframe_word

MONEY = (
    *("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "USD", "UST", "DAI", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "BRL"),
    *("KRW", "RUB", "TRY", "INR"),
)
"""Currencies that are money or stand for it."""

QUOTES = (*MONEY, "BTC", "XBT", "ETH", "BNB")
"""Currencies in which others are priced; of two of them the later one is more often the base."""

_ENDINGS = tuple(end for end in QUOTES if end not in {"TRY", "INR", "CAD", "DAI", "UST"})  # "entry" is no pair
_OTHER_MARKETS = {"F", "FUT", "FUTURE", "FUTURES", "PERP", "PERPETUAL", "SWAP", "UM", "CM", "QUARTERLY", "MARGIN"}
_UNTOLD = {
    *("OHLC", "OHLCV", "KLINE", "KLINES", "CANDLE", "CANDLES", "CANDLESTICK", "CANDLESTICKS", "BAR", "BARS", "PRICE"),
    *(
        "PRICES",
        "DATA",
        "HISTORICAL",
        "HISTORY",
        "HIST",
        "MARKET",
        "MARKETS",
        "DBBARDATA",
        "SPOT",
        "TABLE",
        "RAW",
        "API",
    ),
    *("BINANCE", "BITFINEX", "BITSTAMP", "KRAKEN", "COINBASE", "BYBIT", "OKX", "KUCOIN", "GEMINI", "BITMEX", "GATE"),
    *("CDD", "FREQTRADE", "GEKKO", "JESSE", "CRYPTO", "STOCK", "STOCKS", "FOREX", "DB", "DATABASE", "EXCHANGE", "ALL"),
    *("TEST", "MAIN", "QUOTES", "TICKS", "TRADES", "EXPORT", "DUMP", "BACKUP", "OLD", "NEW", "CLEAN", "TMP", "TEMP"),
}
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Named:
    """What a name says.

    perhaps: the symbol is any word, which is believed where nothing else says one. month: a word such as 1M, which
    makes it no name of bars.
    """

    symbol: str | None = None
    timeframe: str | None = None
    perhaps: bool = False
    month: str | None = None


@functools.lru_cache(4_096)
def said_by_name(name: str) -> Named:
    """Read the name of a table, or of a file without its ending.

    >>> said_by_name("candles_USDT_BTC").symbol
    'BTC_USDT'
    """
    words, timeframes = list[tuple[str, str]](), list[str]()  # each word with what stands before it
    before, month = 0, None
    for match in _WORD.finditer(name):
        word, between, before = match[0], name[before : match.start()], match.end()
        if re.fullmatch(r"[1-9][0-9]?M", word):
            month = word
        elif found := timeframe_word(word) if word[0].isdigit() else None:
            timeframes.append(found)
        elif word.upper() not in _UNTOLD and not word.isdigit():
            words.append((between or "_", word))
    timeframe = timeframes[0] if len(set(timeframes)) == 1 else None
    symbol = _pair_word(words) or _pair_of_words([word for _, word in words], words)
    if symbol is None and 1 <= len(words) <= 2:
        joined = words[0][1] + "".join(f"{between}{word}" for between, word in words[1:])
        plain = re.fullmatch(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)?", joined) is not None
        last = bool(timeframes) and timeframe_word(_WORD.findall(name)[-1]) is not None
        if plain:
            return Named(joined.upper(), timeframe, perhaps=not last, month=month)
    return Named(symbol, timeframe, month=month)


def _pair_word(words: list[tuple[str, str]]) -> str | None:
    """Return the one word that is a pair, with the words after it that name another market than spot."""
    places = [
        place
        for place, (_, word) in enumerate(words)
        if word.isascii()
        and any(word.upper().endswith(end) and len(word) > len(end) for end in _ENDINGS)
        and word.upper() not in QUOTES
    ]
    if len(places) != 1:
        return None
    symbol = words[places[0]][1]
    for between, word in words[places[0] + 1 :]:
        if word.upper() in _OTHER_MARKETS or between == ":":
            symbol += between + word
    return symbol.upper()


def _pair_of_words(words: list[str], cut: list[tuple[str, str]]) -> str | None:
    """Return base and quote where two neighbouring words are these, in either order."""
    upper = [word.upper() for word in words]
    for place in range(len(upper) - 1):
        first, second = upper[place : place + 2]
        if first not in QUOTES and second not in QUOTES:
            continue
        between = cut[place + 1][0]
        turned = first in QUOTES and (second not in QUOTES or (second not in MONEY and _rank(first) < _rank(second)))
        symbol = f"{second}{between}{first}" if turned else f"{first}{between}{second}"
        after = upper[place + 2 : place + 3]
        if after and not turned and after[0] in QUOTES:
            if second not in MONEY and after[0] != second:  # my_BTC_USDT: the first is another word
                continue
            return f"{first}/{second}:{after[0]}"  # BTC_USDT_USDT: a future, settled in the last one
        if after and after[0] in _OTHER_MARKETS:
            symbol += cut[place + 2][0] + after[0]
        return symbol
    return None


def _rank(currency: str) -> int:
    return QUOTES.index(currency)
