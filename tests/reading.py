"""Short ways to read a source in tests."""

from bitcorn_ray.sources.source import open_source


def read_bars(path, symbol, timeframe, limit=None, options=None):
    """Bars of one partition, and the partition as stored."""
    return open_source(path, options).read(symbol, timeframe, limit)


def list_partitions(path, options=None):
    """Every partition of a source."""
    return open_source(path, options).partitions()


def stored_rows(path, symbols=None, timeframes=None, options=None):
    """Rows of every partition as they are stored."""
    return open_source(path, options).stored_rows(symbols, timeframes)
