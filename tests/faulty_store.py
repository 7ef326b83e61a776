"""An object store that has a bad day: it is too busy, slow, or full."""

from __future__ import annotations

import itertools
import time
from contextlib import contextmanager

_BUSY = (503, "SlowDown", "Please reduce your request rate.")
FULL = (403, "QuotaExceeded", "The quota of the bucket is used up.")
NO_SPACE = (507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.")


class Faults:
    """Stands before a store's WSGI application. answered: how many requests it has answered in the store's place."""

    def __init__(self, app):
        self.app, self.rule, self.answered = app, None, 0

    def __call__(self, environ, start_response):
        found = self.rule(environ["REQUEST_METHOD"], environ["PATH_INFO"]) if self.rule else None
        if found is None:
            return self.app(environ, start_response)
        self.answered += 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, code, message = found
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        start_response(f"{status} {code}", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    @contextmanager
    def having(self, rule):
        """Answer by a rule for the length of a block: a function of method and path that gives an error, or None."""
        self.rule, self.answered = rule, 0
        try:
            yield self
        finally:
            self.rule = None


def busy(seconds, every):
    """Refuse all requests for so many seconds from now on, and then every so manieth."""
    until, count = time.monotonic() + seconds, itertools.count(1)
    return lambda method, path: _BUSY if time.monotonic() < until or next(count) % every == 0 else None


def slow(seconds, every):
    """Let every so manieth request wait."""
    count = itertools.count(1)

    def wait(method, path):
        if next(count) % every == 0:
            time.sleep(seconds)

    return wait


def full(below, answer):
    """Take nothing more whose path has this in it. answer: FULL, a bucket's quota, or NO_SPACE, the store's disks."""
    return lambda method, path: answer if method in ("PUT", "POST") and below in path else None
