"""Symbol and timeframe in the name of a table or file: `klines_5m`, `BTCUSDT_F_1d`, `candles_USDT_BTC`.

1. Split the name into words. Skip dates and generic words (ohlcv, klines, an exchange). A word such as 1h, 15min or 4H
   is a timeframe.
2. A word that ends with a quote currency (BTCUSDT) is a symbol, and so are two words of which one is a quote currency,
   in either order (BTC_USDT; Gekko's USDT_BTC). A marker of another market than spot (F, PERP, a settlement currency)
   belongs to the symbol.
3. Before a timeframe any other word is a symbol (AAPL_1d). Without a timeframe it is `uncertain`.
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
"""Fiat currencies and stablecoins."""

QUOTES = (*MONEY, "BTC", "XBT", "ETH", "BNB")
"""Quote currencies; of two of them the later one is more often the base."""

_ENDINGS = tuple(quote for quote in QUOTES if quote not in {"TRY", "INR", "CAD", "DAI", "UST"})  # "entry" is no pair
_OTHER_MARKETS = {"F", "FUT", "FUTURE", "FUTURES", "PERP", "PERPETUAL", "SWAP", "UM", "CM", "QUARTERLY", "MARGIN"}
_GENERIC = re.compile(
    "ohlcv?|klines?|candles?|candlesticks?|bars?|dbbardata|prices?|quotes|ticks|trades|data|db|database|table|raw|api|"
    "hist|history|historical|markets?|spot|crypto|stocks?|forex|exchange|all|test|main|export|dump|backup|old|new|"
    "clean|tmp|temp|binance|bitfinex|bitstamp|kraken|coinbase|bybit|okx|kucoin|gemini|bitmex|gate|cdd|freqtrade|"
    "gekko|jesse",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class ParsedName:
    """Symbol and timeframe of a name.

    uncertain: the symbol may be any word; use it only if nothing else gives a symbol. month: a word such as 1M; then
    the name does not describe bars.
    """

    symbol: str | None = None
    timeframe: str | None = None
    uncertain: bool = False
    month: str | None = None


@functools.lru_cache(4_096)
def parse_name(name: str) -> ParsedName:
    """Parse the name of a table, or of a file without its extension.

    >>> parse_name("candles_USDT_BTC").symbol
    'BTC_USDT'
    """
    words, timeframes = list[tuple[str, str]](), list[str]()  # each word with the separator before it
    end, month = 0, None
    for match in _WORD.finditer(name):
        word, separator, end = match[0], name[end : match.start()], match.end()
        if re.fullmatch(r"[1-9][0-9]?M", word):
            month = word
        elif found := timeframe_word(word) if word[0].isdigit() else None:
            timeframes.append(found)
        elif not _GENERIC.fullmatch(word) and not word.isdigit():
            words.append((separator or "_", word))
    timeframe = timeframes[0] if len(set(timeframes)) == 1 else None
    symbol = _pair_in_word(words) or _pair_of_words(words)
    if symbol is None and 1 <= len(words) <= 2:
        joined = words[0][1] + "".join(f"{separator}{word}" for separator, word in words[1:])
        ends_with_timeframe = bool(timeframes) and timeframe_word(_WORD.findall(name)[-1]) is not None
        if re.fullmatch(r"[A-Za-z0-9]+(?:[-_][A-Za-z0-9]+)?", joined):
            return ParsedName(joined.upper(), timeframe, uncertain=not ends_with_timeframe, month=month)
    return ParsedName(symbol, timeframe, month=month)


def _pair_in_word(words: list[tuple[str, str]]) -> str | None:
    """Return the only word that is a pair, with the later words that name another market than spot."""
    pairs = [index for index, (_, word) in enumerate(words) if _is_pair(word)]
    if len(pairs) != 1:
        return None
    symbol = words[pairs[0]][1]
    for separator, word in words[pairs[0] + 1 :]:
        if word.upper() in _OTHER_MARKETS or separator == ":":
            symbol += separator + word
    return symbol.upper()


def _is_pair(word: str) -> bool:
    return word.isascii() and word.upper().endswith(_ENDINGS) and word.upper() not in QUOTES


def _pair_of_words(words: list[tuple[str, str]]) -> str | None:
    """Return base and quote if two neighbouring words are these, in either order."""
    separators, upper = [separator for separator, _ in words], [word.upper() for _, word in words]
    for index in range(len(upper) - 1):
        first, second = upper[index : index + 2]
        if first not in QUOTES and second not in QUOTES:
            continue
        between = separators[index + 1]
        quote_first = first in QUOTES and (
            second not in QUOTES or (second not in MONEY and QUOTES.index(first) < QUOTES.index(second))
        )
        symbol = f"{second}{between}{first}" if quote_first else f"{first}{between}{second}"
        after = upper[index + 2] if index + 2 < len(upper) else None
        if after in QUOTES and not quote_first:
            if second not in MONEY and after != second:  # my_BTC_USDT: the first is another word
                continue
            return f"{first}/{second}:{after}"  # BTC_USDT_USDT: a future, settled in the last one
        if after in _OTHER_MARKETS:
            symbol += f"{separators[index + 2]}{after}"
        return symbol
    return None
