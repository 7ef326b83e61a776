import click
import pytest
from click.testing import CliRunner

from bitcorn_ray.cli import main
from bitcorn_ray.cli.options import common_options, integers, listed
from bitcorn_ray.errors import BitcornError

COMMANDS = [
    (name, *rest)
    for name, command in main.commands.items()
    for rest in ([(sub,) for sub in command.commands] if isinstance(command, click.Group) else [()])
]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_with_an_example_and_the_common_options(path):
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert f"Example:\n    bitcorn {' '.join(path)}" in result.output
    for option in ("--json", "--address", "--debug"):
        assert option in result.output


def test_commands_are_listed_in_the_order_of_the_work():
    work = ["inspect", "ingest", "features", "audit", "cache", "train", "forecast", "demo"]
    assert [name for name in main.list_commands(None) if name in work] == work


@pytest.fixture
def failing():
    @click.command()
    @common_options
    def command(as_json, address):
        raise BitcornError("no such thing:\n  give another")

    return command


def test_bad_input_is_one_line_and_status_2(failing):
    result = CliRunner().invoke(failing)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "bitcorn: no such thing: give another\n")


def test_debug_shows_the_traceback(failing):
    assert isinstance(CliRunner().invoke(failing, ["--debug"]).exception, BitcornError)


def test_options_are_split_at_commas():
    assert listed(None) is None
    assert listed("A, b/c,,D") == ["A", "b/c", "D"]
    with pytest.raises(BitcornError, match="nothing is named in ','"):
        listed(",")
    assert integers("1,4, 12", "--horizons") == [1, 4, 12]
    with pytest.raises(BitcornError, match="--horizons is '1;4'"):
        integers("1;4", "--horizons")


def test_an_interruption_is_one_line_and_status_130():
    @click.command()
    @common_options
    def command(as_json, address):
        raise KeyboardInterrupt

    result = CliRunner().invoke(command)
    assert result.exit_code == 130
    assert result.stderr.startswith("bitcorn: interrupted")
