"""Short ways to read a source in tests."""

from bitcorn_ray.sources.source import open_source


def read_bars(path, symbol, timeframe, limit=None, reading=None):
    """Bars of one partition, and the partition as stored."""
    return open_source(path, reading).read(symbol, timeframe, limit)


def list_partitions(path, reading=None):
    """Every partition of a source."""
    return open_source(path, reading).partitions()


def stored_rows(path, symbols=None, timeframes=None, reading=None):
    """Rows of every partition as they are stored."""
    return open_source(path, reading).stored_rows(symbols, timeframes)
