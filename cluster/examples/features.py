"""A feature system of one's own: it travels with the command, and need not be installed on the nodes.

bitcorn features s3://bitcorn/bars --system cluster.examples.features:momentum:window=50
"""

from bitcorn_ray import feature_system


@feature_system(name="momentum", warmup=lambda window: window)
def momentum(bars, *, window=20):
    """Relative change of the close over a window of bars, and the range of each bar relative to its close."""
    frame = bars.to_frame()
    close = frame["close"]
    return {
        "momentum": close / close.shift(window) - 1,
        "range": (frame["high"] - frame["low"]) / close,
    }
