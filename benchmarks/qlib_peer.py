"""Time Qlib building 14 features of every instrument: run by an interpreter that has Qlib, not this package.

    PYTHON_WITH_QLIB benchmarks/qlib_peer.py FOLDER --kernels K

FOLDER is what `benchmarks.qlib_data.write_qlib` wrote. Only the call of ``D.features`` is timed, once in this fresh
process, with Qlib's caches off. Prints one line of JSON: seconds, rows, nan_free_rows, kernels and versions.
Made for Qlib 0.9.7 (``pip install pyqlib==0.9.7``).
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from importlib.metadata import version

import qlib  # type: ignore[import-not-found]
from qlib.data import D  # type: ignore[import-not-found]

EXPRESSIONS = (
    "Log($close/Ref($close,1))",
    "Log($close/Ref($close,5))",
    "$close/Ref($close,10)-1",
    "Log($close/Ref($close,1))-Ref(Log($close/Ref($close,1)),1)",
    "($close-Mean($close,20))/Mean($close,20)",
    "4*Std($close,20)/Mean($close,20)",
    "Std($close,20)/$close",
    "Mean(If($close>Ref($close,1),$close-Ref($close,1),0),14)/(Mean(Abs($close-Ref($close,1)),14)+1e-12)*100",
    "Mean(Greater($high-$low,Greater(Abs($high-Ref($close,1)),Abs($low-Ref($close,1)))),14)/$close",
    "Std(Log($close/Ref($close,1)),10)",
    "Std(Log($close/Ref($close,1)),30)",
    "($close-Min($low,50))/(Max($high,50)-Min($low,50))",
    "Ref($close,4)/$close",
    "$volume/Mean($volume,20)",
)


def main() -> None:
    """Build the features once and print the time as JSON."""
    parser = argparse.ArgumentParser(description="Time Qlib's D.features over all instruments.")
    parser.add_argument("folder", help="Qlib's provider_uri")
    parser.add_argument("--kernels", type=int, default=1, help="processes that Qlib may use")
    args = parser.parse_args()
    qlib.init(
        provider_uri=args.folder,
        kernels=args.kernels,
        expression_cache=None,
        dataset_cache=None,
        logging_level=logging.ERROR,
    )
    started = time.perf_counter()
    features = D.features(D.instruments("all"), list(EXPRESSIONS), freq="day")
    seconds = time.perf_counter() - started
    report = {
        "seconds": seconds,
        "rows": len(features),
        "nan_free_rows": int(features.notna().all(axis=1).sum()),
        "kernels": args.kernels,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("pyqlib", "pandas", "numpy", "joblib")},
        },
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
