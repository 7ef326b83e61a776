"""Structured logs: records with the partition, run, trial and fold of the work.

1. `logged` logs the begin of a block of work, and its end with the seconds it took, or its failure. 2. The fields of
all enclosing blocks are attributes of each record, for any handler: the one here, Ray's on a worker, or the user's.
3. An import sets up nothing: without `log_output` or a handler of the user, nothing is printed.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TextIO

from bitcorn_ray.errors import BitcornError

FORMATS = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")
_PACKAGE = __name__.partition(".")[0]
_STANDARD = {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName"}
_SECRETS = re.compile(r"(\w+://)(?:[^\s'\"/@]*@|[^\s'\"@]*:[^\s'\"@]*@)?([^\s'\"?]*)(?:\?[^\s'\"]*)?")

_CALLER = 3  # stack level of the code with the block, above contextlib

Logger = logging.LoggerAdapter[logging.Logger]

_fields: ContextVar[Mapping[str, Any]] = ContextVar("fields", default={})  # noqa: B039 - never modified


@dataclass(frozen=True, kw_only=True)
class LogOutput:
    """How to write logs. format: one of `FORMATS`. level: the lowest to write, one of `LEVELS`."""

    format: str
    level: str = "info"

    def __post_init__(self) -> None:
        for value, known in ((self.format, FORMATS), (self.level, LEVELS)):
            if value not in known:
                raise BitcornError(f"unknown log format or level {value!r}: use one of {', '.join(known)}")


_outputs: list[LogOutput] = []  # of the enclosing blocks, the innermost last


class _WithFields(logging.LoggerAdapter[logging.Logger]):
    """Adds the fields of the enclosing blocks to each record."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the fields with those of the call, which override them."""
        return msg, {**kwargs, "extra": {**_fields.get(), **(kwargs.get("extra") or {})}}


def logger_of(name: str) -> Logger:
    """Return the logger of a module, whose records have the fields of the enclosing blocks."""
    return _WithFields(logging.getLogger(name))


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Add fields, such as partition="BTCUSDT 1h", to all records of a block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


@contextmanager
def logged(log: Logger, what: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Log the begin of a block, and its end or failure with the seconds it took.

    fields: of all records of the block. Yields a mapping for further fields of the last record.
    """
    with log_context(**fields):
        started, results = time.perf_counter(), dict[str, Any]()

        def last_fields() -> dict[str, Any]:
            return {"seconds": round(time.perf_counter() - started, 3), **results}

        log.info("%s begun", what, stacklevel=_CALLER)
        try:
            yield results
        except Exception as error:
            log_failure(log, what, error, **last_fields(), stacklevel=_CALLER + 1)
            raise
        except BaseException:  # a scheduler stops a trial by SystemExit
            log.info("%s stopped", what, extra=last_fields(), stacklevel=_CALLER)
            raise
        log.info("%s done", what, extra=last_fields(), stacklevel=_CALLER)


def log_failure(log: Logger, what: str, error: BaseException, *, stacklevel: int = 2, **fields: Any) -> None:
    """Log a failure, without the secrets of URIs. It is not printed to the user, which is the caller's task."""
    # Without a handler, Python itself would print the record.
    if log.logger.hasHandlers():
        reason = _SECRETS.sub(r"\1\2", str(error)) or type(error).__name__
        extra = {"error": type(error).__name__, **fields}
        log.error("%s failed: %s", what, reason, extra=extra, stacklevel=stacklevel)


@contextmanager
def log_output(output: LogOutput) -> Iterator[None]:
    """Write the logs of the package to standard error during a block, with those of the workers of a `ray_session`."""
    logger, handler = logging.getLogger(_PACKAGE), _StandardError()
    handler.setFormatter(_JSONLines() if output.format == "json" else _Text())
    before = logger.level
    logger.setLevel(output.level.upper())
    logger.addHandler(handler)
    _outputs.append(output)
    try:
        yield
    finally:
        _outputs.remove(output)
        logger.removeHandler(handler)
        logger.setLevel(before)


def current_output() -> LogOutput | None:
    """Return the output of the innermost `log_output`, or None."""
    return _outputs[-1] if _outputs else None


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, which a progress bar replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _JSONLines(logging.Formatter):
    """One JSON object per line, with the names of Ray's JSON format."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "name": record.name,
            "process": record.process,
            **_own_fields(record),
        }
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Text(logging.Formatter):
    """Time, level, logger, message, and the fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s -- %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields = "".join(f" {name}={value}" for name, value in _own_fields(record).items())
        return super().formatMessage(record) + fields


def _own_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record, without the standard attributes and private ones of libraries."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
