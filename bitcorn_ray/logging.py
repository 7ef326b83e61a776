"""Logs of what works: records that say which partition, run, trial and fold they are about.

1. A block of work is `logged`: its beginning, and its end with the seconds that it took, or its failure. 2. The fields
of all blocks around are attributes of each record, so that any handler has them: the one here, Ray's on a worker, or
one of the user's own. 3. Nothing is set up by an import: without `log_output`, and without a handler of the user's own,
a process is as quiet as ever.
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

_CALLER = 3  # of a block: above it, and above contextlib

Logger = logging.LoggerAdapter[logging.Logger]

_fields: ContextVar[Mapping[str, Any]] = ContextVar("fields", default={})  # noqa: B039 - nobody writes to it


@dataclass(frozen=True, kw_only=True)
class LogOutput:
    """How logs are written. format: one of `FORMATS`. level: the lowest that is written, one of `LEVELS`."""

    format: str
    level: str = "info"

    def __post_init__(self) -> None:
        for value, known in ((self.format, FORMATS), (self.level, LEVELS)):
            if value not in known:
                raise BitcornError(f"logs cannot be {value!r}: take one of {', '.join(known)}")


_asked: list[LogOutput] = []  # those that are in force, the innermost last


class _WithFields(logging.LoggerAdapter[logging.Logger]):
    """Adds the fields of the blocks around to each record."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Merge the fields with those of the call, which go before."""
        return msg, {**kwargs, "extra": {**_fields.get(), **(kwargs.get("extra") or {})}}


def logger_of(name: str) -> Logger:
    """Return the logger of a module, whose records have the fields of the blocks around."""
    return _WithFields(logging.getLogger(name))


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Add fields to all records of a block, such as partition="BTCUSDT 1h", run, trial and fold."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


@contextmanager
def logged(log: Logger, what: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Log that a block begins, and that it is done or has failed, with the seconds that it took.

    fields: of all records of the block. Yields a mapping for what is known only at its end.
    """
    with log_context(**fields):
        started, found = time.perf_counter(), dict[str, Any]()

        def ending() -> dict[str, Any]:
            return {"seconds": round(time.perf_counter() - started, 3), **found}

        log.info("%s begun", what, stacklevel=_CALLER)
        try:
            yield found
        except Exception as error:
            log_failure(log, what, error, **ending(), stacklevel=_CALLER + 1)
            raise
        except BaseException:  # a trial that its scheduler stops leaves by SystemExit
            log.info("%s stopped", what, extra=ending(), stacklevel=_CALLER)
            raise
        log.info("%s done", what, extra=ending(), stacklevel=_CALLER)


def log_failure(log: Logger, what: str, error: BaseException, *, stacklevel: int = 2, **fields: Any) -> None:
    """Log that something failed, without the secrets of URIs; the caller tells its user about it."""
    # Python would print it where nobody asked for logs, beside what the user is told.
    if log.logger.hasHandlers():
        reason = _SECRETS.sub(r"\1\2", str(error)) or type(error).__name__
        told = {"error": type(error).__name__, **fields}
        log.error("%s failed: %s", what, reason, extra=told, stacklevel=stacklevel)


@contextmanager
def log_output(output: LogOutput) -> Iterator[None]:
    """Write the logs of the package to standard error for the length of a block, and those of Ray workers with them.

    Workers are those of a `ray_session` that begins inside the block.
    """
    logger, handler = logging.getLogger(_PACKAGE), _StandardError()
    handler.setFormatter(_JSONLines() if output.format == "json" else _Text())
    before = logger.level
    logger.setLevel(output.level.upper())
    logger.addHandler(handler)
    _asked.append(output)
    try:
        yield
    finally:
        _asked.remove(output)
        logger.removeHandler(handler)
        logger.setLevel(before)


def asked_output() -> LogOutput | None:
    """How logs are to be written; None where nobody asked for them."""
    return _asked[-1] if _asked else None


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the time: a progress bar stands in for it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _JSONLines(logging.Formatter):
    """One JSON object a line, with the names that Ray's own format of the same kind has."""

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
    """Time, level, logger and message, and after these the fields as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s -- %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        fields = "".join(f" {name}={value}" for name, value in _own_fields(record).items())
        return super().formatMessage(record) + fields


def _own_fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record has beside what every record has, and beside what a library keeps in it for itself."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and name[0] != "_"}
