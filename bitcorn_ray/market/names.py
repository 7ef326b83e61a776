"""Symbol and timeframe in the name of a table or file: `klines_5m`, `BTCUSDT_240628`, `candles_USDT_BTC`, `7203.T_1d`.

1. Split the name into words. A word such as 1h, 15min, 4H or daily is the timeframe. Words that are dates form the
   range of a download if there are several, or if they follow the timeframe.
2. Find the pair: two neighbouring words of which one is a quote currency (BTC_USDT, and Poloniex's USDT_BTC), whatever
   the other word is; else the one word that ends with a quote currency (BTCUSDT). A third currency is that of
   settlement (BTC_USDT_USDT), which is the base or the quote. Without a pair, one or two words are a symbol (AAPL_1d,
   BRK.B_1d, BTC-PERP_1h), which is `uncertain` without a timeframe.
3. Every other word is one of these. A contract or an expiry (PERP, UM, 240628), the kind of candles (mark, index,
   premium, funding), a number and an unknown word after the pair belong to the symbol. Words that describe (ohlcv) are
   left out. An exchange, and an unknown word before the pair, are `labels`: two names whose labels differ may be two
   markets.
4. Three currencies that form several pairs, and options, are no symbol.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field

from bitcorn_ray.market.timeframe import timeframe_ms, timeframe_of_ms, timeframe_word


def _upper_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FIAT = (
    *("USD", "EUR", "GBP", "JPY", "AUD", "CAD", "CHF", "BRL", "KRW", "RUB", "TRY", "INR", "NZD", "SEK", "NOK", "DKK"),
    *("PLN", "CZK", "HUF", "MXN", "ZAR", "SGD", "HKD", "CNY", "CNH", "IDR", "UAH", "ARS", "COP", "NGN", "THB", "VND"),
    *("PHP", "ILS", "AED", "TWD", "MYR", "RON"),
)
_STABLE = (
    *("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "UST", "DAI", "USDP", "PYUSD", "GUSD", "RLUSD", "USDE", "USDS", "USD1"),
    *("USDD", "SUSD", "LUSD", "EURC", "EURI", "EURT", "EURS", "AEUR", "BIDR", "VAI"),
)
_METALS = ("XAU", "XAG", "XPT", "XPD")

MONEY = (*_STABLE, *_FIAT)
"""Fiat currencies and stablecoins."""

QUOTES = (*MONEY, "BTC", "XBT", "ETH", "BNB")
"""Quote currencies; of two of them the later one is more often the base."""

# What a word of one pair ends with. Others end English words ("entry") or tickers.
_ENDINGS = (
    *("USDT", "USDC", "FDUSD", "USD", "USD1", "EUR", "GBP", "JPY", "AUD", "CHF", "BRL", "KRW", "RUB", "EURI", "BIDR"),
    *("BTC", "XBT", "ETH", "BNB"),
)
_CONTRACTS = _upper_words(
    "F FUT FUTURE FUTURES FTS PERP PERPETUAL PERPS SWAP UM CM LINEAR INVERSE DELIVERY QUARTERLY QUARTER BIQUARTERLY "
    "WEEKLYS MARGIN CFD"
)
_KRAKEN_FUTURES = frozenset(("PI", "PF", "FI", "FF"))
_CANDLES = {
    **{"MARK": "MARK", "MARKPRICE": "MARK", "INDEX": "INDEX", "INDEXPRICE": "INDEX", "BID": "BID", "ASK": "ASK"},
    **{"PREMIUM": "PREMIUM", "PREMIUMINDEX": "PREMIUM", "FUNDING": "FUNDING", "FUNDINGRATE": "FUNDING"},
    **{"MARKPRICEKLINES": "MARK", "INDEXPRICEKLINES": "INDEX", "PREMIUMINDEXKLINES": "PREMIUM"},
}
_SECOND_OF_CANDLES = {"PREMIUM": "INDEX", "FUNDING": "RATE", "MARK": "PRICE", "INDEX": "PRICE"}
# Words that no coin is called by.
_DESCRIPTIVE = _upper_words(
    "OHLC OHLCV OHLCVS KLINE KLINES CANDLES CANDLESTICK CANDLESTICKS BARS DBBARDATA PRICES QUOTES TICKS TRADES "
    "DATABASE DB TABLE HISTORY HISTORICAL MARKETS STOCKS FOREX CRYPTO EXPORT BACKUP TMP TEMP PART PARTS CHUNK COPY"
)
# Words that describe, and names of coins: beside a quote currency they are the base.
_AMBIGUOUS = _upper_words(
    "CANDLE BAR PRICE DATA RAW API HIST MARKET STOCK EXCHANGE ALL TEST MAIN DUMP OLD NEW CLEAN SPOT ASCII DAT"
)
# Exchanges and vendors of data whose names are coins too, and the others, which are never the base of a pair.
_EXCHANGES_AND_COINS = _upper_words("APEX BACKPACK CEX DELTA DYDX GATE GEMINI HTX LIQUID POLYGON WOO XT")
_EXCHANGES = _EXCHANGES_AND_COINS | _upper_words(
    "ALPACA BIGONE BINANCE BINANCEUS BINANCEUSDM BINANCECOINM BINGX BIT2C BITBANK BITBNS BITFINEX BITFLYER BITGET "
    "BITHUMB BITMART BITMEX BITOPRO BITRUE BITSO BITSTAMP BITTREX BITVAVO BLOFIN BTCMARKETS BYBIT COINBASE COINBASEPRO "
    "COINCHECK COINEX COINONE CRYPTOCOM DERIBIT EXMO FTX GATEIO GDAX HITBTC HUOBI HYPERLIQUID INDODAX KRAKEN "
    "KRAKENFUTURES KUCOIN KUCOINFUTURES LATOKEN LBANK MEXC MTGOX OKCOIN OKEX OKX PARADEX PHEMEX POLONIEX PROBIT UPBIT "
    "WHITEBIT YOBIT ZAIF ALPHAVANTAGE CDD COINAPI DUKASCOPY FREQTRADE FXCM GEKKO HISTDATA JESSE KAGGLE METATRADER MT4 "
    "MT5 OANDA STOOQ TIINGO TRADINGVIEW YAHOO YFINANCE AMEX ARCA CBOE CME COMEX LSE NASDAQ NYMEX NYSE TSX"
)
_FOLLOWING_TIMEFRAMES = {"DAILY": "1d", "HOURLY": "1h", "MINUTELY": "1m", "WEEKLY": "1w"}
_METATRADER = re.compile(r"M1|M5|M15|M30|H1|H4|D1|W1")
_METATRADER_MINUTES = re.compile(r"([A-Z]{6})(M1|M5|M15|M30|H1|H4|D1|W1|1|5|15|30|60|240|1440|10080)", re.IGNORECASE)
_MINUTES = frozenset(("1", "3", "5", "15", "30", "45", "60", "120", "180", "240", "720", "1440"))
_BITFINEX = re.compile(r"t[A-Z0-9]{5,}")
_MONTH = re.compile(r"[1-9][0-9]?(?:M|(?i:mo|mon|mth|month|months))|(?i:monthly)")
_OPTION = re.compile(
    r"(?:[0-9]{6}|[0-9]{8}|[0-9]{1,2}[A-Z]{3}[0-9]{2})[-_][0-9]+(?:[.D][0-9]+)?[-_](?:C|P|CALL|PUT)(?![A-Z0-9])"
    r"|[A-Z]{1,6}[0-9]{6}[CP][0-9]{8}(?![0-9])",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_MONTH_OR_DAY = re.compile(r"0[1-9]|[12][0-9]|3[01]")
_DAY = re.compile(r"(?:19|20)?[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])")
_WORD = re.compile(r"[^\W_]+")
_TICKER = re.compile(r"\^?[A-Za-z0-9]+(?:[-_.=&/:][A-Za-z0-9]+)?")
_ENDING = re.compile(
    r"(?:\.(?:csv|tsv|txt|asc|prn|json|jsonl|ndjson|parquet|pq|feather|arrow|db|db3|sqlite|sqlite3|gz|zip))+",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ParsedName:
    """Symbol and timeframe of a name.

    uncertain: the symbol may be any word; use it only if nothing else gives a symbol. month: a word such as 1M; then
    the name does not describe bars. option: the name is that of an option. labels: further words that may tell markets
    apart, in lower case.
    """

    symbol: str | None = None
    timeframe: str | None = None
    uncertain: bool = False
    month: str | None = None
    option: bool = field(default=False, compare=False)
    labels: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class _Word:
    """A word, and the separator before it. late: it follows the timeframe. date: it is a date, or a part of one."""

    text: str
    separator: str
    late: bool = False
    date: bool = False

    @property
    def upper(self) -> str:
        return self.text.upper()


def without_endings(name: str) -> str:
    """Return the name of a file without the endings that say its format.

    >>> without_endings("BTCUSDT-15m.csv.gz"), without_endings("7203.T.csv")
    ('BTCUSDT-15m', '7203.T')
    """
    found = _ENDING.search(name)
    return name[: found.start()] if found and found.end() == len(name) else name


@functools.lru_cache(4_096)
def parse_name(name: str) -> ParsedName:
    """Parse the name of a table, or of a file without its endings.

    >>> parse_name("candles_USDT_BTC").symbol, parse_name("BTCUSDT_240628_1h").symbol, parse_name("7203.T_1d").symbol
    ('BTC_USDT', 'BTCUSDT_240628', '7203.T')
    """
    words, timeframes, month = _split(name)
    timeframe = timeframes[0] if len(set(timeframes)) == 1 else None
    if _OPTION.search(name):
        return ParsedName(None, timeframe, month=month, option=True)
    pair = _pair_of_words(words) or _pair_in_word(words)
    if pair is None:
        return _without_pair(name, words, timeframe, month)
    if pair.timeframe is not None and not timeframes:
        timeframe = pair.timeframe
    if pair.symbol is None:
        return ParsedName(None, timeframe, month=month)
    symbol, labels = _with_other_words(pair, words)
    return ParsedName(symbol.upper(), timeframe, month=month, labels=labels)


def _split(name: str) -> tuple[list[_Word], list[str], str | None]:
    """Return the words that are no timeframe, the timeframes, and a month."""
    words, timeframes, month, end = list[_Word](), list[str](), None, 0
    for match in _WORD.finditer(name):
        text, separator, end = match[0], name[end : match.start()], match.end()
        if not words and _BITFINEX.fullmatch(text):
            text = text[1:]
        if _MONTH.fullmatch(text):
            month = text
        elif found := _timeframe(text, separator, words, is_last=end == len(name)):
            timeframes.append(found)
        else:
            words.append(_Word(text, separator, bool(timeframes)))
    return _with_dates(words), timeframes, month


def _timeframe(text: str, separator: str, before: list[_Word], is_last: bool) -> str | None:
    after_pair = bool(before) and _is_pair(before[-1].text)
    if text in _MINUTES and ("," in separator or (after_pair and is_last)):
        return _of_minutes(text)  # TradingView's "BINANCE_BTCUSDT, 60", Kraken's "XBTUSD_60"
    if text[0].isdigit():
        return timeframe_word(text)
    if before and text.upper() in _FOLLOWING_TIMEFRAMES:
        return _FOLLOWING_TIMEFRAMES[text.upper()]
    return timeframe_word(text) if after_pair and _METATRADER.fullmatch(text) else None


def _of_minutes(text: str) -> str:
    return timeframe_of_ms(int(text) * timeframe_ms("1m"))


def _with_dates(words: list[_Word]) -> list[_Word]:
    """Mark the words that are dates: one day, or a year with the month and the day that follow it."""
    marked, index = list[_Word](), 0
    while index < len(words):
        word, length = words[index], 0
        if _DAY.fullmatch(word.text):
            length = 1
        elif _YEAR.fullmatch(word.text) and not (index + 1 < len(words) and words[index + 1].separator == "."):
            length = 1
            while length < 3 and index + length < len(words) and _MONTH_OR_DAY.fullmatch(words[index + length].text):
                length += 1
        marked += [_Word(one.text, one.separator, one.late, True) for one in words[index : index + length]]
        if length == 0:
            marked.append(word)
        index += max(length, 1)
    return marked


@dataclass(frozen=True)
class _Pair:
    """A pair: words[start:stop]. symbol: None if the words form several. timeframe: within the word itself."""

    symbol: str | None
    start: int
    stop: int
    settled: bool = False
    timeframe: str | None = None


def _pair_of_words(words: list[_Word]) -> _Pair | None:
    """Return base and quote if two neighbouring words are these, in either order."""
    upper = [word.upper for word in words]
    for index in range(len(words) - 1):
        first, second = upper[index : index + 2]
        if not _may_be_pair(words[index], words[index + 1]):
            continue
        if first.isdigit() and index and not _is_label(words[index - 1], [words[index + 1]]):  # PEPE_1000_USDT
            return _Pair(None, index, index + 2)
        between = words[index + 1].separator
        quote_first = first in QUOTES and (
            second not in QUOTES or (second not in MONEY and QUOTES.index(first) < QUOTES.index(second))
        )
        symbol = f"{second}{between}{first}" if quote_first else f"{first}{between}{second}"
        third = words[index + 2] if index + 2 < len(words) else None
        if third is None or third.upper not in QUOTES or third.late:
            return _Pair(symbol, index, index + 2)
        if not quote_first and third.upper in (first, second):  # a future is settled in its quote or in its base
            return _Pair(f"{first}/{second}:{third.upper}", index, index + 3, settled=True)
        if not _is_label(words[index], [words[index + 1], third]):
            return _Pair(None, index, index + 3)
    return None


def _may_be_pair(first: _Word, second: _Word) -> bool:
    if first.late != second.late or first.date or second.date or second.text.isdigit():
        return False
    if first.upper in QUOTES and second.upper not in QUOTES:  # the quote is first, or it is a base with its contract
        return not (second.upper in _CONTRACTS | _DESCRIPTIVE | _AMBIGUOUS | set(_CANDLES) or _is_expiry(second.text))
    never_base = _DESCRIPTIVE | (_EXCHANGES - _EXCHANGES_AND_COINS)
    return second.upper in QUOTES and first.upper not in never_base and second.separator != "="


def _is_expiry(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,2}[A-Z]{3}[0-9]{2,4}|[FGHJKMNQUVXZ][0-9]{1,4}", text.upper()) is not None


def _is_label(word: _Word, currencies: list[_Word]) -> bool:
    """Return True if a word before two currencies is no currency: it is known, or written in another case."""
    if word.upper in _EXCHANGES | _DESCRIPTIVE | _AMBIGUOUS | _CONTRACTS | set(_CANDLES):
        return True
    return word.upper not in QUOTES and word.text.isupper() != all(one.text.isupper() for one in currencies)


def _pair_in_word(words: list[_Word]) -> _Pair | None:
    """Return the only word that is a pair."""
    found = list[_Pair]()
    for index, word in enumerate(words):
        minutes = _METATRADER_MINUTES.fullmatch(word.text)
        if minutes and _is_fx(minutes[1].upper()):  # MetaTrader: EURUSD60
            timeframe = _of_minutes(minutes[2]) if minutes[2].isdigit() else timeframe_word(minutes[2].upper())
            found.append(_Pair(minutes[1], index, index + 1, timeframe=timeframe))
        elif _is_pair(word.text):
            found.append(_Pair(word.text, index, index + 1))
    return found[0] if len(found) == 1 else None


def _is_pair(word: str) -> bool:
    upper = word.upper()
    return word.isascii() and ((upper.endswith(_ENDINGS) and upper not in QUOTES) or _is_fx(upper))


def _is_fx(upper: str) -> bool:
    return len(upper) == 6 and upper[:3] in (*_FIAT, *_METALS) and upper[3:] in _FIAT


def _with_other_words(pair: _Pair, words: list[_Word]) -> tuple[str, tuple[str, ...]]:
    """Return the symbol of a pair with the other words that belong to it, and the labels."""
    symbol, candles, labels, contracts = str(pair.symbol), list[str](), list[str](), list[str]()
    for index, word in enumerate(words[: pair.start]):
        if word.upper in _CANDLES or _continues_candles(word, candles):
            candles += [word.upper]
        elif word.upper in _CONTRACTS:
            contracts.append(f"_{word.upper}")
        elif index == pair.start - 1 and (word.upper in _KRAKEN_FUTURES or (word.text.isdigit() and not word.date)):
            symbol = f"{word.text}{words[pair.start].separator}{symbol}"
        elif not (word.date or word.upper in _DESCRIPTIVE | _AMBIGUOUS):
            labels.append(word.text.lower())
    dates = [word for word in words[pair.stop :] if word.date and not word.late]
    for word in words[pair.stop :]:
        if word.separator == ":":
            symbol += f":{word.text}"
        elif word.upper in _CANDLES or _continues_candles(word, candles):
            candles.append(word.upper)
        elif word.upper in _CONTRACTS:
            if not (pair.settled and word.upper in ("F", "FUT", "FUTURE", "FUTURES")):
                contracts.append(f"{word.separator}{word.text}")
        elif word.date:
            if dates == [word] and not _YEAR.fullmatch(word.text):
                contracts.append(f"{word.separator}{word.text}")
        elif word.upper in _EXCHANGES:
            labels.append(word.text.lower())
        elif not (word.upper in _DESCRIPTIVE | _AMBIGUOUS or (word.late and word.text.isdigit())):
            contracts.append(f"{word.separator}{word.text}")
    kinds = dict.fromkeys(_CANDLES[text] for text in candles if text in _CANDLES)
    if "PREMIUM" in kinds:
        kinds.pop("INDEX", None)
    return symbol + "".join(contracts) + "".join(f".{kind}" for kind in kinds), tuple(sorted(labels))


def _continues_candles(word: _Word, candles: list[str]) -> bool:
    """Return True for the second word of a kind of candles, such as the rate of funding_rate."""
    return bool(candles) and _SECOND_OF_CANDLES.get(_CANDLES.get(candles[-1], "")) == word.upper


def _without_pair(name: str, words: list[_Word], timeframe: str | None, month: str | None) -> ParsedName:
    """Return one or two words as the symbol: a ticker, or a coin with its contract."""
    dates = [word for word in words if word.date and not word.late]
    kept = [
        word
        for word in words
        if not (word.upper in _DESCRIPTIVE | _AMBIGUOUS or (word.date and (word.late or len(dates) > 1)))
        and not (word.late and word.text.isdigit())
        and not (word.date and _YEAR.fullmatch(word.text) and len(words) > 1)
    ]
    labels = list[str]()
    while len(kept) > 1 and kept[0].upper in _EXCHANGES:
        labels.append(kept.pop(0).text.lower())
    if not 1 <= len(kept) <= 2 or (len(kept) == 1 and kept[0].date):
        return ParsedName(None, timeframe, month=month)
    joined = kept[0].text + "".join(f"{word.separator}{word.text}" for word in kept[1:])
    if name.lstrip().startswith("^"):
        joined = f"^{joined}"
    if not _TICKER.fullmatch(joined):
        return ParsedName(None, timeframe, month=month)
    told = timeframe is not None and not any(word.late for word in kept)
    return ParsedName(joined.upper(), timeframe, uncertain=not told, month=month, labels=tuple(labels))
