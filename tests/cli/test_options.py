import click
import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main, options
from bitcorn_ray.cli.cluster import MainGroup
from bitcorn_ray.cli.session import settings
from bitcorn_ray.errors import BitcornError

COMMANDS = [
    (name, *rest)
    for name, command in main.commands.items()
    for rest in ([(sub,) for sub in command.commands] if isinstance(command, click.Group) else [()])
]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_the_common_options(run, path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    bitcorn {' '.join(path)}" in result.output
    for option in ("--json", "--address", "--debug"):
        assert option in result.output


def test_commands_are_listed_in_the_order_of_the_work():
    work = ["inspect", "ingest", "features", "audit", "cache", "train", "forecast", "demo"]
    assert [name for name in main.list_commands(None) if name in work] == work


@pytest.fixture
def invoke():
    """A function that runs a command with a body and all kinds of options."""

    def run_body(body, *words):
        @click.group(cls=MainGroup)
        @click.option("--submit", is_flag=True)
        def group(submit):
            pass

        @group.command()
        @click.option("--names", callback=options.names)
        @click.option("--integers", callback=options.integers)
        @click.option("--seconds", callback=options.amount({"s": 1, "m": 60}))
        @options.common
        def command(**values):
            return body(values)

        return CliRunner().invoke(group, ["command", *words])

    return run_body


def raising(error):
    def body(values):
        raise error

    return body


def test_bad_input_is_one_line_and_status_2(invoke):
    result = invoke(raising(BitcornError("no such thing:\n  give another")))
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "bitcorn: no such thing: give another\n")


def test_debug_shows_the_traceback(invoke):
    assert isinstance(invoke(raising(BitcornError("x")), "--debug").exception, BitcornError)
    assert isinstance(invoke(print, "--integers", "x", "--debug").exception, BitcornError)


def test_an_interruption_is_one_line_and_status_130(invoke):
    result = invoke(raising(KeyboardInterrupt))
    assert result.exit_code == 130
    assert result.stderr.startswith("bitcorn: interrupted")
    assert len(result.stderr.splitlines()) == 1


def test_values_are_parsed(invoke):
    parsed = []
    result = invoke(parsed.append, "--names", "A, b/c,,D", "--integers", "1,4, 12", "--seconds", "1.5m")
    assert result.exit_code == 0, result.output
    invoke(parsed.append)
    assert parsed == [
        {"names": ["A", "b/c", "D"], "integers": [1, 4, 12], "seconds": 90.0},
        {"names": None, "integers": None, "seconds": None},
    ]


@pytest.mark.parametrize(
    ("option", "value"), [("--names", ","), ("--integers", "1;4"), ("--seconds", "5 apples"), ("--seconds", "30")]
)
def test_a_value_that_cannot_be_parsed_is_one_line_with_the_option(invoke, option, value):
    result = invoke(print, option, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bitcorn: {option} is {value!r}: give ")
    assert len(result.stderr.splitlines()) == 1


def test_common_options_are_settings(invoke):
    seen = []
    invoke(lambda values: seen.append(settings()), "--json", "--address", "head:6379")
    invoke(lambda values: seen.append(settings()))
    assert [(each.as_json, each.address, each.debug) for each in seen] == [
        (True, "head:6379", False),
        (False, None, False),
    ]
