import json
import logging
import subprocess
import sys

import pytest

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.logging import LogOutput, current_output, log_context, log_failure, log_output, logged, logger_of

LOG = logger_of("bitcorn_ray.some.module")


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_records_have_the_fields_of_all_blocks_around_them(caplog):
    caplog.set_level("INFO", "bitcorn_ray")
    with log_context(trial="t0001"):
        with log_context(fold=3), log_context(fold=4):
            LOG.info("inside", extra={"loss": 0.5})
        LOG.info("between")
    LOG.info("outside")
    inside, between, outside = caplog.records
    assert (inside.trial, inside.fold, inside.loss) == ("t0001", 4, 0.5)
    assert between.trial == "t0001"
    assert not hasattr(between, "fold")
    assert not hasattr(outside, "trial")


def test_a_block_says_that_it_begins_and_ends_and_what_was_found(capsys):
    with (
        log_output(LogOutput(format="json")),
        logged(LOG, "features", partition="BTCUSDT 1h") as found,
    ):
        LOG.info("halfway")
        found["chunks"] = 4
    begun, halfway, done = lines(capsys)
    assert [each["message"] for each in (begun, halfway, done)] == ["features begun", "halfway", "features done"]
    assert {each["partition"] for each in (begun, halfway, done)} == {"BTCUSDT 1h"}
    assert done["chunks"] == 4
    assert done["seconds"] >= 0
    assert {(each["levelname"], each["name"]) for each in (begun, halfway, done)} == {("INFO", LOG.name)}


def test_a_failure_is_logged_with_its_fields_and_goes_on(capsys):
    with log_output(LogOutput(format="json")):
        with pytest.raises(BitcornError, match="no bars"), logged(LOG, "features", partition="BTCUSDT 1h"):
            raise BitcornError("no bars")
        with pytest.raises(SystemExit), logged(LOG, "trial", trial="t0001"):
            raise SystemExit
    _, failed, _, stopped = lines(capsys)
    assert (failed["levelname"], failed["message"]) == ("ERROR", "features failed: no bars")
    assert (failed["error"], failed["partition"]) == ("BitcornError", "BTCUSDT 1h")
    assert (stopped["levelname"], stopped["message"], stopped["trial"]) == ("INFO", "trial stopped", "t0001")


def test_records_say_where_the_block_is_and_not_where_it_is_logged(caplog):
    caplog.set_level("INFO", "bitcorn_ray")
    log_failure(LOG, "reading", OSError("gone"))
    with pytest.raises(OSError, match="gone"), logged(LOG, "trial"):
        raise OSError("gone")
    with pytest.raises(SystemExit), logged(LOG, "trial"):
        raise SystemExit
    with logged(LOG, "trial"):
        pass
    assert len(caplog.records) == 7
    assert {record.filename for record in caplog.records} == {"test_logging.py"}


@pytest.mark.parametrize(
    ("said", "logged_as"),
    [
        ("no s3://key:se/cr@bucket/bars?session_token=hush here", "no s3://bucket/bars here"),
        ("'gs://token@bucket/a b'", "'gs://bucket/a b'"),
        ("s3://bucket/bars: ask me@home", "s3://bucket/bars: ask me@home"),
        ("", "OSError"),
    ],
)
def test_secrets_of_uris_are_not_logged(capsys, said, logged_as):
    with log_output(LogOutput(format="json")):
        log_failure(LOG, "reading", OSError(said))
    assert lines(capsys)[0]["message"] == f"reading failed: {logged_as}"


def test_text_has_the_fields_behind_the_message(capsys):
    with log_output(LogOutput(format="text")), log_context(trial="t0001", fold=2):
        LOG.warning("slow")
    assert capsys.readouterr().err.endswith(" WARNING bitcorn_ray.some.module -- slow trial=t0001 fold=2\n")


def test_a_traceback_is_part_of_its_line(capsys):
    with log_output(LogOutput(format="json")):
        try:
            raise OSError("gone")
        except OSError:
            LOG.exception("failed")
    (line,) = lines(capsys)
    assert line["exc_text"].endswith("OSError: gone")


def test_the_output_ends_with_its_block_and_has_its_level(capsys):
    logger = logging.getLogger("bitcorn_ray")
    before = logger.level, list(logger.handlers)
    with log_output(LogOutput(format="json", level="error")) as _:
        LOG.warning("too low")
        LOG.error("told")
        assert current_output() == LogOutput(format="json", level="error")
    assert [each["message"] for each in lines(capsys)] == ["told"]
    assert current_output() is None
    assert (logger.level, logger.handlers) == before


@pytest.mark.parametrize("wrong", [{"format": "xml"}, {"format": "json", "level": "loud"}])
def test_an_output_that_there_is_not_is_refused(wrong):
    with pytest.raises(BitcornError, match="use one of"):
        LogOutput(**wrong)


def test_a_process_that_asks_for_no_logs_is_quiet():
    code = (
        "from bitcorn_ray.logging import logged, logger_of\n"
        "try:\n"
        "    with logged(logger_of('bitcorn_ray.trial'), 'trial', trial='t0001'):\n"
        "        raise ValueError('told elsewhere')\n"
        "except ValueError:\n"
        "    pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
